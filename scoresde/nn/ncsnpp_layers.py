r"""Define the layers of NCSN++ and DDPM++ (Song et al. 2021, arXiv:2011.13456).

The parameters have the same names as in the authors' checkpoints. The residual blocks, which can
change the resolution, are taken from BigGAN (Brock et al. 2019, arXiv:1809.11096), and the filter
for resampling from Zhang (2019, arXiv:1904.11486).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.errors import InvalidValueError

from .dropout import Dropout

FILTER = (1.0, 3.0, 3.0, 1.0)


class FourierNumbers(nn.Module):
    """Embed numbers by random Fourier features."""

    def __init__(self, features: int, scale: float) -> None:
        super().__init__()
        frequencies = torch.empty(features)
        if not frequencies.is_meta:  # a meta tensor has no memory to fill
            generator = torch.Generator().manual_seed(0)
            drawn = torch.empty(features, dtype=torch.float32, device="cpu")
            frequencies.copy_(scale * drawn.normal_(generator=generator))
        self.W = nn.Parameter(frequencies, requires_grad=False)

    def forward(self, c: Tensor) -> Tensor:
        """Return the sines and cosines, `(B, 2 features)`."""
        angle = 2 * math.pi * c[:, None] * self.W
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class Sines(nn.Module):
    """Embed numbers by sines and cosines of geometric frequencies (Ho et al. 2020)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.count = features // 2

    def forward(self, c: Tensor) -> Tensor:
        """Return the sines and cosines, `(B, features)`."""
        wide = c.to(torch.promote_types(c.dtype, torch.float32))
        logs = -math.log(1e4) * torch.arange(self.count, dtype=torch.float64, device="cpu")
        angle = wide[:, None] * (logs / max(self.count - 1, 1)).to(wide).exp()
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class Resample(nn.Module):
    """Halve or double the height and width of images.

    It uses an FIR filter, or averages 2x2 pixels (down) and repeats pixels (up).
    """

    def __init__(self, fir: bool) -> None:
        super().__init__()
        self.fir = fir

    def down(self, x: Tensor) -> Tensor:
        """Return images of half the height and width."""
        return filtered(x, 1, 1)[..., ::2, ::2] if self.fir else F.avg_pool2d(x, 2)

    def up(self, x: Tensor) -> Tensor:
        """Return images of twice the height and width."""
        if not self.fir:
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        wide[..., ::2, ::2] = 4 * x
        return filtered(wide, 2, 1)


def filtered(x: Tensor, before: int, after: int) -> Tensor:
    """Pad images, and convolve each channel with the filter along both axes."""
    taps = torch.tensor(FILTER, dtype=x.dtype, device=x.device) / sum(FILTER)
    taps = taps.expand(x.shape[1], 1, -1)
    x = F.pad(x, (before, after, before, after))
    x = F.conv2d(x, taps[:, :, :, None], groups=x.shape[1])
    return F.conv2d(x, taps[:, :, None, :], groups=x.shape[1])


def started(weight: Tensor, into: int, out: int, scale: float) -> None:
    """Draw weights uniformly, with variance `scale` divided by the mean of fan-in and fan-out."""
    bound = math.sqrt(3 * max(scale, 1e-10) / ((into + out) / 2))
    nn.init.uniform_(weight, -bound, bound)


def convolution(into: int, out: int, scale: float = 1.0, kernel: int = 3) -> nn.Conv2d:
    """Return a convolution that keeps height and width, with weights drawn by `started`."""
    conv = nn.Conv2d(into, out, kernel, padding=kernel // 2)
    started(conv.weight, into * kernel**2, out * kernel**2, scale)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv


def linear(into: int, out: int) -> nn.Linear:
    """Return a linear layer with weights drawn by `started`."""
    layer = nn.Linear(into, out)
    started(layer.weight, into, out, 1.0)
    nn.init.zeros_(layer.bias)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm of up to 32 groups, each of at least four channels.

    Raises:
        InvalidValueError: The groups do not divide the channels.
    """
    groups = min(channels // 4, 32)
    if channels % groups:
        raise InvalidValueError(
            f"{channels} channels of a layer cannot be divided into {groups} groups; choose a "
            "width that is a multiple of 32"
        )
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Apply a residual block of BigGAN, which may halve or double the resolution."""

    def __init__(
        self, into: int, out: int, wide: int, dropout: float, scale: float, change: str,
        resample: Resample,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale, self.resized = scale, getattr(resample, change, nn.Identity())
        self.GroupNorm_0 = group_norm(into)
        self.Conv_0 = convolution(into, out)
        self.Dense_0 = linear(wide, out)
        self.GroupNorm_1 = group_norm(out)
        self.Dropout_0 = Dropout(dropout)
        self.Conv_1 = convolution(out, out, 0.0)
        change_of_shape = into != out or change != "none"
        self.Conv_2 = convolution(into, out, kernel=1) if change_of_shape else nn.Identity()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the features at the new resolution; `c` is the embedding `(B, wide)`."""
        h = self.Conv_0(self.resized(F.silu(self.GroupNorm_0(x))))
        h = h + self.Dense_0(c)[:, :, None, None]
        h = self.Conv_1(self.Dropout_0(F.silu(self.GroupNorm_1(h))))
        out: Tensor = (self.Conv_2(self.resized(x)) + h) * self.scale
        return out


class Pixels(nn.Module):
    """Map the channels of each pixel linearly."""

    def __init__(self, channels: int, scale: float = 0.1) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(channels, channels))
        self.b = nn.Parameter(torch.zeros(channels))
        started(self.W, channels, channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mapped features, in the shape of `x`."""
        return F.conv2d(x, self.W.T[:, :, None, None], self.b)


class PixelAttention(nn.Module):
    """Add self-attention over all pixels, with one head, to the features."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2 = (Pixels(channels) for _ in range(3))
        self.NIN_3 = Pixels(channels, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, in the shape of `x`."""
        h = self.GroupNorm_0(x)
        # the fast kernels of attention want one head, and the numbers of a position side by side
        q, k, v = (
            part(h).flatten(2).transpose(1, 2).contiguous()[:, None]
            for part in (self.NIN_0, self.NIN_1, self.NIN_2)
        )
        h = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        out: Tensor = (x + self.NIN_3(h)) * self.scale
        return out


class Combine(nn.Module):
    """Add a downsampled image to the features of its resolution."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.Conv_0 = convolution(into, out, kernel=1)

    def forward(self, image: Tensor, h: Tensor) -> Tensor:
        """Return the features `h` plus a convolution of the image."""
        out: Tensor = self.Conv_0(image) + h
        return out


class Shrink(nn.Module):
    """Halve the height and width of an image by a strided convolution.

    If `fir` is true, the image is first filtered by the FIR filter.
    """

    def __init__(self, into: int, out: int, fir: bool) -> None:
        super().__init__()
        self.fir = fir
        self.add_module("Conv2d_0" if fir else "Conv_0", convolution(into, out))

    def forward(self, x: Tensor) -> Tensor:
        """Return the image at half the height and width."""
        conv: Any = next(self.children())
        x = filtered(x, 2, 2) if self.fir else F.pad(x, (0, 1, 0, 1))
        return F.conv2d(x, conv.weight, conv.bias, stride=2)

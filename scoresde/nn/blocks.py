r"""Define the parts of a U-Net in 1, 2 or 3 dimensions: convolution, residual block, attention.

Every part maps `(B, C, *spatial)` to a tensor with the same order of axes. Each sample is
normalised separately (GroupNorm, not BatchNorm), so it never depends on the rest of its batch.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .dropout import Dropout

Padding = Literal["zeros", "circular"]
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def conv(
    inputs: int,
    outputs: int,
    spatial: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: Padding = "zeros",
    zero: bool = False,
) -> nn.Module:
    """Return a convolution whose output has 1 / `stride` of the input's size, rounded up.

    `zero=True` sets weights and biases to zero, so that a residual block starts as the identity.
    """
    layer: nn.Module = CONV[spatial](
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, padding_mode=padding
    )
    if zero:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    return layer


def norm(channels: int, *, affine: bool = True) -> nn.GroupNorm:
    """Return a GroupNorm (Wu & He 2018, arXiv 1803.08494): up to 8 groups of 2 or more channels."""
    groups = max(g for g in range(1, 9) if channels % g == 0 and channels >= 2 * g)
    return nn.GroupNorm(groups, channels, affine=affine)


class ResidualBlock(nn.Module):
    r"""Add to the input the output of two convolutions.

    The output is $x + f(\mathrm{film}(f(\mathrm{norm}\,x)))$. Here $f$ is silu and a convolution,
    and $\mathrm{film}(h) = (1 + a(e))\,\mathrm{norm}(h) + b(e)$ depends on the embedding $e$ (Perez
    et al. 2017, arXiv 1709.07871; for diffusion Dhariwal & Nichol 2021, 2105.05233).

    Args:
        channels: The number of input and of output channels.
        features: The length of the embedding.
        spatial: 1, 2 or 3.
        dropout: The probability of dropping an activation before the second convolution.
        padding: `"zeros"` or `"circular"`.
    """

    def __init__(
        self, channels: int, features: int, spatial: int, *, dropout: float, padding: Padding
    ) -> None:
        super().__init__()
        self.norm1 = norm(channels)
        self.conv1 = conv(channels, channels, spatial, padding=padding)
        self.film = nn.Linear(features, 2 * channels)
        self.norm2 = norm(channels, affine=False)
        self.dropout = Dropout(dropout)
        self.conv2 = conv(channels, channels, spatial, padding=padding, zero=True)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Map `x` `(B, C, *)` and `e` `(B, features)` to `(B, C, *)`."""
        h = self.conv1(silu(self.norm1(x), kept=x))
        h = film(self.norm2, h, self.film(e))
        out: Tensor = self.conv2(self.dropout(silu(h, kept=x)))
        return out.add_(x)


def silu(h: Tensor, *, kept: Tensor) -> Tensor:
    """Return the SiLU of h; overwrite h unless it is `kept` or a gradient may need it.

    Overwriting saves a tenth of the time of a network without gradients.
    """
    return F.silu(h, inplace=h is not kept and not torch.is_grad_enabled())


def film(norm: nn.GroupNorm, h: Tensor, e: Tensor) -> Tensor:
    """Return (1 + a) norm(h) + b for `h` `(B, C, *)`, with (a, b) = `e` `(B, 2 C)`.

    If possible this is computed as a single GroupNorm over the channels of all samples, with the
    weights 1 + a and the biases b, which takes a fourth of the time. It needs contiguous memory and
    a batch size that is not symbolic.
    """
    scale, shift = e.chunk(2, dim=1)
    if not torch.compiler.is_compiling() and h.is_contiguous() and len(h):
        joined = h.reshape(1, len(h) * h.shape[1], *h.shape[2:])
        weight, bias = (1 + scale).flatten(), shift.flatten()
        y = F.group_norm(joined, len(h) * norm.num_groups, weight, bias, norm.eps)
        return y.reshape(h.shape)
    ones = (..., *(None,) * (h.ndim - 2))
    return torch.addcmul(shift[ones], norm(h), 1 + scale[ones])


def enlarged(y: Tensor, size: Sequence[int]) -> Tensor:
    """Return `(B, C, *size)`, at each position the nearest of `y` `(B, C, *)`.

    On the CPU images with contiguous memory are enlarged by torch's kernel for volumes, which takes
    down to a third of the time of its kernel for images.
    """
    if y.ndim == 4 and y.device.type == "cpu" and y.is_contiguous():
        return F.interpolate(y[:, :, None], size=(1, *size), mode="nearest")[:, :, 0]
    return F.interpolate(y, size=tuple(size), mode="nearest")


class Attention(nn.Module):
    """Add self-attention over all positions (Vaswani et al. 2017, arXiv 1706.03762) to the input.

    Args:
        channels: The number of input and of output channels. The number of heads is the largest
            divisor of it up to `channels / 32`, or 1.
        spatial: 1, 2 or 3.
    """

    def __init__(self, channels: int, spatial: int) -> None:
        super().__init__()
        self.heads = max(h for h in range(1, max(1, channels // 32) + 1) if channels % h == 0)
        self.norm = norm(channels)
        self.qkv = conv(channels, 3 * channels, spatial, kernel=1)
        self.out = conv(channels, channels, spatial, kernel=1, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(B, C, *)` to `(B, C, *)`."""
        tokens = self.qkv(self.norm(x)).flatten(2)
        # the fast kernels of attention want the numbers of a position side by side
        q, k, v = rearrange(tokens, "b (n h d) l -> n b h l d", n=3, h=self.heads).contiguous()
        y = rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b (h d) l")
        out: Tensor = x + self.out(y.reshape(x.shape))
        return out


def padded(x: Tensor, patch: int, padding: Padding) -> Tensor:
    """Pad `(B, C, *S)`, with zeros or periodically, so that `patch` divides its sides."""
    for axis, n in enumerate(x.shape[2:], 2):
        lack = -n % patch
        if lack and padding == "circular":
            x = x.index_select(axis, torch.arange(n + lack, device=x.device) % n)
        elif lack:
            x = F.pad(x, [0, 0] * (x.ndim - 1 - axis) + [0, lack])
    return x


def to_patches(x: Tensor, patch: int) -> Tensor:
    """Map `(B, C, *S)` to `(B, C patch^n, *(S / patch))`, turning a patch into channels."""
    axes = [f"x{i}" for i in range(x.ndim - 2)]
    return rearrange(x, _fine(axes) + " -> " + _coarse(axes), **_sizes(axes, patch))


def from_patches(x: Tensor, patch: int) -> Tensor:
    """Map `(B, C patch^n, *(S / patch))` to `(B, C, *S)`, the inverse of `to_patches`."""
    axes = [f"x{i}" for i in range(x.ndim - 2)]
    return rearrange(x, _coarse(axes) + " -> " + _fine(axes), **_sizes(axes, patch))


def _fine(axes: Sequence[str]) -> str:
    return "b c " + " ".join(f"({a} p{a})" for a in axes)


def _coarse(axes: Sequence[str]) -> str:
    return "b (c " + " ".join(f"p{a}" for a in axes) + ") " + " ".join(axes)


def _sizes(axes: Sequence[str], patch: int) -> dict[str, int]:
    return {f"p{a}": patch for a in axes}

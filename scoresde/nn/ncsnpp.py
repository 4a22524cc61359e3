r"""Define NCSN++ and DDPM++, the U-Nets of Song et al. (2021), arXiv:2011.13456, appendix H.

Residual blocks of BigGAN change the resolution, and a short filter (FIR) resamples images. Sums of
two branches are divided by $\sqrt 2$. Optionally the image is added at every resolution, and the
outputs of all resolutions are summed (pyramids). The layers have the names and order of the
authors' checkpoints, whose weights are loaded by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.checks import check_integer, check_range, check_shape, typed
from scoresde.errors import InvalidValueError
from scoresde.nn.checks import check_dtype, check_level
from scoresde.nn.ncsnpp_layers import (
    Combine,
    FourierNumbers,
    PixelAttention,
    Resample,
    ResidualBlock,
    Shrink,
    Sines,
    convolution,
    group_norm,
    linear,
)

__all__ = ["NCSNpp"]


class NCSNpp(nn.Module):
    r"""Map noisy images and their noise levels to the prediction of NCSN++ or DDPM++.

    `net(x, c)` takes images `x` `(B, channels, size, size)` and noise levels `c` `(B,)`, in the
    unit that `forward` describes, and returns a tensor of the shape of `x`.

    Args:
        channels: The number of channels of the image.
        size: The side of the image. Each further level has half the side of the previous one.
        width: The base number of channels, a multiple of 4. Each GroupNorm has one group for four
            channels, and at most 32 groups; they must divide its channels.
        mult: For each level, its number of channels divided by `width`.
        blocks: The number of residual blocks of a level on the way down; on the way up a level has
            one more block.
        attention: The sides of levels with self-attention. Between the way down and the way up
            there is always a layer of attention.
        dropout: The dropout probability in the residual blocks.
        fourier: The scale of the random Fourier features of `c`; None embeds `c` by sines and
            cosines, as DDPM does.
        fir: Resample by the filter (1, 3, 3, 1); False averages pixels on the way down and repeats
            them on the way up.
        rescale: Divide sums of two branches by $\sqrt 2$.
        pyramid_in: How the downsampled image is added to the features of each resolution: `"none"`
            (it is not added), `"input_skip"` (by a sum) or `"residual"` (through further
            convolutions).
        pyramid_out: Sum the outputs of all resolutions (the authors' `"output_skip"`).
        centred: True if the numbers of the image lie in [-1, 1]. With False the image is first
            mapped from [0, 1] to [-1, 1].

    Raises:
        UnknownNameError: `pyramid_in` is not one of the three names above.
        InvalidValueError: A number is out of range, `size` cannot be halved from each level to the
            next, or the groups of a GroupNorm do not divide its channels.

    Examples:
        >>> net = NCSNpp(size=8, width=8, mult=(1, 2), blocks=1, attention=(4,))
        >>> net(torch.zeros(2, 3, 8, 8), torch.zeros(2)).shape
        torch.Size([2, 3, 8, 8])
    """

    @typed
    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        width: int = 128,
        mult: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 4,
        attention: Sequence[int] = (16,),
        dropout: float = 0.1,
        *,
        fourier: float | None = 16.0,
        fir: bool = True,
        rescale: bool = True,
        pyramid_in: Literal["none", "input_skip", "residual"] = "residual",
        pyramid_out: bool = False,
        centred: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("channels", channels), ("size", size), ("blocks", blocks)):
            check_integer(name, value, 1)
        if width < 4 or width % 4:
            raise InvalidValueError(f"width must be a positive multiple of 4, got {width}")
        for factor in mult:
            check_integer("each factor of mult", factor, 1)
        check_range("dropout", dropout, "[0, 1]")
        check_range("fourier", 1.0 if fourier is None else fourier, "(0, inf)")
        if not mult:
            raise InvalidValueError("mult must have at least one factor")
        if size % 2 ** (len(mult) - 1):
            raise InvalidValueError(
                f"a side of {size} cannot be halved {len(mult) - 1} times, as {len(mult)} levels "
                "need; give fewer factors in mult, or another size"
            )
        self.config: dict[str, Any] = {
            "channels": channels, "size": size, "width": width, "mult": list(mult),
            "blocks": blocks, "attention": list(attention), "dropout": dropout,
            "fourier": fourier, "fir": fir, "rescale": rescale, "pyramid_in": pyramid_in,
            "pyramid_out": pyramid_out, "centred": centred,
        }  # fmt: skip
        self.channels, self.size, self.centred = channels, size, centred
        self.pyramid_in, self.pyramid_out = pyramid_in, pyramid_out
        self.scale = math.sqrt(0.5) if rescale else 1.0
        self.blocks, self.levels = blocks, len(mult)
        self.resample = Resample(fir)
        self.attends = [size // 2**level in attention for level in range(self.levels)]
        embedding: nn.Module = Sines(width) if fourier is None else FourierNumbers(width, fourier)
        layers: list[nn.Module] = [] if fourier is None else [embedding]
        self.sines = embedding if fourier is None else None
        wide = 4 * width
        layers += [linear(width if fourier is None else 2 * width, wide), linear(wide, wide)]

        def block(into: int, out: int, change: str = "none") -> nn.Module:
            return ResidualBlock(into, out, wide, dropout, self.scale, change, self.resample)

        layers.append(convolution(channels, width))
        now, pyramid, skips = width, channels, [width]
        for level, factor in enumerate(mult):
            for _ in range(blocks):
                layers.append(block(now, width * factor))
                now = width * factor
                if self.attends[level]:
                    layers.append(PixelAttention(now, self.scale))
                skips.append(now)
            if level != self.levels - 1:
                layers.append(block(now, now, "down"))
                if pyramid_in == "input_skip":
                    layers.append(Combine(pyramid, now))
                elif pyramid_in == "residual":
                    layers.append(Shrink(pyramid, now, fir))
                    pyramid = now
                skips.append(now)
        layers += [block(now, now), PixelAttention(now, self.scale), block(now, now)]
        for level in reversed(range(self.levels)):
            for _ in range(blocks + 1):
                layers.append(block(now + skips.pop(), width * mult[level]))
                now = width * mult[level]
            if self.attends[level]:
                layers.append(PixelAttention(now, self.scale))
            if pyramid_out or level == 0:
                layers += [group_norm(now), convolution(now, channels, 0.0)]
            if level:
                layers.append(block(now, now, "up"))
        self.all_modules = nn.ModuleList(layers)

    @classmethod
    def ve(cls, **changes: Any) -> Self:
        """Return the NCSN++ for VE SDEs, whose output is sigma times the score (`sigma_score`)."""
        preset: dict[str, Any] = {"fourier": 16.0, "fir": True, "pyramid_in": "residual"}
        return cls(**(preset | changes))

    @classmethod
    def vp(cls, **changes: Any) -> Self:
        """Return the DDPM++ for VP SDEs, whose output is the noise (`eps`)."""
        preset: dict[str, Any] = {"fourier": None, "fir": False, "pyramid_in": "none"}
        return cls(**(preset | changes))

    def declared(self, event_shape: tuple[int, ...]) -> dict[str, int | tuple[int, ...]]:
        """Return an empty dict, since the network has no conditions."""
        return {}

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        r"""Return the output `(B, C, H, W)`.

        Args:
            x: Images `(B, C, H, W)`.
            c: `(B,)`: $\log\sigma$ for Fourier features, else the time scaled to about [0, 1000].

        Raises:
            ShapeError, InvalidValueError: `x` or `c` has the wrong shape.
            InvalidTypeError: `x` has another dtype than the weights.
        """
        check_shape("x", x, (self.channels, self.size, self.size))
        layers = iter(self.all_modules)
        weight = next(p for p in self.parameters() if p.ndim == 4)
        check_dtype(x, weight.dtype)
        check_level(x, c)
        c = next(layers)(c) if self.sines is None else self.sines(c)
        c = next(layers)(c.to(weight.dtype))
        c = F.silu(next(layers)(F.silu(c)))
        x = x if self.centred else 2 * x - 1
        return self._up(layers, *self._down(layers, x, c), c)

    def _down(self, layers: Iterator[Any], x: Tensor, c: Tensor) -> tuple[Tensor, list[Tensor]]:
        pyramid, h = x, next(layers)(x)
        skips = [h]
        for level in range(self.levels):
            for _ in range(self.blocks):
                h = next(layers)(h, c)
                h = next(layers)(h) if self.attends[level] else h
                skips.append(h)
            if level != self.levels - 1:
                h = next(layers)(h, c)
                if self.pyramid_in == "input_skip":
                    pyramid = self.resample.down(pyramid)
                    h = next(layers)(pyramid, h)
                elif self.pyramid_in == "residual":
                    pyramid = (next(layers)(pyramid) + h) * self.scale
                    h = pyramid
                skips.append(h)
        return h, skips

    def _up(self, layers: Iterator[Any], h: Tensor, skips: list[Tensor], c: Tensor) -> Tensor:
        h = next(layers)(h, c)
        h = next(layers)(h)
        h = next(layers)(h, c)
        out: Tensor | None = None
        for level in reversed(range(self.levels)):
            for _ in range(self.blocks + 1):
                h = next(layers)(torch.cat([h, skips.pop()], dim=1), c)
            h = next(layers)(h) if self.attends[level] else h
            if self.pyramid_out or level == 0:
                norm, conv = next(layers), next(layers)
                here = conv(F.silu(norm(h)))
                out = here if out is None else self.resample.up(out) + here
            if level:
                h = next(layers)(h, c)
        assert out is not None
        return out

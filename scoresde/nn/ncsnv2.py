r"""Define NCSNv2, the RefineNet of Song & Ermon (2020), arXiv:2006.09011, appendix B.

On the way down there are residual blocks with dilated convolutions (Yu & Koltun 2016,
arXiv:1511.07122), on the way up blocks of RefineNet (Lin et al. 2017, arXiv:1611.06612).
InstanceNorm++ normalises. The network does not receive the noise level; it predicts $\sigma$ times
the score. The layers have the names of the authors' checkpoints, whose weights are loaded by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.checks import check_integer, check_shape, typed
from scoresde.errors import InvalidValueError
from scoresde.nn.checks import check_dtype, check_level

__all__ = ["NCSNv2"]

# For each number of stages, the stages, the finest first: the width, whether the stage halves the
# side, and the dilation.
_STAGES: dict[int, list[tuple[str, int, bool, int]]] = {
    4: [("1", 1, False, 1), ("2", 2, True, 1), ("3", 2, False, 2), ("4", 2, False, 4)],
    5: [("1", 1, False, 1), ("2", 2, True, 1), ("3", 2, True, 1), ("4", 4, False, 2),
        ("5", 4, False, 4)],
    6: [("1", 1, False, 1), ("2", 2, True, 1), ("3", 2, True, 1), ("31", 2, True, 1),
        ("4", 4, False, 2), ("5", 4, False, 4)],
}  # fmt: skip


class NCSNv2(nn.Module):
    r"""Map images to $\sigma\,\nabla\log p_\sigma(x)$ by NCSNv2, `net(x, c)`, at any noise level.

    Args:
        channels: The number of channels of the image.
        size: The side of the image. It is halved once by 4 stages, twice by 5 stages and three
            times by 6 stages, to a side of at least 2.
        width: The number of channels of the first stage, at least 2.
        stages: The number of stages. The paper uses 4 for images below 96 pixels, 5 up to 128
            pixels, and 6 for larger images.
        centred: True if the numbers of the image lie in [-1, 1]. With False the image is first
            mapped from [0, 1] to [-1, 1].

    Raises:
        InvalidValueError: An argument is out of range, or `size` cannot be halved often enough.

    Examples:
        >>> net = NCSNv2(size=8, width=4)
        >>> net(torch.zeros(2, 3, 8, 8), torch.zeros(2)).shape
        torch.Size([2, 3, 8, 8])
    """

    @typed
    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        width: int = 128,
        *,
        stages: int = 4,
        centred: bool = False,
    ) -> None:
        super().__init__()
        check_integer("channels", channels, 1)
        check_integer("width", width, 2)
        if stages not in _STAGES:
            raise InvalidValueError(f"stages must be 4, 5 or 6, got {stages}")
        plan = _STAGES[stages]
        shrinks = 2 ** sum(halves for _, _, halves, _ in plan)
        if size < 2 * shrinks or size % shrinks:
            raise InvalidValueError(
                f"{stages} stages need a side that is a multiple of {shrinks} and at least "
                f"{2 * shrinks}, got {size}; give another size or fewer stages"
            )
        self.config: dict[str, Any] = {
            "channels": channels, "size": size, "width": width, "stages": stages,
            "centred": centred,
        }  # fmt: skip
        self.channels, self.size, self.centred = channels, size, centred
        self.begin_conv = nn.Conv2d(channels, width, 3, padding=1)
        self.normalizer = InstanceNormPlus(width)
        self.end_conv = nn.Conv2d(width, channels, 3, padding=1)
        self.stages = [name for name, *_ in plan]
        now = width
        for name, factor, halves, dilation in plan:
            into, now = now, factor * width
            change = name != "1"
            blocks = [ResidualBlock(into, now, halves, dilation, shortcut=change)]
            blocks.append(ResidualBlock(now, now, False, dilation, shortcut=False))
            self.add_module(f"res{name}", nn.ModuleList(blocks))
        widths = [factor * width for _, factor, *_ in plan]
        # the first block belongs to the coarsest stage; each block has the width of the next finer
        # stage
        for k, name in enumerate(self._refines()):
            place = len(plan) - 1 - k
            own, finer = widths[place], widths[max(place - 1, 0)]
            out = own if k == 0 else finer
            block = RefineBlock([own] if k == 0 else [own, own], out, last=place == 0)
            self.add_module(f"refine{name}", block)

    def _refines(self) -> list[str]:
        """Return the names of the blocks on the way up, the coarsest stage first."""
        return {4: "1 2 3 4", 5: "1 2 3 4 5", 6: "1 2 31 3 4 5"}[len(self.stages)].split()

    def declared(self, event_shape: tuple[int, ...]) -> dict[str, int | tuple[int, ...]]:
        """Return an empty dict, since the network has no conditions."""
        return {}

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the output `(B, C, H, W)`.

        Args:
            x: Images `(B, C, H, W)`.
            c: `(B,)`; it is not used.

        Raises:
            ShapeError, InvalidTypeError, InvalidValueError: `x` or `c` has a wrong shape or dtype.
        """
        check_shape("x", x, (self.channels, self.size, self.size))
        check_dtype(x, self.begin_conv.weight.dtype)
        check_level(x, c)
        h = self.begin_conv(x if self.centred else 2 * x - 1)
        found = []
        for name in self.stages:
            for block in getattr(self, f"res{name}"):
                h = block(h)
            found.append(h)
        below: list[Tensor] = []
        for name in self._refines():
            below = [getattr(self, f"refine{name}")([found.pop(), *below])]
        out: Tensor = self.end_conv(F.elu(self.normalizer(below[0])))
        return out


class InstanceNormPlus(nn.Module):
    """Standardise each channel, and add its mean, standardised over the channels and scaled.

    InstanceNorm++ of Song & Ermon (2019), arXiv:1907.05600, appendix A, without conditions.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels).normal_(1, 0.02))
        self.gamma = nn.Parameter(torch.empty(channels).normal_(1, 0.02))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised features, of the shape of `x`."""
        mean = x.mean((2, 3))
        off = mean - mean.mean(1, keepdim=True)
        var = off.square().sum(1, keepdim=True) / (off.shape[1] - 1)
        h = F.instance_norm(x) + (off / (var + 1e-5).sqrt() * self.alpha)[..., None, None]
        return self.gamma[:, None, None] * h + self.beta[:, None, None]


class MeanPooled(nn.Module):
    """Apply a convolution, and average 2x2 pixels."""

    def __init__(self, into: int, out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features with half the side."""
        return F.avg_pool2d(self.conv(x), 2)


def _dilated(into: int, out: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=dilation, dilation=dilation)


class ResidualBlock(nn.Module):
    """Add two convolutions, each after a norm and ELU, to the features or to their convolution."""

    def __init__(self, into: int, out: int, halves: bool, dilation: int, *, shortcut: bool) -> None:
        super().__init__()
        self.normalize1, self.normalize2 = InstanceNormPlus(into), InstanceNormPlus(into)
        self.conv1 = _dilated(into, into, dilation)
        self.conv2: nn.Module = _dilated(into, out, dilation)
        self.shortcut: nn.Module = nn.Identity()
        if halves:
            self.conv2, self.shortcut = MeanPooled(into, out, 3), MeanPooled(into, out, 1)
        elif shortcut:
            self.shortcut = _dilated(into, out, dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features `(B, out, *)`."""
        h = self.conv1(F.elu(self.normalize1(x)))
        h = self.conv2(F.elu(self.normalize2(h)))
        out: Tensor = self.shortcut(x) + h
        return out


class Residuals(nn.Module):
    """Add two convolutions of the features, each after ELU, several times."""

    def __init__(self, channels: int, times: int) -> None:
        super().__init__()
        self.times = times
        for i in range(1, times + 1):
            for j in (1, 2):
                layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
                self.add_module(f"{i}_{j}_conv", layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, of the shape of `x`."""
        for i in range(1, self.times + 1):
            h = x
            for j in (1, 2):
                h = getattr(self, f"{i}_{j}_conv")(F.elu(h))
            x = x + h
        return x


class Fusion(nn.Module):
    """Add convolutions of several features, each resized to the size of the first."""

    def __init__(self, into: Sequence[int], out: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(n, out, 3, padding=1) for n in into)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return the features at the size of the first of the states."""
        size = states[0].shape[2:]
        parts = [conv(x) for conv, x in zip(self.convs, states, strict=True)]
        grown = [F.interpolate(h, size, mode="bilinear", align_corners=True) for h in parts]
        return torch.stack(grown).sum(0)


class Pooling(nn.Module):
    """Add two rounds of maximum pooling and a convolution to the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.convs = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features, of the shape of `x`."""
        x = path = F.elu(x)
        for conv in self.convs:
            path = conv(F.max_pool2d(path, 5, stride=1, padding=2))
            x = x + path
        return x


class RefineBlock(nn.Module):
    """Combine the features of two resolutions at the finer one."""

    def __init__(self, into: Sequence[int], out: int, *, last: bool) -> None:
        super().__init__()
        self.adapt_convs = nn.ModuleList(Residuals(n, 2) for n in into)
        self.msf = Fusion(into, out) if len(into) > 1 else None
        self.crp = Pooling(out)
        self.output_convs = Residuals(out, 3 if last else 1)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return the features `(B, out, *)`."""
        found = [adapt(x) for adapt, x in zip(self.adapt_convs, states, strict=True)]
        h = found[0] if self.msf is None else self.msf(found)
        out: Tensor = self.output_convs(self.crp(h))
        return out

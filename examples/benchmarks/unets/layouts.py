"""Arrange parts of our U-Net in the layouts of other packages.

The networks have the same convolutions as those of the other packages, and so as many operations.
They differ in the operations between the convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoresde.nn import UNet
from scoresde.nn.blocks import conv, enlarged, film, norm, silu
from scoresde.nn.embedding import Embedding
from scoresde.nn.unet import Level

FEATURES = 128


class Joined(Level):
    """Concatenate coarser features to those of a resolution, and mix both by a convolution."""

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Return the features."""
        for block in self.down:
            x = block(x, e)
        if self.below is not None:
            y = enlarged(self.below(self.shrink(x), e), x.shape[2:])
            x = self.mix(torch.cat([x, y], 1))
        for block in self.up:
            x = block(x, e)
        return x


def as_azula(channels: int, widths: Sequence[int], spatial: int) -> UNet:
    """Return our U-Net with azula's concatenation of skips in place of the sum."""
    net = UNet(channels, channels=widths, spatial=spatial, features=FEATURES)
    for level in net.modules():
        if isinstance(level, Level) and level.below is not None:
            width, coarser = level.grow.out_channels, level.grow.in_channels
            level.__class__ = Joined
            level.grow = nn.Identity()
            level.mix = conv(width + coarser, width, spatial)
    return net


class Block(nn.Module):
    """Apply our residual block, which here may change the number of channels."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(into), conv(into, out, 2)
        self.film = nn.Linear(FEATURES, 2 * out)
        self.norm2, self.conv2 = norm(out, affine=False), conv(out, out, 2)
        self.skip = conv(into, out, 2, kernel=1) if into != out else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Return the features after the block."""
        h = self.conv1(silu(self.norm1(x), kept=x))
        h = silu(film(self.norm2, h, self.film(e)), kept=x)
        out: Tensor = self.conv2(h).add_(self.skip(x))
        return out


class AsDiffusers(nn.Module):
    """Arrange our blocks and embedding like diffusers' UNet2DModel without attention."""

    def __init__(self, channels: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.embed = Embedding("fourier", FEATURES)
        self.stem, now, skips = conv(channels, widths[0], 2), widths[0], [widths[0]]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            for _ in range(blocks):
                self.down.append(Block(now, width))
                now = width
                skips.append(now)
            if level < len(widths) - 1:
                self.down.append(conv(now, now, 2, stride=2))
                skips.append(now)
        self.middle = nn.ModuleList(Block(now, now) for _ in range(2))
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.up.append(Block(now + skips.pop(), width))
                now = width
            if level:
                self.up.append(conv(now, now, 2))
        self.norm, self.head = norm(now), conv(now, channels, 2)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the network's output for one noise level per sample."""
        e, h = self.embed(c), self.stem(x)
        skips = [h]
        for layer in self.down:
            h = layer(h, e) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, e)
        for layer in self.up:
            if isinstance(layer, Block):
                h = layer(torch.cat([h, skips.pop()], 1), e)
            else:
                h = layer(enlarged(h, [2 * n for n in h.shape[2:]]))
        out: Tensor = self.head(F.silu(self.norm(h)))
        return out

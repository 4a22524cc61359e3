r"""Define ADM, the U-Net of Dhariwal & Nichol (2021, arXiv:2105.05233), as in Karras et al. (2022).

Appendix F of Karras et al. (arXiv:2206.00364) lists the parts of ADM: residual blocks, some of
which change the resolution, whose second norm is scaled and shifted by the embedding; skips that
are concatenated; attention at the coarse resolutions; and the noise level given as
$c = \tfrac14 \log\sigma$.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 64  # the least number of channels of a head of attention; a narrower layer has one head


def norm(width: int) -> nn.GroupNorm:
    """Return a GroupNorm of gcd(width // 4, 32) groups, each of at least 4 channels.

    Karras et al. take min(width // 4, 32) groups, which are more if width // 4 is not a power of 2.
    """
    return nn.GroupNorm(math.gcd(width // 4, 32), width)


def conv(into: int, out: int, kernel: int = 3, zero: bool = False) -> nn.Conv2d:
    """Return a convolution that keeps the size; its biases begin at zero."""
    made = nn.Conv2d(into, out, kernel, padding=kernel // 2)
    assert made.bias is not None
    nn.init.zeros_(made.bias)
    if zero:
        nn.init.zeros_(made.weight)
    return made


def linear(into: int, out: int) -> nn.Linear:
    """Return a linear layer; its biases begin at zero."""
    made = nn.Linear(into, out)
    nn.init.zeros_(made.bias)
    return made


class Block(nn.Module):
    """Apply a residual block; it may halve ("down") or double ("up") the resolution, or attend."""

    def __init__(
        self, into: int, out: int, features: int, change: str = "", attention: bool = False
    ) -> None:
        super().__init__()
        self.change = change
        self.norm1, self.conv1 = norm(into), conv(into, out)
        self.film = linear(features, 2 * out)
        self.norm2, self.conv2 = norm(out), conv(out, out, zero=True)
        self.skip = conv(into, out, 1) if into != out else nn.Identity()
        self.attention = Attention(out) if attention else nn.Identity()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Return the features after the block."""
        h = self.conv1(self.resized(F.silu(self.norm1(x))))
        scale, shift = self.film(e)[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(F.silu(torch.addcmul(shift, self.norm2(h), scale + 1)))
        out: Tensor = self.attention(self.skip(self.resized(x)) + h)
        return out

    def resized(self, x: Tensor) -> Tensor:
        """Return images at the block's resolution."""
        if self.change == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0) if self.change == "up" else x


class Attention(nn.Module):
    """Add self-attention over the pixels to the features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = math.gcd(max(1, width // HEAD), width)
        self.norm, self.qkv = norm(width), conv(width, 3 * width, 1)
        self.out = conv(width, width, 1, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features after attention."""
        tokens = self.qkv(self.norm(x)).unflatten(1, (3, self.heads, -1)).flatten(4)
        q, k, v = tokens.transpose(3, 4).unbind(1)
        h = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
        return x + self.out(h)


class ADM(nn.Module):
    """Map images `(B, C, H, W)` and `c` `(B,)` to images."""

    outer = ("ends",)

    def __init__(
        self, channels: int, width: int, mult: Sequence[int], blocks: int, attention: Sequence[int]
    ) -> None:
        super().__init__()
        features = 4 * width
        self.width = width
        self.embed = nn.Sequential(
            linear(width, features), nn.SiLU(), linear(features, features), nn.SiLU()
        )
        self.stem = conv(channels, width * mult[0])
        down, up = list[nn.Module](), list[nn.Module]()
        now = width * mult[0]
        skips = [now]
        for level, factor in enumerate(mult):
            if level:
                down.append(Block(now, now, features, "down"))
                skips.append(now)
            for _ in range(blocks):
                down.append(Block(now, width * factor, features, "", level in attention))
                now = width * factor
                skips.append(now)
        self.middle = nn.ModuleList(
            [Block(now, now, features, "", True), Block(now, now, features)]
        )
        for level, factor in reversed(list(enumerate(mult))):
            for _ in range(blocks + 1):
                into = now + skips.pop()
                up.append(Block(into, width * factor, features, "", level in attention))
                now = width * factor
            if level:
                up.append(Block(now, now, features, "up"))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.head = nn.Sequential(norm(now), nn.SiLU(), conv(now, channels, zero=True))

    @property
    def ends(self) -> nn.Module:
        """Return the first and last layers and the embedding.

        Adam trains them when Muon trains the rest.
        """
        return nn.ModuleList([self.stem, self.head, self.embed])

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the network's output for one noise level per sample."""
        half = self.width // 2
        logs = -math.log(1e4) / half * torch.arange(half, device=c.device)
        angle = c[:, None] * logs.exp()
        e = self.embed(torch.cat([angle.cos(), angle.sin()], 1).to(self.stem.weight.dtype))
        h = self.stem(x)
        skips = [h]
        for block in self.down:
            h = block(h, e)
            skips.append(h)
        for block in self.middle:
            h = block(h, e)
        for block in self.up:
            if block.change != "up":
                h = torch.cat([h, skips.pop()], 1)
            h = block(h, e)
        out: Tensor = self.head(h)
        return out

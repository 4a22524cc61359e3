"""Build networks of about one size and of different shapes, which chapter 7b compares."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from scoresde.nn import MLP, Fourier


class Block(nn.Module):
    """Add two convolutions to the input, with a shift from the noise level between them."""

    def __init__(self, channels: int, features: int = 64) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(4, channels) for _ in range(2))
        self.shift = nn.Linear(features, channels)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Map `(B, channels, H, W)` and the embedded level `(B, features)` to the input's shape."""
        h = self.first(nn.functional.silu(self.norms[0](x))) + self.shift(e)[:, :, None, None]
        return x + self.second(nn.functional.silu(self.norms[1](h)))


class Convolutions(nn.Module):
    """Map an image to an image at three resolutions: down by halves, and up again.

    With `skips` the features of each resolution on the way down are added on the way up, as in a
    U-Net. Without skips all information passes through the coarsest resolution. `levels=1` has only
    the finest resolution.
    """

    def __init__(self, width: int, levels: int = 3, skips: bool = True) -> None:
        super().__init__()
        wide = width * min(levels, 2)
        sizes = [width, *[wide] * (levels - 1)]
        self.skips = skips
        self.embed = nn.Sequential(Fourier(64), nn.Linear(64, 64), nn.SiLU())
        self.stem, self.head = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
        self.down, self.up = (nn.ModuleList(map(Block, sizes)) for _ in range(2))
        pairs = list(itertools.pairwise(sizes))
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 3, 2, padding=1) for a, b in pairs)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in pairs)

    def encode(self, x: Tensor, c: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the features of every resolution, the finest first, and the embedded level."""
        e, h = self.embed(c), self.stem(x)
        seen = [self.down[0](h, e)]
        for shrink, block in zip(self.shrink, self.down[1:], strict=True):
            seen.append(block(shrink(seen[-1]), e))
        return seen, e

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map `(B, 1, H, W)` at levels `c` `(B,)` to an image."""
        seen, e = self.encode(x, c)
        h = self.up[-1](seen[-1], e)
        for i in reversed(range(len(self.grow))):
            h = self.grow[i](h) + (seen[i] if self.skips else 0)
            h = self.up[i](h, e)
        return self.head(h)


class Energy(nn.Module):
    """Return the gradient of one number, which the first half of a network computes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = Convolutions(width)
        del self.body.up, self.body.grow, self.body.head
        self.number = nn.Linear(2 * width * 2 * 2, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the gradient of the number in `x`, `(B, 1, H, W)`."""
        learning = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            seen, _ = self.body.encode(x, c)
            number = self.number(nn.functional.silu(seen[-1]).flatten(1)).sum()
            return torch.autograd.grad(number, x, create_graph=learning)[0]


class Untold(nn.Module):
    """Evaluate a network without its noise level."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map `(B, *)` to `(B, *)`, with the level replaced by 0."""
        return self.net(x, torch.zeros_like(c))


# for each shape the best of two or three widths, after 12 seconds
SHAPES = {
    "gradient of a number": lambda: Energy(28),
    "MLP": lambda: MLP((1, 8, 8), hidden=(112,) * 3),
    "one resolution": lambda: Convolutions(64, levels=1),
    "three, no skips": lambda: Convolutions(32, skips=False),
    "U-Net, not told σ": lambda: Untold(Convolutions(32)),
    "U-Net": lambda: Convolutions(32),
}
TOLD = {
    "Fourier": lambda: MLP(2, hidden=(64,) * 3),
    "sinusoidal": lambda: MLP(2, hidden=(64,) * 3, embedding="sinusoidal"),
    "log σ itself": lambda: MLP(2, hidden=(64,) * 3, embedding="log_snr"),
    "not told": lambda: Untold(MLP(2, hidden=(64,) * 3)),
}

"""What the chapters share: options, a small network, a training loop, and figures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from scoresde.targets import GaussianMixture

BLUE, RED, GREY, GOLD = "#30638e", "#d1495b", "#8d99ae", "#edae49"


@dataclass(frozen=True)
class Options:
    """What to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    short: bool = False
    """A run of seconds, too short to be good."""


def three_modes() -> GaussianMixture:
    """The density of the first chapters."""
    means = [[-1.5, -1.0], [1.8, -0.5], [0.0, 1.8]]
    return GaussianMixture([0.5, 0.3, 0.2], means, stds=[0.6, 0.8, 0.5])


def network(width: int = 64, seed: int = 0) -> nn.Module:
    """A plain network from the plane to the plane, which knows no noise level."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
        nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2),
    )  # fmt: skip


def train(
    net: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    *,
    steps: float = math.inf,
    seconds: float = math.inf,
    lr: float = 2e-3,
    seed: int = 0,
) -> int:
    """Adam on `loss(generator)` for so many steps, or seconds of one core; returns the steps.

    The learning rate falls to 0 as the cosine of the share that has been used up.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    start, done, used = time.process_time(), 0, 0.0
    while used < 1:
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * used))
        optimizer.zero_grad()
        loss(generator).mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        done += 1
        used = max(done / steps, (time.process_time() - start) / seconds)
    return done


@torch.no_grad()
def relative_error(score: Tensor, exact: Tensor) -> float:
    """E |s_model - s|^2 / E |s|^2 over the batch."""
    return float((score - exact).pow(2).sum() / exact.pow(2).sum())


def interval(share: float, n: int) -> float:
    """Half the width of a 95 % interval of a share of n."""
    return 1.96 * math.sqrt(max(share * (1 - share), 1 / n) / n)


def grid(reach: float, points: int = 120) -> Tensor:
    """Points of a square around the origin, `(points^2, 2)`, row by row of y."""
    axis = torch.linspace(-reach, reach, points)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def panels(
    columns: int, rows: int = 1, size: tuple[float, float] = (3.6, 3.6)
) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, row by row."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=90, layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def shade(axes: Axes, values: Tensor, reach: float, cmap: str = "Blues", **options: float) -> None:
    """Draw values on a `grid` as a map with equal axes and no ticks."""
    side = math.isqrt(len(values))
    extent = (-reach, reach, -reach, reach)
    image = np.asarray(values.detach()).reshape(side, side)
    axes.imshow(image, extent=extent, origin="lower", cmap=cmap, **options)
    axes.set(xticks=[], yticks=[], xlim=(-reach, reach), ylim=(-reach, reach))


def dots(axes: Axes, x: Tensor, color: str = RED, size: float = 2.0) -> None:
    """Scatter points of the plane."""
    x = x.detach()
    axes.scatter(x[:, 0], x[:, 1], s=size, c=color, alpha=0.6, linewidths=0)


def save(figure: Figure, out: Path, name: str) -> None:
    """Write the figure, in 128 colours to keep the file small."""
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / name)
    Image.open(out / name).convert("RGB").quantize(128).save(out / name, optimize=True)
    print(f"wrote {out / name}")

"""Draw the figures of the chapters: maps, clouds, arrows, curves, bars, digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from common import Options
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

BLUE, RED, GREY, GOLD, GREEN = "#30638e", "#d1495b", "#8d99ae", "#edae49", "#3d7a5a"


def grid(reach: float, points: int = 120) -> Tensor:
    """Return points of a square around the origin, `(points^2, 2)`, row by row of y."""
    axis = torch.linspace(-reach, reach, points)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


def panels(
    columns: int, rows: int = 1, size: tuple[float, float] = (3.6, 3.6)
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, row by row."""
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), dpi=90, layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def strip_over_pair(count: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Return a figure with a row of square panels over two wide ones, and the panels."""
    figure = Figure(figsize=size, dpi=90, layout="constrained")
    top, bottom = figure.add_gridspec(2, 1, height_ratios=(1, 1.25))
    cells = [*top.subgridspec(1, count), *bottom.subgridspec(1, 2)]
    return figure, [figure.add_subplot(cell) for cell in cells]


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


def cloud(
    axes: Axes, density: Tensor, reach: float, x: Tensor, title: str, *,
    top: float = 0.25, color: str = RED, size: float = 2.0,
) -> None:  # fmt: skip
    """Scatter the first 1,500 points over a density, drawn on a `grid` up to the value `top`."""
    shade(axes, density, reach, vmax=top)
    dots(axes, x[:1500], color, size)
    axes.set_title(title, fontsize=10)


def square(
    axes: Axes, x: Tensor, reach: float, title: str, color: str = RED, size: float = 2.0
) -> None:
    """Scatter points on white, with equal axes and no ticks."""
    dots(axes, x, color, size)
    reaches = (-reach, reach)
    axes.set(xlim=reaches, ylim=reaches, xticks=[], yticks=[], aspect="equal")
    axes.set_title(title, fontsize=10)


def arrows(
    axes: Axes, x: Tensor, s: Tensor, color: str = RED, scale: float = 26, width: float = 0.004
) -> None:
    """Draw the vectors `s` at the points `x`."""
    axes.quiver(*x.T, *s.detach().T, color=color, angles="xy", scale=scale, width=width)


def field(
    axes: Axes, density: Tensor, reach: float, score: Callable[[Tensor], Tensor], title: str, *,
    scale: float, top: float = 0.25, color: str = BLUE,
) -> None:  # fmt: skip
    """Draw a score as arrows from the points of a coarse grid, over a density."""
    shade(axes, density, reach, vmax=top)
    at = grid(0.92 * reach, 15)
    arrows(axes, at, score(at), color, scale=scale, width=0.006)
    axes.set_title(title, fontsize=10)


def curves(
    axes: Axes, x: Sequence[float] | Tensor, lines: Mapping[str, Sequence[float] | Tensor],
    colors: Sequence[str] = (BLUE, RED, GOLD), style: str = "o-", **options: object,
) -> None:  # fmt: skip
    """Draw named lines over one x, with a legend; `options` are passed to `axes.set`."""
    for (name, y), color in zip(lines.items(), colors, strict=False):
        axes.plot(x, y, style, ms=4, color=color, label=name)
    axes.set(**options)
    axes.legend(frameon=False, fontsize=8)


def by_level(
    axes: Axes, sigma: Tensor, lines: Mapping[str, Sequence[float]], title: str,
    colors: Sequence[str] = (RED, BLUE), **options: object,
) -> None:  # fmt: skip
    """Draw named lines over the noise level, with two logarithmic axes."""
    options = dict(xscale="log", yscale="log", xlabel="σ", title=title) | options
    curves(axes, sigma, lines, colors, **options)


def tick(axes: Axes, x: Sequence[float]) -> None:
    """Set the ticks of a logarithmic axis to these values."""
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()


def level_line(axes: Axes, y: float, text: str) -> None:
    """Draw a dashed line with a text above it, and limit the logarithmic axis there."""
    axes.axhline(y, color=GREY, lw=1, ls="--")
    axes.text(0.03, 1.2 * y, text, color="#5c677d", fontsize=8, va="bottom",
              transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_ylim(top=5 * y)


def bars(
    axes: Axes, values: Mapping[str, float], title: str, colors: Sequence[str] | str = GREY
) -> None:
    """Draw horizontal bars from the top down, each with its name inside."""
    axes.barh(list(values), list(values.values()), color=colors)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10)
    axes.set_yticks([])
    for i, name in enumerate(values):
        axes.text(0.02, i, name, va="center", color="white", fontsize=8,
                  transform=axes.get_yaxis_transform())  # fmt: skip


def tiles(axes: Axes, images: Tensor, title: str, side: int = 6) -> None:
    """Draw the first `side^2` grey images `(B, 1, H, W)` in a square."""
    padded = torch.nn.functional.pad(images[: side**2, 0], (1, 1, 1, 1), value=-0.5)
    h, w = padded.shape[1:]
    image = padded.reshape(side, side, h, w).permute(0, 2, 1, 3).reshape(side * h, side * w)
    axes.imshow(image, cmap="gray", vmin=-1, vmax=1)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)


def strips(axes: Axes, rows: Mapping[str, Tensor], titles: Sequence[str]) -> None:
    """Draw named rows of grey images `(B, 1, H, W)`, each scaled to its own extremes."""
    images = torch.cat(list(rows.values())).detach()
    low, high = (f(images, (1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    cells = torch.nn.functional.pad((images - low) / (high - low), (1, 1, 1, 1), value=1.0)[:, 0]
    h, w = cells.shape[1:]
    cells = cells.reshape(len(rows), -1, h, w).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    axes.imshow(cells, cmap="gray")
    axes.set_xticks([w * (i + 0.5) for i in range(len(titles))], titles)
    axes.set_yticks([h * (i + 0.5) for i in range(len(rows))], list(rows))
    axes.tick_params(length=0, labeltop=True, labelbottom=False)


def counts(
    axes: Axes, values: Mapping[str, Tensor], colors: Sequence[str], **options: object
) -> None:
    """Draw named histograms over one axis, each of area 1."""
    for (name, x), color in zip(values.items(), colors, strict=True):
        axes.hist(np.asarray(x), bins=60, density=True, color=color, alpha=0.6, label=name)
    axes.set(yticks=[], **options)
    axes.legend(frameon=False, fontsize=8)


def warn(figure: Figure, options: Options) -> None:
    """Write across the figure of a short run that it is one."""
    if options.short:
        note = "a short run, which shows that the script works and nothing else"
        figure.text(0.5, 0.5, note, color="red", ha="center", rotation=10, fontsize=12)


def save(figure: Figure, options: Options, name: str) -> None:
    """Write the figure, in 128 colours to keep the file small; one of a short run says so."""
    warn(figure, options)
    path = options.out / name
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)
    print(f"wrote {path}")

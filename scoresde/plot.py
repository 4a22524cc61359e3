"""Pictures: image grids, samples over their density, curves. Each writes one PNG file.

A grid needs nothing but Pillow, which comes with torchvision; the others need matplotlib, the extra
`plot`. Nothing here touches matplotlib's global state or opens a window.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    NonFiniteError,
    ShapeError,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from scoresde.targets import Target

__all__ = ["Series", "curve", "figure", "grid", "pareto", "save", "scatter"]

Series = Sequence[tuple[float, float, float, float]]
"""Points of a curve with intervals: `(x, y, low, high)` each."""

# Pixels between the images of a grid, their grey level, and the height that small images get.
_GAP, _GREY, _HEIGHT = 2, 80, 84


def grid(
    images: Tensor,
    path: str | os.PathLike[str],
    *,
    columns: int | None = None,
    scale: int | None = None,
) -> Path:
    """Writes images side by side into one PNG file, row by row.

    Args:
        images: `(B, 1, H, W)` grey or `(B, 3, H, W)` colour, floating point in [-1, 1]; what lies
            outside is clipped.
        path: the file, ending in `.png`; its folder is made, and an old file replaced at once.
        columns: images per row; as square as possible without it.
        scale: how many pixels a side of one pixel gets, without blur; without it small images are
            enlarged to about 84 pixels.

    Returns:
        The path.

    Raises:
        ShapeError: `images` has another shape, or no image.
        InvalidTypeError: `images` is not of floating point.
        NonFiniteError: an image holds a NaN or an infinity.
        InvalidValueError: `columns` or `scale` is below one, or the file cannot be written.
    """
    from einops import rearrange, repeat
    from PIL import Image

    pixels = _finite("images", images)
    if pixels.ndim != 4 or pixels.shape[1] not in {1, 3} or pixels.numel() == 0:
        raise ShapeError(
            "images must be of shape (B, 1, H, W) or (B, 3, H, W) with B, H, W >= 1, got "
            f"{tuple(pixels.shape)}"
        )
    n, _, height, width = pixels.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else _positive("columns", columns)
    scale = max(1, _HEIGHT // max(height, width)) if scale is None else _positive("scale", scale)
    columns = min(columns, n)
    rows = math.ceil(n / columns)

    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    large = repeat(levels, "b c h w -> b c (h i) (w j)", i=scale, j=scale)
    framed = torch.nn.functional.pad(large, (0, _GAP, 0, _GAP), value=_GREY)
    empty = framed.new_full((rows * columns - n, *framed.shape[1:]), _GREY)
    tiled = rearrange(torch.cat([framed, empty]), "(r k) c h w -> (r h) (k w) c", r=rows, k=columns)
    tiled = torch.nn.functional.pad(tiled, (0, 0, _GAP, 0, _GAP, 0), value=_GREY)
    buffer = io.BytesIO()
    Image.fromarray(tiled.squeeze(2).numpy()).save(buffer, format="png")
    return _write(path, buffer)


def scatter(
    samples: Tensor,
    path: str | os.PathLike[str],
    *,
    density: Target | None = None,
    title: str | None = None,
) -> Path:
    """Writes a scatter plot of samples in the plane, over the true density where it is known.

    Args:
        samples: `(N, 2)`.
        path: the file, ending in `.png`.
        density: a two-dimensional target. Four standard deviations of its components set the frame;
            how many samples fall outside of it is written below the plot.
        title: written above the plot.

    Returns:
        The path.

    Raises:
        ShapeError: `samples` is not of shape `(N, 2)` with N at least one, or `density` lives
            elsewhere.
        InvalidTypeError: `samples` is not of floating point.
        NonFiniteError: a sample is NaN or infinite.
        InvalidValueError: the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    points = _finite("samples", samples).double()
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ShapeError(f"samples must be of shape (N, 2), N >= 1, got {tuple(points.shape)}")
    if density is not None and density.event_shape != (2,):
        raise ShapeError(
            f"the density must live in the plane, event shape (2,), got {density.event_shape}"
        )
    centre, reach = _frame(points, density)
    low, high = centre - reach, centre + reach
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))

    drawn, axes = _axes("a scatter plot", (5, 5))
    if density is not None:
        x = torch.linspace(extent[0], extent[1], 240, dtype=torch.float64)
        y = torch.linspace(extent[2], extent[3], 240, dtype=torch.float64)
        values = density.log_prob(torch.cartesian_prod(x, y)).exp().reshape(240, 240)
        # Never the darkest blue: the samples must stay visible where there are most of them.
        pale = 1.7 * float(values.max())
        axes.imshow(
            values.T.numpy(), extent=extent, origin="lower", cmap="Blues", vmin=0, vmax=pale
        )
    size = min(12.0, max(1.0, 8_000 / len(points)))
    axes.scatter(
        points[:, 0].numpy(), points[:, 1].numpy(), s=size, c="#d1495b", alpha=0.7, linewidths=0
    )
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", title=title)
    outside = int(((points < low) | (points > high)).any(1).sum())
    if outside:
        axes.set_xlabel(f"{outside} of {len(points)} samples lie outside")
    return save(drawn, path)


def curve(
    values: Tensor | Sequence[float],
    path: str | os.PathLike[str],
    *,
    steps: Tensor | Sequence[float] | None = None,
    name: str = "loss",
    title: str | None = None,
) -> Path:
    """Writes a noisy curve and its running mean over a fiftieth of it.

    The axis is logarithmic where all values are positive.

    Args:
        values: one number per step, `(N,)`.
        path: the file, ending in `.png`.
        steps: where they were taken, `(N,)`; 1 to N without it.
        name: what the values are, written beside the axis.
        title: written above the plot.

    Returns:
        The path.

    Raises:
        ShapeError: `values` is no vector of at least one number, or `steps` has another length.
        InvalidTypeError: they are no numbers.
        NonFiniteError: a value is NaN or infinite.
        InvalidValueError: the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    y = _vector("values", values)
    x = torch.arange(1.0, len(y) + 1) if steps is None else _vector("steps", steps)
    if len(x) != len(y):
        raise ShapeError(f"steps and values must have one length, got {len(x)} and {len(y)}")
    window = max(1, len(y) // 50)
    mean = y.unfold(0, window, 1).mean(1)

    drawn, axes = _axes("a curve", (7, 4))
    if window > 1:
        axes.plot(x.numpy(), y.numpy(), color="#30638e", alpha=0.25, linewidth=0.8)
    axes.plot(x[window - 1 :].numpy(), mean.numpy(), color="#30638e", marker="." * (len(y) == 1))
    axes.set(
        xlabel="step", ylabel=name, yscale="log" if bool((y > 0).all()) else "linear", title=title
    )
    axes.grid(alpha=0.3)
    return save(drawn, path)


def pareto(
    panels: Mapping[str, Mapping[str, Series]],
    path: str | os.PathLike[str],
    *,
    x: str = "evaluations",
    y: str = "error",
) -> Path:
    """Writes price against error, one panel beside the other, with shaded intervals.

    Both axes are logarithmic: points without a positive error are left out.

    Args:
        panels: for each title the curves, by the names of the legend; one name has one colour.
        path: the file, ending in `.png`.
        x: what the prices are, written below the axes.
        y: what the errors are, written beside them.

    Returns:
        The path.

    Raises:
        InvalidValueError: there is no panel, or the file cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    if not panels:
        raise InvalidValueError("there is nothing to show; give at least one panel")
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    drawn = figure("a plot of errors", (3.4 * columns + 1.6, 3 * rows))
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    grid_of_axes = drawn.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, curves) in zip(grid_of_axes, panels.items(), strict=False):
        for name, points in curves.items():
            shown = [point for point in points if point[1] > 0 and math.isfinite(point[1])]
            at, values, lows, highs = zip(*shown, strict=True) if shown else ((),) * 4
            # a dash pattern for every ten colours
            tens, units = divmod(names.index(name), 10)
            colour, dashes = f"C{units}", ("-", "--", ":", "-.")[tens % 4]
            axes.plot(at, values, marker=".", label=name, color=colour, linestyle=dashes)
            least = [max(low, value / 100) for low, value in zip(lows, values, strict=True)]
            axes.fill_between(at, least, highs, color=colour, alpha=0.2, linewidth=0)
        axes.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="log")
        axes.grid(alpha=0.3)
    for axes in grid_of_axes[len(panels) :]:
        axes.remove()
    handles = {
        label: handle
        for axes in grid_of_axes[: len(panels)]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    drawn.legend(handles.values(), handles, loc="outside right upper", fontsize="small")
    return save(drawn, path)


def _frame(points: Tensor, density: Target | None) -> tuple[Tensor, Tensor]:
    """Centre `(2,)` and half the side of the square that is shown."""
    if density is not None:
        reach = 4 * density.components.variances.amax(1, keepdim=True).sqrt()
        low, high = (density.means - reach).amin(0), (density.means + reach).amax(0)
        return (low + high) / 2, (high - low).max() / 2
    # Nearly all of the samples: one that ran away must not shrink the others to a dot.
    low, high = points.quantile(torch.tensor([0.005, 0.995], dtype=points.dtype), dim=0)
    return (low + high) / 2, 0.6 * (high - low).max().clamp(min=1e-3)


def _vector(name: str, values: Tensor | Sequence[float]) -> Tensor:
    try:
        tensor = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTypeError(f"{name} must be numbers, got {values!r}") from error
    if tensor.ndim != 1 or len(tensor) == 0:
        raise ShapeError(f"{name} must be a vector of numbers, got shape {tuple(tensor.shape)}")
    return _finite(name, tensor)


def _finite(name: str, x: Tensor) -> Tensor:
    """The tensor on the CPU and out of any graph, of floating point and finite."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
        raise InvalidTypeError(f"{name} must be a tensor of floating point, got {got}")
    bad = int((~x.isfinite()).sum())
    if bad:
        raise NonFiniteError(f"{bad} of the {x.numel()} numbers in {name} are NaN or infinite")
    return x.detach().cpu().to(torch.promote_types(x.dtype, torch.float32))


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise InvalidValueError(f"{name} must be an integer >= 1, got {value!r}")
    return value


def figure(purpose: str, size: tuple[float, float]) -> Figure:
    """An empty figure for what has more panels than the plots above; `save` writes it.

    Args:
        purpose: What needs it, for the error.
        size: Width and height in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", "plot", purpose) from error
    return Figure(figsize=size, dpi=120, layout="constrained")


def _axes(purpose: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    drawn = figure(purpose, size)
    return drawn, drawn.subplots()


def save(drawn: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure into a PNG file; returns its path.

    Raises:
        InvalidValueError: The file cannot be written, or does not end in `.png`.
    """
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png")
    return _write(path, buffer)


def _write(path: str | os.PathLike[str], buffer: io.BytesIO) -> Path:
    """Puts a finished picture in its place in one step: nobody ever reads half of one."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InvalidValueError(f"pictures are PNG files, got {str(path)!r}; end it in .png")
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(buffer.getvalue())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidValueError(
            f"cannot write {str(path)!r}: {error.strerror}; choose another file"
        ) from error
    return path

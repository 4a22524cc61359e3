"""Samples over their density, curves, errors with their intervals, drawn by matplotlib."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.plot import paper
from scoresde.targets import Target

__all__ = ["Series", "bars", "curve", "pareto", "scatter"]

Series = Sequence[tuple[float, float, float, float]]
"""Points of a curve with intervals: `(x, y, low, high)` each."""


@door
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
    points = paper.finite("samples", samples).double()
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ShapeError(f"samples must be of shape (N, 2), N >= 1, got {tuple(points.shape)}")
    if density is not None and density.event_shape != (2,):
        raise ShapeError(
            f"the density must live in the plane, event shape (2,), got {density.event_shape}"
        )
    centre, reach = _frame(points, density)
    low, high = centre - reach, centre + reach
    extent = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))

    figure, axes = paper.axes("a scatter plot", (5, 5))
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
    return paper.save(figure, path)


@door
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
    y = paper.vector("values", values)
    x = torch.arange(1.0, len(y) + 1) if steps is None else paper.vector("steps", steps)
    if len(x) != len(y):
        raise ShapeError(f"steps and values must have one length, got {len(x)} and {len(y)}")
    window = max(1, len(y) // 50)
    mean = y.unfold(0, window, 1).mean(1)

    figure, axes = paper.axes("a curve", (7, 4))
    if window > 1:
        axes.plot(x.numpy(), y.numpy(), color="#30638e", alpha=0.25, linewidth=0.8)
    axes.plot(x[window - 1 :].numpy(), mean.numpy(), color="#30638e", marker="." * (len(y) == 1))
    axes.set(
        xlabel="step", ylabel=name, yscale="log" if bool((y > 0).all()) else "linear", title=title
    )
    axes.grid(alpha=0.3)
    return paper.save(figure, path)


@door
def pareto(
    panels: Mapping[str, Mapping[str, Series]],
    path: str | os.PathLike[str],
    *,
    x: str = "evaluations",
    y: str = "error",
) -> Path:
    """Writes price against error, one panel beside the other, with shaded intervals.

    Both axes are logarithmic: points without a positive price and error are left out, and an error
    below 1e-8 of the largest of its panel, where rounding begins, is drawn there.

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
    figure = paper.figure("a plot of errors", (3.4 * columns + 1.6, 3 * rows))
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    grid_of_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, curves) in zip(grid_of_axes, panels.items(), strict=False):
        errors = [error for points in curves.values() for _, error, *_ in points]
        bottom = 1e-8 * max((e for e in errors if math.isfinite(e)), default=0.0)
        for name, points in curves.items():
            shown = [
                (price, *(max(number, bottom) for number in numbers))
                for price, *numbers in points
                if price > 0 and numbers[0] > 0 and math.isfinite(numbers[0])
            ]
            if not shown:
                continue
            at, values, lows, highs = zip(*shown, strict=True)
            # a dash pattern for every ten colours
            tens, units = divmod(names.index(name), 10)
            colour, dashes = f"C{units}", ("-", "--", ":", "-.")[tens % 4]
            axes.plot(at, values, marker=".", label=name, color=colour, linestyle=dashes)
            least = [max(low, value / 100) for low, value in zip(lows, values, strict=True)]
            axes.fill_between(at, least, highs, color=colour, alpha=0.2, linewidth=0)
        axes.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="log")
        axes.grid(alpha=0.3)
        # plain numbers, also where the prices span less than a decade
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    for axes in grid_of_axes[len(panels) :]:
        axes.remove()
    handles = {
        label: handle
        for axes in grid_of_axes[: len(panels)]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles, loc="outside right upper", fontsize="small",
        ncols=math.ceil(len(handles) / (16 * rows)),
    )  # fmt: skip
    return paper.save(figure, path)


@door
def bars(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> Path:
    """Writes numbers with their intervals, each as a bar, one panel beside the other.

    Args:
        panels: for each title the bars, `(value, low, high)` by name; one name has one colour.
        path: the file, ending in `.png`.
        title: written above all.

    Returns:
        The path.

    Raises:
        InvalidValueError: there is no panel, or the file cannot be written.
        NonFiniteError: a number is NaN or infinite.
        MissingExtraError: matplotlib is not installed.
    """
    if not panels:
        raise InvalidValueError("there is nothing to show; give at least one panel")
    for heading, part in panels.items():
        paper.vector(heading, [number for bar in part.values() for number in bar])
    columns = min(6, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = paper.figure("a plot of bars", (1.7 * columns + 0.4, 2.6 * rows + 0.4))
    grid_of_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    names = list(dict.fromkeys(name for part in panels.values() for name in part))
    for axes, (heading, part) in zip(grid_of_axes, panels.items(), strict=False):
        for at, (name, (value, low, high)) in enumerate(part.items()):
            reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
            colour = f"C{names.index(name) % 10}"
            axes.bar(at, value, color=colour, alpha=0.75, yerr=reach, capsize=4)
        axes.set(title=heading, xlim=(-0.6, len(part) - 0.4))
        axes.set_xticks(range(len(part)), list(part))
        axes.axhline(0, color="black", linewidth=0.8)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    for axes in grid_of_axes[len(panels) :]:
        axes.remove()
    if title is not None:
        figure.suptitle(title, fontsize="medium")
    return paper.save(figure, path)


def _frame(points: Tensor, density: Target | None) -> tuple[Tensor, Tensor]:
    """Centre `(2,)` and half the side of the square that is shown."""
    if density is not None:
        reach = 4 * density.components.variances.amax(1, keepdim=True).sqrt()
        low, high = (density.means - reach).amin(0), (density.means + reach).amax(0)
        return (low + high) / 2, (high - low).max() / 2
    # Nearly all of the samples: one that ran away must not shrink the others to a dot.
    low, high = points.quantile(torch.tensor([0.005, 0.995], dtype=points.dtype), dim=0)
    return (low + high) / 2, 0.6 * (high - low).max().clamp(min=1e-3)

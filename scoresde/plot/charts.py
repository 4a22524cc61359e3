"""Draw curves, errors against costs, and bars, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.plot import paper
from scoresde.plot.paper import Axes, Figure
from scoresde.plot.schedules import Series

__all__ = ["bars", "curve", "pareto"]


@door
def curve(
    values: Tensor | Sequence[float],
    *,
    steps: Tensor | Sequence[float] | None = None,
    name: str = "loss",
    label: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw a noisy curve and its running mean over a fiftieth of its length.

    The vertical axis is logarithmic if the values of all its curves are positive; its label then
    ends in "logarithmic". The length of the axis is at least half of the largest absolute value (on
    a logarithmic axis at least a factor of 1.69), so that small changes look small. Up to ten
    curves in one Axes have different colours.

    Args:
        values: One number per step, `(N,)`.
        steps: The steps of the values, `(N,)`; by default 1 to N.
        name: The name of the values, beside the axis.
        label: The name of this curve in the legend.
        title: The title.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        ShapeError: `values` is not a vector, or is empty, or `steps` has another length.
        InvalidTypeError: An entry is not a number.
        NonFiniteError: A value is NaN or infinite.
        InvalidValueError: A value is too large for an axis.

    Examples:
        >>> from scoresde import plot
        >>> picture = plot.curve([1.0, 0.5, 0.4], label="training")
        >>> picture = plot.curve([0.6, 0.5], steps=[2, 3], label="held out", ax=picture.axes[0])
    """
    y = paper.vector("values", values)
    x = torch.arange(1.0, len(y) + 1) if steps is None else paper.vector("steps", steps)
    if len(x) != len(y):
        raise ShapeError(f"steps and values must have the same length, got {len(x)} and {len(y)}")
    window = max(1, len(y) // 50)
    mean = y.unfold(0, window, 1).mean(1)

    drawn, (axes,) = paper.sheet(ax, (7, 4))
    first = not axes.lines
    tone = paper.OTHERS[len({line.get_color() for line in axes.lines}) % len(paper.OTHERS)]
    if window > 1:
        axes.plot(x, y, color=tone, alpha=0.25, linewidth=0.8)
    axes.plot(x[window - 1 :], mean, color=tone, marker="." * (len(y) < 20), label=label)
    positive = bool((y > 0).all()) and (first or axes.get_yscale() == "log")
    if axes.get_xscale() == "linear":
        axes.locator_params(axis="x", integer=True)
    axes.set(
        xlabel="step", ylabel=f"{name}, logarithmic" if positive else name,
        yscale="log" if positive else "linear",
    )  # fmt: skip
    _widened(axes)
    paper.decades(axes.yaxis)
    axes.grid(alpha=0.3, color=paper.GREY)
    paper.headline(drawn, title, axes)
    paper.legend(axes)
    return drawn


def _widened(axes: Axes) -> None:
    """Set the limits of the vertical axis as `curve` describes, around all curves with a margin."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in axes.lines])
    low, high = float(values.min()), float(values.max())
    if axes.get_yscale() == "log":
        reach = max((high / low) ** 0.55, 1.3)
        middle = (low * high) ** 0.5
        axes.set_ylim(middle / reach, middle * reach)
        return
    reach = max(0.55 * (high - low), 0.25 * max(abs(low), abs(high))) or 1.0
    axes.set_ylim((low + high) / 2 - reach, (low + high) / 2 + reach)


@door
def pareto(
    panels: Mapping[str, Mapping[str, Series]],
    *,
    x: str = "evaluations",
    y: str = "error",
    ax: Axes | None = None,
) -> Figure:
    """Draw errors against costs, with shaded intervals, in panels side by side.

    Both axes are logarithmic. An error below 1e-8 times the largest error of its panel may be
    rounding, so it is drawn at 1e-8 times that largest error. An error that is not positive, such
    as an estimate that chance made negative, is drawn as a triangle at the upper end of its
    interval. A point is left out if its cost or its upper end is not positive, or if its error is
    not finite.

    Args:
        panels: A mapping from the title of each panel to its curves. The curves are a mapping from
            their names in the legend to points. A name has the same colour in all panels.
        x: The name of the costs, below the axes.
        y: The name of the errors, beside the axes.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        InvalidValueError: There is no panel.
    """
    if not panels:
        raise InvalidValueError("there is nothing to show; give at least one panel")
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = (3.4 * columns + 1.9, 3.1 * rows)
    drawn, grid_of_axes = paper.sheet(ax, size, rows, columns)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    for axes, (title, curves) in zip(grid_of_axes, panels.items(), strict=False):
        errors = [error for points in curves.values() for _, error, *_ in points]
        bottom = 1e-8 * max((e for e in errors if math.isfinite(e)), default=0.0)
        note = ""
        for name, points in curves.items():
            drawable = [(c, e, *ends) for c, e, *ends in points if c > 0 and math.isfinite(e)]
            shown = [(c, *(max(e, bottom) for e in numbers)) for c, *numbers in drawable
                     if numbers[0] > 0]  # fmt: skip
            limits = [(c, high) for c, e, *_, high in drawable if e <= 0 < high < math.inf]
            # after every ten names the colours repeat with another dash pattern
            tens, units = divmod(names.index(name), len(paper.COLOURS))
            colour, dashes = paper.COLOURS[units], ("-", "--", ":", "-.")[tens % 4]
            label = paper.plain(name)
            if limits:
                note = " (triangle: at most)"
                axes.plot(*zip(*limits, strict=True), "v", color=colour, fillstyle="none",
                          label="" if shown else label)  # fmt: skip
            if not shown:
                continue
            at, values, lows, highs = zip(*shown, strict=True)
            axes.plot(at, values, marker=".", label=label, color=colour, linestyle=dashes)
            least = [max(low, value / 100) for low, value in zip(lows, values, strict=True)]
            axes.fill_between(at, least, highs, color=colour, alpha=0.2, linewidth=0)
        axes.set(xlabel=x, ylabel=f"{y}{note}", xscale="log", yscale="log")
        axes.set_title(paper.plain(title), fontsize="medium")
        axes.grid(alpha=0.3, color=paper.GREY)
        paper.decades(axes.xaxis)
    for axes in grid_of_axes[len(panels) :]:
        axes.remove()
    handles = {
        label: handle
        for axes in grid_of_axes[: len(panels)]
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if ax is None:
        drawn.legend(
            handles.values(), handles, loc="outside right upper", fontsize="small", frameon=False,
            labelcolor=paper.INK, ncols=math.ceil(len(handles) / (15 * rows)),
        )  # fmt: skip
    elif handles:
        grid_of_axes[0].legend(
            handles.values(), handles, fontsize="small", labelcolor=paper.ink(ax)
        )
    return drawn


@door
def bars(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]],
    *,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw numbers as bars with their intervals, in panels side by side.

    Args:
        panels: A mapping from the title of a panel to its bars, `(value, low, high)` by name; a
            name has the same colour in all panels.
        title: The title of the figure.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        InvalidValueError: There is no panel.
        ShapeError: A panel has no bar.
        NonFiniteError: A number is NaN or infinite.
    """
    if not panels:
        raise InvalidValueError("there is nothing to show; give at least one panel")
    for heading, part in panels.items():
        paper.vector(heading, [number for bar in part.values() for number in bar])
    rows = math.ceil(len(panels) / 6)
    columns = math.ceil(len(panels) / rows)
    drawn, grid_of_axes = paper.sheet(ax, (1.9 * columns + 0.4, 2.6 * rows + 0.6), rows, columns)
    tones = paper.tones(dict.fromkeys(name for part in panels.values() for name in part))
    for axes, (heading, part) in zip(grid_of_axes, panels.items(), strict=False):
        for at, (name, (value, low, high)) in enumerate(part.items()):
            reach = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.bar(at, value, color=tones[name], alpha=0.75)
            axes.errorbar(
                at, value, yerr=reach, fmt="_", color=paper.ink(axes), capsize=5, elinewidth=1.2
            )
        axes.set(xlim=(-0.6, len(part) - 0.4))
        axes.set_title(paper.plain(heading), fontsize="small")
        axes.set_xticks(range(len(part)), [paper.plain(name) for name in part])
        axes.axhline(0, color=paper.ink(axes), linewidth=0.8)
        axes.grid(axis="y", alpha=0.3, color=paper.GREY)
        axes.set_axisbelow(True)
    for axes in grid_of_axes[len(panels) :]:
        axes.remove()
    paper.headline(drawn, title, ax)
    return drawn

"""Make an axis linear over an interval, and logarithmic beyond it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

__all__ = ["STRETCHED", "ends_of", "is_far", "stretch"]

STRETCHED = "logarithmic beyond the dotted lines"
"""The note below a picture with such an axis."""

# An axis is logarithmic beyond an interval if it is longer than this many times the interval.
_FAR = 3.0
# The length of a factor of e, in units of half the interval.
_FOLD = 0.2

Ends = tuple[float, float]
Numbers = npt.NDArray[np.float64]


def ends_of(x: Tensor, margin: float = 0.1) -> Ends:
    """Return the smallest and the largest number of x, each moved outwards by a margin."""
    low, high = float(x.min()), float(x.max())
    edge = margin * (high - low) or 1e-3 * (1 + abs(low))
    return low - edge, high + edge


def is_far(inner: Ends, outer: Ends) -> bool:
    """Return True if an axis that contains both intervals should not be linear."""
    return outer[1] - outer[0] > _FAR * (inner[1] - inner[0])


def stretch(axis: Any, inner: Ends, outer: Ends) -> list[str]:
    """Make an axis contain `outer`, and logarithmic outside `inner` if `outer` is far wider.

    Dotted lines mark the two ends of `inner`. Let c be the centre of `inner`, h half its width and
    u = (x - c) / h. A number x is drawn at u if |u| <= 1, else at sign(u) (1 + 0.2 log|u|).

    Args:
        axis: The axis of matplotlib, as `panel.xaxis`.
        inner: The interval of the data.
        outer: The interval of everything that is drawn.

    Returns:
        A list with one note for the picture, or an empty list.
    """
    outer = min(outer[0], inner[0]), max(outer[1], inner[1])
    limit = axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim
    if not is_far(inner, outer):
        limit(outer)
        return []
    centre, half = (inner[0] + inner[1]) / 2, (inner[1] - inner[0]) / 2

    def place(x: Numbers) -> Numbers:
        u = (np.asarray(x) - centre) / half
        size = np.maximum(np.abs(u), 1.0)
        return np.where(np.abs(u) <= 1, u, np.sign(u) * (1 + _FOLD * np.log(size)))

    def number(u: Numbers) -> Numbers:
        size = np.minimum(np.maximum(np.abs(u), 1.0), 1 + 300 * _FOLD)
        far = np.sign(u) * np.exp((size - 1) / _FOLD)
        return centre + half * np.where(np.abs(u) <= 1, u, far)

    axis.axes.set(**{f"{axis.axis_name}scale": "linear"})
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)(
        "function", functions=(place, number)
    )
    across = axis.axes.axvline if axis.axis_name == "x" else axis.axes.axhline
    for end in inner:
        across(end, color="#7d8797", linewidth=0.7, linestyle=":", zorder=0)
    axis.set_ticks(_ticks(inner, outer))
    axis.set_major_formatter("{x:g}")
    limit(outer)
    return [STRETCHED]


def _ticks(inner: Ends, outer: Ends) -> Sequence[float]:
    """Return ticks at round numbers in the inner interval, and at powers of ten outside it.

    If no power of ten fits on one side, the largest of 2, 3 and 5 times a power of ten that fits is
    taken.
    """
    from matplotlib.ticker import MaxNLocator

    within = MaxNLocator(4).tick_values(*inner)
    ticks = [float(x) for x in within if inner[0] <= x <= inner[1]]
    width = inner[1] - inner[0]
    for sign, end in ((-1, -outer[0]), (1, outer[1])):
        least = max(width, sign * (inner[0] if sign < 0 else inner[1]))
        k = math.ceil(math.log10(least))
        powers = [10.0**i for i in range(k, math.floor(math.log10(max(end, least))) + 1)]
        others = [m * 10.0 ** (k - 1) for m in (2, 3, 5) if least < m * 10.0 ** (k - 1) <= end]
        ticks += [sign * tick for tick in powers or others[-1:]]
    return sorted(ticks)

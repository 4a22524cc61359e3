"""Draw the signal and the noise of an SDE against time, and losses against the noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.plot import paper
from scoresde.plot.paper import Axes, Figure
from scoresde.sde import SDE

__all__ = ["Series", "ladder", "loss_by_noise"]

Series = Sequence[tuple[float, float, float, float]]
"""Points of a curve with intervals: `(x, y, low, high)` each."""


@door
def ladder(
    sde: SDE,
    *,
    times: Tensor | Sequence[float] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    r"""Draw signal $\alpha_t$, noise $\sigma_t$ and their squared ratio, the SNR, against time.

    The vertical axis is logarithmic, so the third curve is the log-SNR. The time axis is
    logarithmic if T is more than 10,000 times eps, as for EDM.

    Args:
        sde: An SDE or a ladder.
        times: Times to mark, such as the times of a grid; by default the levels of a ladder.
        title: The title; by default the class of the SDE.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        InvalidValueError: A time lies outside [0, T].

    Examples:
        >>> import scoresde
        >>> from scoresde import plot
        >>> sde = scoresde.EDMSDE()
        >>> picture = plot.ladder(sde, times=sde.times(20))
    """
    drawn, (panel,) = paper.sheet(ax, (6.5, 4))
    t = torch.linspace(sde.eps, sde.T, 400, dtype=torch.float64)
    if sde.levels is not None:
        t = sde.times().flip(0)
        times = t if times is None else times
    wide = sde.T > 1e4 * sde.eps > 0
    if wide and sde.levels is None:
        t = torch.linspace(math.log(sde.eps), math.log(sde.T), 400, dtype=torch.float64).exp()
        t = t.clamp(sde.eps, sde.T)
    at = None if times is None else sde.as_time(paper.vector("times", times))
    for read, name, tone in (
        (sde.alpha, r"signal $\alpha_t$", paper.BLUE),
        (sde.sigma, r"noise $\sigma_t$", paper.RED),
        (lambda t: sde.log_snr(t).exp(), r"SNR $\alpha_t^2 / \sigma_t^2$", paper.GREY),
    ):
        panel.plot(t, read(t), color=tone, label=name)
        if at is not None:
            panel.plot(at, read(at), ".", color=tone, markersize=5)
    panel.set(xlabel="time", yscale="log", xscale="log" if wide else "linear")
    panel.grid(alpha=0.3, color=paper.GREY)
    panel.set_title(type(sde).__name__ if title is None else title, fontsize="medium")
    paper.legend(panel)
    return drawn


@door
def loss_by_noise(
    curves: Mapping[str, Series],
    *,
    floor: Series = (),
    name: str = "loss",
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    r"""Draw losses against the noise $\sigma / \alpha$, with intervals and the smallest losses.

    Args:
        curves: The points `(sigma / alpha, loss, low, high)` of each curve, by name.
        floor: The points of the smallest possible loss, whose intervals are not drawn.
        name: The name of the values, beside the axis.
        title: The title.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        InvalidValueError: `curves` is empty, or a noise level is not above 0.
        ShapeError: A curve has no points.
        NonFiniteError: A number is NaN or infinite.
    """
    if not curves:
        raise InvalidValueError("there is nothing to show; give at least one curve")
    drawn, (panel,) = paper.sheet(ax, (6.5, 4))
    lowest = []
    for i, (label, points) in enumerate(curves.items()):
        x, y, low, high = _columns(f"the curve {label}", points)
        tone = paper.COLOURS[i % len(paper.COLOURS)]
        panel.plot(x, y, marker=".", color=tone, label=paper.plain(label))
        if float(y.min()) > 0:  # a logarithmic axis cannot show an interval that reaches below 0
            low = torch.maximum(low, y / 100)
        panel.fill_between(x, low, high, color=tone, alpha=0.2, linewidth=0)
        lowest.append(float(y.min()))
    if floor:
        x, y, _, _ = _columns("the floor", floor)
        panel.plot(x, y, color=paper.GREY, linestyle=":", label="the least possible")
        panel.fill_between(x, y, 0, color=paper.GREY, alpha=0.15, linewidth=0)
        lowest.append(float(y.min()))
    positive = min(lowest) > 0
    panel.set(xlabel=r"noise level $\sigma/\alpha$", ylabel=name, xscale="log")
    panel.set_yscale("log" if positive else "linear")
    if positive:
        panel.set_ylim(bottom=min(lowest) / 1.5)
    paper.decades(panel.xaxis)
    paper.decades(panel.yaxis)
    panel.grid(alpha=0.3, color=paper.GREY)
    paper.headline(drawn, title, panel)
    paper.legend(panel)
    return drawn


def _columns(name: str, points: Series) -> tuple[Tensor, ...]:
    if not points:
        raise ShapeError(f"{name} must have at least one point")
    rows = sorted(points)
    if rows[0][0] <= 0:
        raise InvalidValueError(f"{name} must be at noise levels above 0, got {rows[0][0]:g}")
    return tuple(paper.vector(name, column) for column in zip(*rows, strict=True))

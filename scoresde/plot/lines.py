"""Draw signals as lines, and many signals as bands of their quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import ShapeError
from scoresde.plot import paper
from scoresde.plot.paper import Axes, Figure
from scoresde.plot.sets import Labels, Sets, given, groups, tones_of, words_of
from scoresde.units import Transform

__all__ = ["LINES", "beside", "signals"]

# More signals than LINES are drawn as bands. At most _CHANNELS channels are drawn. The quantiles
# are computed from at most _SORTED signals.
LINES, _CHANNELS, _SORTED = 12, 6, 10_000
# The opacities with which the bands are drawn, and the opacities that are seen: the narrow band
# lies over the wide band, and there both opacities combine.
_WIDE, _NARROW = 0.15, 0.25
_KNOWN = "known"  # the entry of known values in the legend
_SHADES = {"90 %": _WIDE, "50 %": 1 - (1 - _WIDE) * (1 - _NARROW)}


@door
def signals(
    x: Sets,
    *,
    transform: Transform | None = None,
    at: Tensor | Sequence[float] | None = None,
    truth: Tensor | None = None,
    known: Tensor | None = None,
    names: Sequence[str] = (),
    labels: Labels = (),
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw up to 12 signals as lines, and more signals as bands of quantiles.

    Each channel has a panel. The bands contain 50 and 90 % of the values at each time. The thick
    line is the median, and the thin lines are the first three signals. Quantiles are computed for
    each time separately, so the median need not resemble any signal. Several sets, or signals with
    several labels, each have lines or bands of their own.

    Args:
        x: `(N, C, T)`, or `(N, T)` for one channel; or several sets by name. At most the first six
            channels are drawn.
        transform: The transform of the data; signals are drawn in the units of the data.
        at: The positions of the values along the axis, `(T,)`; by default 0 to T - 1.
        truth: One signal `(C, T)` or `(T,)`, drawn above the others.
        known: The measured values `(C, T)` or `(T,)`, drawn as dots; NaN where nothing was
            measured.
        names: The names of the channels.
        labels: A label of each signal, `(N,)`, strings or integers: each has its own colour.
        title: The title.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        ShapeError: An argument has another shape.
        InvalidTypeError: `x` has another type.
        NonFiniteError: A number is NaN or infinite.
        InvalidValueError: `x` is an empty mapping.

    Examples:
        >>> from scoresde import plot
        >>> walks = torch.randn(200, 2, 50, generator=torch.Generator().manual_seed(0)).cumsum(-1)
        >>> len(plot.signals(walks, names=["east", "north"]).axes)
        2
    """
    found = given("x", x, transform)
    sets = {k: v[:, None] if v.ndim == 2 else v for k, v in found.sets.items()}
    first = next(iter(sets.values()))
    if first.ndim != 3:
        raise ShapeError(f"x must be of shape (N, C, T) or (N, T), got {tuple(first.shape)}")
    words = words_of(labels, sets)
    names = names or (found.names if len(found.names) == first.shape[1] else ())
    _, channels, length = first.shape
    times = torch.arange(float(length)) if at is None else paper.vector("at", at)
    if len(times) != length:
        raise ShapeError(f"at must have one entry for each of the {length} values")
    if names and len(names) != channels:
        raise ShapeError(f"need a name for each of the {channels} channels, got {len(names)}")
    shape = (channels, length)
    line = None if truth is None else _one("truth", paper.finite("truth", truth), shape)
    dots = None if known is None else _one("known", known, shape)
    shown = min(channels, _CHANNELS)
    drawn, panels = paper.sheet(ax, (7.0, 1.2 + 1.9 * shown), shown)
    parts = groups(sets, words)
    tones = tones_of(sets, words, data=found.of_data)
    for label, part in parts.items():
        for c, panel in enumerate(panels):
            _channel(panel, times, part[:, c], tones[label], paper.plain(label))
    for c, panel in enumerate(panels):
        if line is not None:
            panel.plot(times, line[c], color=paper.ink(panel), linewidth=1.4, label="the truth")
        if dots is not None:
            panel.plot(times, dots[c], ".", color=paper.ink(panel), markersize=4, label=_KNOWN)
    _finish(panels, times, names, channels, "step" if at is None else "")
    _legend(panels[0])
    paper.headline(drawn, title, panels[0] if ax is None else ax)
    return drawn


def _one(name: str, signal: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return one signal as `(C, T)`; NaN is allowed, and remains."""
    found = paper.finite(name, signal.nan_to_num(nan=0.0)).where(~signal.isnan().cpu(), torch.nan)
    if found.numel() != math.prod(shape):
        raise ShapeError(f"{name} must be of shape {shape}, got {tuple(signal.shape)}")
    return found.reshape(shape)


def beside(
    sets: dict[str, Tensor], names: Sequence[str], words: Sequence[str], title: str | None,
    known: Tensor | None,
) -> Figure:  # fmt: skip
    """Return a figure of sets of signals `(N, C, T)` in columns, with common axes."""
    _, channels, length = next(iter(sets.values())).shape
    dots = None if known is None else _one("known", known, (channels, length))
    times, shown, count = torch.arange(float(length)), min(channels, _CHANNELS), len(sets)
    drawn, panels = paper.sheet(None, (1 + 4.5 * count, 1.2 + 1.9 * shown), shown, count)
    of_sets = tones_of(sets, ())
    for i, (label, whole) in enumerate(sets.items()):
        column, parts = panels[i::count], groups({"": whole}, words)
        tones = tones_of({"": whole}, words) if words else {"": of_sets[label]}
        for c, panel in enumerate(column):
            for word, part in parts.items():
                _channel(panel, times, part[:, c], tones[word], paper.plain(word))
            if dots is not None:
                panel.plot(times, dots[c], ".", color=paper.INK, markersize=4, label=_KNOWN)
        _finish(column, times, names if i == 0 else (), channels if i == 0 else 1, "step")
        column[0].set_title(paper.plain(label), fontsize="medium")
    for c in range(shown):
        row = panels[c * count : (c + 1) * count]
        low, high = zip(*(panel.get_ylim() for panel in row), strict=True)
        for panel in row:
            panel.set_ylim(min(low), max(high))
    # the columns have different colours
    _legend(panels[count - 1], tone=None if words else paper.GREY)
    paper.headline(drawn, title, None)
    return drawn


def _legend(panel: Axes, *, tone: str | None = None) -> None:
    """Write the legend, with the bands as dark as in the panel.

    If `tone` is given, all its entries except the known values have this colour.
    """
    paper.legend(panel)
    if (drawn := panel.get_legend()) is None:
        return
    for handle, text in zip(drawn.legend_handles, drawn.get_texts(), strict=True):
        if handle is None:
            continue
        if tone is not None and text.get_text() != _KNOWN:
            handle.set(color=tone)
        if (shade := _SHADES.get(text.get_text())) is not None:
            handle.set_alpha(shade)


def _finish(
    panels: list[Axes], times: Tensor, names: Sequence[str], channels: int, along: str
) -> None:
    """Write the names of the channels beside the panels, and `along` below the last panel."""
    for c, panel in enumerate(panels):
        panel.set_ylabel(paper.plain(names[c]) if names else f"channel {c}" if channels > 1 else "")
        panel.grid(alpha=0.3, color=paper.GREY)
        if len(times) > 1:
            panel.set_xlim(float(times.min()), float(times.max()))
        if along:
            panel.locator_params(axis="x", integer=True)
        if c < len(panels) - 1:
            panel.set_xticklabels([])
    rest = f"the first {len(panels)} of {channels} channels" if channels > len(panels) else ""
    panels[-1].set_xlabel("\n".join(filter(None, [along, rest])))


def _channel(ax: Axes, times: Tensor, x: Tensor, tone: str, label: str) -> None:
    """Draw one channel `(N, T)` of one set."""
    dot = "." if len(times) == 1 else ""
    if len(x) <= LINES:
        for i, row in enumerate(x):
            word = label if i == 0 else None
            ax.plot(times, row, marker=dot, color=tone, linewidth=1.1, alpha=0.85, label=word)
        return
    x = x[:: math.ceil(len(x) / _SORTED)]
    low, lower, middle, upper, high = np.quantile(x.numpy(), [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    ax.fill_between(
        times, low, high, color=tone, alpha=_WIDE, linewidth=0, label=None if label else "90 %"
    )
    ax.fill_between(
        times, lower, upper, color=tone, alpha=_NARROW, linewidth=0, label=None if label else "50 %"
    )
    for i, row in enumerate(x[:3]):
        word = None if label or i else "three signals"
        ax.plot(times, row, color=tone, linewidth=0.6, alpha=0.6, label=word)
    name = f"{label}: median, 50, 90 %,\nthree signals" if label else "median"
    ax.plot(times, middle, marker=dot, color=tone, linewidth=1.8, label=name)

"""Draw vectors: a histogram in one dimension, a scatter in two, pairs of entries in more."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.plot import paper
from scoresde.plot.kinds import MOST
from scoresde.plot.paper import Axes, Figure
from scoresde.plot.sets import Labels, Sets, given, groups, tones_of, words_of
from scoresde.targets import Target
from scoresde.units import Transform

__all__ = ["Frame", "below", "frame_of", "points", "squared"]

# The largest number of dots of a set in a scatter.
_DOTS = 20_000
# If the ratio of the sides of a plane is at most this, both axes have the same scale. Beyond it
# more than half of the panel would be empty, and the entries may have different units.
_EVEN = 2.5

Frame = list[tuple[float, float]]
"""The two ends of every axis."""


@door
def points(
    x: Sets,
    *,
    transform: Transform | None = None,
    density: Target | None = None,
    truth: Tensor | Sequence[float] | None = None,
    names: Sequence[str] = (),
    labels: Labels = (),
    frame: Sequence[tuple[float, float]] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw vectors: a histogram, a scatter in the plane, or marginals and pairs of up to 6 entries.

    Each axis contains 99 % of the numbers of every set, so that outliers do not determine the
    scale. The number of points outside is written below. In a plane both axes have the same scale,
    so that a circle is round, unless one range is more than 2.5 times the other. The histogram of a
    set has the area 1; with labels, that of a label has the share of its samples.

    Args:
        x: `(N, d)` or `(N,)`; or several sets with the same d by name, such as data and samples.
        transform: The transform of the data; points are drawn in the units of the data, in which
            density, truth and frame are given.
        density: The true distribution, of event shape `(1,)` or `(2,)`, drawn as a curve or in the
            background. The axes then end four standard deviations beyond the means of its
            components.
        truth: A point to mark, `(d,)`.
        names: The names of the entries, beside the axes.
        labels: A label of each sample, `(N,)`, strings or integers: each has its own colour. The
            same labels are used for every set.
        frame: The two ends of each axis; by default computed from x.
        title: The title.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        ShapeError: `x` has another shape, the density has another event shape, or there are more or
            fewer names than entries, or labels than samples.
        InvalidTypeError: `x` has another type.
        NonFiniteError: A number is NaN or infinite.
        InvalidValueError: `x` is an empty mapping, or the frame has more or fewer pairs than axes.

    Examples:
        >>> from scoresde import plot, targets
        >>> moons = targets.TwoMoons()
        >>> x = moons.sample(500, generator=torch.Generator().manual_seed(0))
        >>> picture = plot.points(x, density=moons, title="draws")
        >>> len(picture.axes)
        1
    """
    found = given("x", x, transform)
    sets = {k: v[:, None] if v.ndim == 1 else v for k, v in found.sets.items()}
    d = next(iter(sets.values())).shape[1:].numel()
    if any(part.ndim != 2 for part in sets.values()):
        shape = tuple(next(iter(sets.values())).shape)
        raise ShapeError(f"x must be of shape (N, d), got {shape}; use plot.samples")
    if density is not None and (density.event_shape != (d,) or d > 2):
        raise ShapeError(
            f"the density must have the event shape {(d,)} of the points, on the line or in the "
            f"plane; got {density.event_shape}"
        )
    names = names or (found.names if len(found.names) == d else ())
    if names and len(names) != d:
        raise ShapeError(f"need a name for each of the {d} entries, got {len(names)}")
    mark = None if truth is None else paper.vector("truth", truth)
    if mark is not None and len(mark) != d:
        raise ShapeError(f"the truth must have {d} entries, got {len(mark)}")
    if frame is not None and len(frame) != min(d, MOST):
        raise InvalidValueError(f"need a frame of {min(d, MOST)} pairs, got {len(frame)}")
    limits = None if frame is None else [paper.interval("ends of a frame", ends) for ends in frame]
    shown = min(d, MOST)
    ends = frame_of(sets, density, mark) if limits is None else limits
    words = words_of(labels, sets)
    sets, tones = groups(sets, words), tones_of(sets, words, data=found.of_data)
    axis_names = [paper.plain(name, 40 if d <= 2 else 18) for name in names[:shown]]

    beside = 0.0 if list(sets) == [""] else 0.5 + 0.075 * min(40, max(map(len, sets)))
    side = 1.0 + 1.6 * shown
    size = (5.2 + beside, 3.6) if d == 1 else (5.0 + beside, 5.0) if d == 2 else (side, side)
    count = 1 if d <= 2 else shown
    drawn, panels = paper.sheet(ax, size, count, count)
    note = f"the first {shown} of {d} entries; " if d > shown else ""
    note += _outside(sets, ends)
    if d == 1:
        _histogram(panels[0], sets, tones, density, mark, ends[0], of=len(words))
        panels[0].set(xlabel=axis_names[0] if names else "", ylabel="density")
        below(panels[0], note)
        paper.legend(panels[0])
    elif d == 2:
        _plane(panels[0], sets, tones, density, mark, ends)
        even = _is_even(ends)
        panels[0].set(xlim=ends[0], ylim=ends[1], aspect="equal" if even else "auto")
        panels[0].set_box_aspect(None if even else 1)
        if names:
            panels[0].set(xlabel=axis_names[0], ylabel=axis_names[1])
        below(panels[0], note)
        paper.legend(panels[0])
    else:
        labels = axis_names or [f"$x_{{{i + 1}}}$" for i in range(shown)]
        _corner(panels, sets, tones, mark, ends, labels, of=len(words))
        if note and ax is None:
            text = f"({note.removesuffix('; ')})"
            drawn.supxlabel(text, fontsize="medium", color=paper.INK)
        elif note:
            below(panels[count * (count - 1) + count // 2], note.removesuffix("; "))
    paper.headline(drawn, title, ax if d > 2 else panels[0])
    return drawn


def frame_of(
    sets: dict[str, Tensor],
    density: Target | None = None,
    mark: Tensor | None = None,
) -> Frame:
    """Return the limits of the axes: the range of the density, or of 99 % of each set's points.

    The sides of a plane have the same length, unless one side is much longer, as in `squared`.
    """
    if density is not None:
        reach = 4 * density.components.variances.amax(1, keepdim=True).sqrt()
        least, most = (density.means - reach).amin(0), (density.means + reach).amax(0)
        half = float((most - least).max()) / 2
        return [(c - half, c + half) for c in ((least + most) / 2).tolist()]
    found: Frame = []
    for i in range(min(MOST, next(iter(sets.values())).shape[1])):
        ends = [paper.span(part[:, i]) for part in sets.values()]
        if mark is not None:
            ends.append((float(mark[i]),) * 2)
        low, high = min(a for a, _ in ends), max(b for _, b in ends)
        found.append((low - 0.1 * (high - low), high + 0.1 * (high - low)))
    return squared(found)


def squared(frame: Frame) -> Frame:
    """Return the frame of a plane with sides of equal length, unless one side is much longer."""
    if len(frame) != 2 or not _is_even(frame):
        return frame
    sides = [b - a for a, b in frame]
    return [((a + b - max(sides)) / 2, (a + b + max(sides)) / 2) for a, b in frame]


def _is_even(frame: Frame) -> bool:
    """Return True if both axes of a plane can have the same scale."""
    sides = [b - a for a, b in frame]
    return max(sides) <= _EVEN * min(sides)


def _outside(sets: dict[str, Tensor], ends: Frame) -> str:
    """Return a text with the number of points outside the frame."""
    low, high = (torch.tensor(side, dtype=torch.float64) for side in zip(*ends, strict=True))
    n, out = 0, 0
    for part in sets.values():
        part = part[:, : len(low)]
        n, out = n + len(part), out + int(((part < low) | (part > high)).any(1).sum())
    where = " the limits of some column" if len(ends) > 2 else ""
    return f"{out:,} of {n:,} lie outside{where}" if out else ""


def below(ax: Axes, note: str) -> None:
    """Write a note below the label of the horizontal axis."""
    if note:
        ax.set_xlabel(f"{ax.get_xlabel()}\n({note})".strip())


def _histogram(
    ax: Axes, sets: dict[str, Tensor], tones: Mapping[str, str], density: Target | None,
    mark: Tensor | None, ends: tuple[float, float], column: int = 0, *, of: int,
) -> None:  # fmt: skip
    """Draw histograms of one entry as densities, one for each group, in the same bins.

    If `of` is not 0, each group is a part of a set of this number of samples.
    """
    low, high = ends
    bins = _of_whole(sets, column, ends) or _even_bins([x[:, column] for x in sets.values()], ends)
    for label, part in sets.items():
        values, tone = part[:, column].numpy(), tones[label]
        inside = values[(values >= low) & (values <= high)]
        share = len(part) / of if of else 1.0
        weight = share / (max(len(inside), 1) * (bins[1] - bins[0]))
        ax.hist(
            inside, bins=bins, weights=[weight] * len(inside), histtype="stepfilled",
            facecolor=(tone, 0.3), edgecolor=tone, label=paper.plain(label),
        )  # fmt: skip
    if density is not None:
        at = torch.linspace(low, high, 400, dtype=torch.float64)
        name = "the true density" if any(sets) else None
        ax.plot(at, density.log_prob(at[:, None]).exp(), color=paper.ink(ax), lw=1.2, label=name)
    if mark is not None:
        ax.axvline(float(mark[column]), color=paper.ink(ax), linestyle="--", linewidth=1)
    ax.set_xlim(low, high)


def _even_bins(groups: list[Tensor], ends: tuple[float, float]) -> list[float]:
    """Return the edges of 8 to 60 bins, as wide as the median of the groups needs.

    A group of n numbers with the interquartile range r needs 2 r / n^(1/3) (Freedman & Diaconis
    1981).
    """
    quartiles = torch.tensor([0.25, 0.75], dtype=torch.float64)
    ranges = [float(part.double().quantile(quartiles).diff()) for part in groups]
    needed = [2 * r / len(part) ** (1 / 3) for r, part in zip(ranges, groups, strict=True)]
    width = max(statistics.median(needed), (ends[1] - ends[0]) / 60)
    count = max(8, math.ceil((ends[1] - ends[0]) / width))
    return torch.linspace(*ends, count + 1, dtype=torch.float64).tolist()


def _of_whole(sets: dict[str, Tensor], column: int, ends: tuple[float, float]) -> list[float]:
    """Return the edges of 3 to 60 bins around integers if a set holds only integers, else none."""
    low, high = math.floor(ends[0]), math.ceil(ends[1])
    whole = any(bool((part[:, column] == part[:, column].round()).all()) for part in sets.values())
    count = high - low + 1
    return [low - 0.5 + i for i in range(count + 1)] if whole and 3 <= count <= 60 else []


def _plane(
    ax: Axes, sets: dict[str, Tensor], tones: Mapping[str, str], density: Target | None,
    mark: Tensor | None, ends: Frame, columns: tuple[int, int] = (0, 1), size: float = 25.0,
) -> None:  # fmt: skip
    """Draw a scatter of two entries over their density."""
    if density is not None:
        shade(ax, density.log_prob, ends)
    a, b = columns
    dot = min(size, max(1.0, 8_000 / max(map(len, sets.values()))))  # the same for all sets
    for label, part in sets.items():
        # at most _DOTS dots, since more would cover each other
        step = math.ceil(len(part) / _DOTS)
        part = part[::step]
        ax.scatter(
            part[:, a].numpy(), part[:, b].numpy(), s=dot,
            c=tones[label], alpha=0.7 if len(sets) == 1 else 0.5, linewidths=0,
            label=paper.plain(label), rasterized=len(part) > 2_000,
        )  # fmt: skip
    if mark is not None:
        ax.scatter(
            float(mark[a]), float(mark[b]), marker="*", s=40 + 5 * size, c="#f2c14e",
            edgecolors=paper.INK, linewidths=0.8, label="the truth", zorder=3,
        )  # fmt: skip


def shade(ax: Axes, log_prob: Callable[[Tensor], Tensor], ends: Frame) -> None:
    """Draw a density of the plane in pale blue, in the background."""
    x, y = (torch.linspace(a, b, 240, dtype=torch.float64) for a, b in ends)
    values = log_prob(torch.cartesian_prod(x, y)).exp().reshape(240, 240)
    # The darkest blue is left out, since samples would be hard to see on it.
    share = 0.75 * values.T / (float(values.max()) or 1.0)
    blue = torch.tensor([int(paper.SHADE[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    image = torch.cat([blue.expand(240, 240, 3), share.float()[..., None]], 2)
    ax.imshow(image.numpy(), extent=(*ends[0], *ends[1]), origin="lower", aspect="auto", zorder=0)


def _corner(
    panels: list[Axes], sets: dict[str, Tensor], tones: Mapping[str, str], mark: Tensor | None,
    ends: Frame, names: list[str], *, of: int,
) -> None:  # fmt: skip
    """Draw marginals along the diagonal, and pairs below it."""
    d = len(ends)
    for at, ax in enumerate(panels):
        row, column = divmod(at, d)
        if column > row:
            ax.set_axis_off()
            continue
        if row == column:
            _histogram(ax, sets, tones, None, mark, ends[row], row, of=of)
            ax.set_yticks([])
        else:
            _plane(ax, sets, tones, None, mark, ends, (column, row), size=6.0)
            ax.set(xlim=ends[column], ylim=ends[row])
        ax.tick_params(labelsize="x-small")
        ax.locator_params(axis="x" if row == column else "both", nbins=3)
        ax.set_box_aspect(1)
        if row == d - 1:
            ax.set_xlabel(names[column])
        else:
            ax.set_xticklabels([])
        if column == 0:
            ax.set_ylabel(names[row] if row else "")
        elif row != column:
            ax.set_yticklabels([])
    handles, labels = panels[0].get_legend_handles_labels()
    if any(labels):
        panels[1].legend(handles, labels, loc="upper left", fontsize="small", frameon=False,
                         labelcolor=paper.ink(panels[0]))  # fmt: skip

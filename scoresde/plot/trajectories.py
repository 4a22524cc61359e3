"""Draw scores and runs: arrows over a density, paths of particles, samples from noise to data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from scoresde.checks import check_integer, door
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.plot import paper
from scoresde.plot.kinds import kind
from scoresde.plot.mosaic import images, volumes
from scoresde.plot.paper import Axes, Figure
from scoresde.plot.scatter import below, frame_of, shade, squared
from scoresde.plot.states import StateLike, paths, share_axis, words
from scoresde.plot.stretch import ends_of, stretch
from scoresde.sde import Score, facts
from scoresde.targets import Target
from scoresde.units import Transform

__all__ = ["field", "strip", "trajectory"]

# The smallest width of a strip of volumes, in pixels.
_WIDE = 1400


@door
def field(
    score: Score,
    x: Tensor,
    t: float,
    *,
    density: Target | None = None,
    arrows: int = 18,
    names: Sequence[str] = (),
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    r"""Draw a score in the plane as arrows, over $p_t$ and samples of $p_t$.

    The length of an arrow increases with the norm of the score; its limit is the distance between
    two arrows. The median norm is written below; its arrow is almost half as long as the limit.

    Args:
        score: A score of event shape (2,).
        x: Points of $p_t$, `(N, 2)`, which set the axes; the first 2,000 are drawn.
        t: The time.
        density: The distribution of the data. Its $p_t$ under the score's SDE is drawn in the
            background.
        arrows: The number of arrows along each side, at least 2.
        names: The names of the two entries.
        title: The title; by default the time.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        ShapeError: `x` is not `(N, 2)`, the density is not in the plane, or there are not two
            names.
        NonFiniteError: The score, or a point, is not finite.
        InvalidValueError: A density is given, but the SDE of the score is unknown; or `arrows` is
            below 2.

    Examples:
        >>> import scoresde
        >>> from scoresde import plot
        >>> moons, sde = scoresde.targets.TwoMoons(), scoresde.VESDE()
        >>> x = moons.sample(300, sde, 0.3, generator=torch.Generator().manual_seed(0))
        >>> picture = plot.field(moons.at(sde), x, 0.3, density=moons)
    """
    check_integer("arrows", arrows, 2)
    points = paper.finite("x", x)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ShapeError(f"a field is drawn in the plane, of x (N, 2); got {tuple(points.shape)}")
    sde = facts(score).sde
    if density is not None and sde is None:
        raise InvalidValueError("p_t is unknown, since the score has no SDE; leave the density out")
    _check_plane(2, density, names)
    ends = frame_of({"": points})
    drawn, (panel,) = paper.sheet(ax, (5, 5))
    if density is not None and sde is not None:
        shade(panel, lambda at: density.log_prob(at, sde, t), ends)
    u, v = (torch.linspace(a, b, arrows + 2, dtype=torch.float64)[1:-1] for a, b in ends)
    at = torch.cartesian_prod(u, v)
    dtype = x.dtype if x.is_floating_point() else torch.float32
    with torch.no_grad():
        found = score(
            at.to(x.device, dtype), torch.full((len(at),), t, device=x.device, dtype=dtype)
        )
    s = paper.finite("the score", found)
    length = s.norm(dim=1, keepdim=True)
    # otherwise long arrows far from the points would hide short arrows
    usual = float(length.quantile(0.5)) or 1.0
    s = s / length.clamp(min=1e-300) * torch.tanh(length / (2 * usual))
    cell = min(float(u[1] - u[0]), float(v[1] - v[0]))
    seen = points[:2000]
    panel.scatter(seen[:, 0], seen[:, 1], s=4, c=paper.RED, alpha=0.6, linewidths=0)
    panel.quiver(
        *at.T.numpy(), *(s * cell).T.numpy(), angles="xy", scale_units="xy", scale=1,
        color=paper.ink(panel), width=0.004,
    )  # fmt: skip
    even = abs((ends[0][1] - ends[0][0]) / (ends[1][1] - ends[1][0]) - 1) < 1e-6
    panel.set(xlim=ends[0], ylim=ends[1], aspect="equal" if even else "auto")
    if names:
        panel.set(xlabel=paper.plain(names[0]), ylabel=paper.plain(names[1]))
    below(panel, f"an arrow of median length is a score of {usual:.2g}")
    panel.set_title(f"t = {t:.3g}" if title is None else title, fontsize="medium")
    return drawn


@door
def trajectory(
    states: Iterable[StateLike],
    *,
    transform: Transform | None = None,
    density: Target | None = None,
    n: int | None = None,
    names: Sequence[str] = (),
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw a run from noise to data: paths of particles, or a strip of images, signals, volumes.

    If the first states are far wider than the last states, the axes are logarithmic outside the
    range of the last states.

    Args:
        states: The states that `scoresde.trajectory` yields, read once. The drawn samples of all
            states are kept in memory.
        transform: The transform of the data, such as `model.transform`; points and signals are
            drawn in the units of the data. Leave it out for states of `trajectory(units=True)`.
        density: The distribution of the data in the plane, drawn in the background.
        n: The number of samples; by default 60 particles, or 4 rows of a strip.
        names: The names of the entries of particles, of which the first two are drawn; by default
            the names that the model of the run knows.
        title: The title.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        InvalidTypeError: `states` holds something else.
        InvalidValueError: There is no state; a run can be read only once.
        ShapeError: States have different shapes, the density has another event shape, or there are
            more or fewer names than entries.
        NonFiniteError: A state is not finite.

    Examples:
        >>> import scoresde
        >>> from scoresde import plot
        >>> moons = scoresde.targets.TwoMoons()
        >>> run = scoresde.trajectory(moons.at(scoresde.VPSDE()), sampler="heun", n=60, seed=0)
        >>> picture = plot.trajectory(run, density=moons)
    """
    if n is not None:
        check_integer("n", n, 1)
    times, path, columns = paths(states, n, transform)
    if path.ndim > 3 or kind(path.shape[2:]) != "points":
        return _strip(times, path, 8, title, ax)
    path = path.reshape(len(path), path.shape[1], -1)
    size, names = path.shape[2], names or columns
    _check_plane(size, density, names)
    path, notes = path[..., :2], [f"the first 2 of {size} entries"] if size > 2 else []
    if path.shape[2] == 1:
        drawn, (panel,) = paper.sheet(ax, (6.5, 4))
        panel.plot(times, path[:, :, 0], color=paper.GREY, linewidth=0.7, alpha=0.5)
        panel.scatter([times[-1]] * path.shape[1], path[-1, :, 0], s=9, c=paper.RED, zorder=3)
        panel.set(xlabel="time", ylabel=paper.plain(names[0]) if names else "")
        low, high = float(times.min()), float(times.max())
        panel.set_xlim(high, low if low < high else high - 1)
        notes += share_axis([panel], path)
    else:
        drawn, (panel,) = paper.sheet(ax, (5.8, 5))
        start, end = path[0].T, path[-1].T
        inner = squared([*map(ends_of, end)])
        if density is not None:
            law = frame_of({"": path[-1]}, density)
            shade(panel, density.log_prob, law)
            inner = [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(inner, law, strict=True)]
        panel.plot(path[:, :, 0], path[:, :, 1], color=paper.GREY, linewidth=0.6, alpha=0.5)
        panel.scatter(
            start[0], start[1], s=10, facecolors="none", edgecolors=paper.INK, linewidths=0.6,
            label="start",
        )  # fmt: skip
        panel.scatter(end[0], end[1], s=10, c=paper.RED, linewidths=0, zorder=3, label="end")
        panel.set_box_aspect(1)
        outer = squared([ends_of(part) for part in path.movedim(2, 0)])
        axes = zip((panel.xaxis, panel.yaxis), inner, outer, strict=True)
        notes += [note for axis in axes for note in stretch(*axis)][:1]
        both = names or (["$x_1$", "$x_2$"] if size > 2 else [])
        if both:
            panel.set(xlabel=paper.plain(both[0]) if names else both[0])
            panel.set(ylabel=paper.plain(both[1]) if names else both[1])
        paper.legend(panel)
    below(panel, "; ".join(notes))
    paper.headline(drawn, title, panel)
    return drawn


@door
def strip(
    states: Iterable[StateLike],
    *,
    transform: Transform | None = None,
    n: int = 1,
    steps: int = 8,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw the states of images, signals or volumes from noise to data, one row for each sample.

    The limits of images and volumes are chosen at each time, since noise may be far wider than
    data. Signals have one axis for all times, which is logarithmic outside the range of the last
    states if the first states are far wider.

    Args:
        states: The states that `scoresde.trajectory` yields, read once.
        transform: The transform of the data, as for `trajectory`.
        n: The number of samples, at least 1.
        steps: The number of states, evenly spaced from the first to the last, at least 2.
        title: The title.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        InvalidValueError: There is no state, or a number is out of range.
        ShapeError: The states have different shapes.
        NonFiniteError: A state is not finite.
    """
    times, path, _ = paths(states, check_integer("n", n, 1), transform)
    return _strip(times, path, check_integer("steps", steps, 2), title, ax)


def _check_plane(d: int, density: Target | None, names: Sequence[str]) -> None:
    """Raise ShapeError unless a density is in the plane, and there is a name for each entry."""
    if density is not None and (d != 2 or density.event_shape != (2,)):
        raise ShapeError(
            f"a density is drawn in the plane, for events of shape (2,); got a density of shape "
            f"{density.event_shape} for points of {d} entries"
        )
    if names and len(names) != d:
        raise ShapeError(f"need a name for each of the {d} entries, got {len(names)}")


def _strip(times: Tensor, path: Tensor, steps: int, title: str | None, ax: Axes | None) -> Figure:
    chosen = torch.linspace(0, len(path) - 1, min(steps, len(path))).round().long()
    labels = words(times.tolist())
    heads = [labels[i] for i in chosen]
    rows = path[chosen]
    what = kind(path.shape[2:])
    if what in ("images", "volumes"):
        # black and white are the limits of 99 % of the values, but at least -1 and 1
        reach = [max(1.0, *map(abs, paper.span(row.flatten()))) for row in rows]
        x = torch.stack([row / far for row, far in zip(rows, reach, strict=True)], 1)
        draw = images if what == "images" else volumes
        side = len(chosen) * (x.shape[-1] if what == "images" else sum(x.shape[-2:]) + x.shape[-1])
        scale = None if what == "images" else math.ceil(_WIDE / side)
        return draw(
            x.flatten(0, 1), columns=len(chosen), scale=scale, limits=(-1.0, 1.0), title=title,
            ax=ax, labels=heads + [""] * (len(chosen) * (len(x) - 1)),
        )  # fmt: skip
    size = (1.9 * len(chosen), 2.4)
    drawn, panels = paper.sheet(ax, size, 1, len(chosen))
    for panel, word, row in zip(panels, heads, rows, strict=True):
        lines = row.reshape(len(row), -1, row.shape[-1] if row.ndim > 1 else 1)
        channels = lines.shape[1]
        for c in range(channels):
            # take other colours than the colours of data and samples
            tone = paper.RED if channels == 1 else paper.COLOURS[2:][c % (len(paper.COLOURS) - 2)]
            first, *_ = panel.plot(lines[:, c].T, color=tone, linewidth=1)
            if channels > 1:
                first.set_label(f"channel {c}")
        panel.set_title(word, fontsize="small")
        panel.tick_params(labelsize="x-small")
        panel.grid(alpha=0.3, color=paper.GREY)
    notes = share_axis(panels, rows)
    for panel in panels[1:]:
        panel.set_yticklabels([])
    below(panels[len(panels) // 2], "; ".join(notes))
    paper.legend(panels[-1])
    paper.headline(drawn, title, ax)
    return drawn

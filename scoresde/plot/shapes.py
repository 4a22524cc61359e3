"""Samples of any shape: which picture suits them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from scoresde.checks import door
from scoresde.plot import paper
from scoresde.plot.kinds import USUAL, kind
from scoresde.plot.lines import beside, signals
from scoresde.plot.mosaic import images, volumes
from scoresde.plot.paper import Axes, Figure
from scoresde.plot.scatter import frame_of, points
from scoresde.plot.sets import Labels, Sets, given, words_of
from scoresde.targets import Target
from scoresde.units import Transform

__all__ = ["USUAL", "kind", "samples"]


@door
def samples(
    x: Sets,
    *,
    transform: Transform | None = None,
    density: Target | None = None,
    names: Sequence[str] = (),
    labels: Labels = (),
    columns: int | None = None,
    scale: int | None = None,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw samples of any shape: points, signals, images or volumes, as `kind` says.

    Several sets by name stand beside each other in one frame, as data beside samples. What an
    option does not apply to leaves it.

    Args:
        x: `(N, *)`, a tensor, an array, a list or `scoresde.data.Data`; or several sets by name. Of
            data the first 10,000 are drawn, in their own units, with the names of their columns.
        transform: the map to the units of the data, in which they are then drawn; that of a model
            is `model.transform`.
        density: the true law of points on the line or in the plane.
        names: what the entries of points, or the channels of signals, are.
        labels: what each sample is, `(N,)`, words or integers: above images, in colours of their
            own among points and signals. They hold for every set.
        columns: images per row.
        scale: how many pixels a side of one pixel of an image gets.
        limits: what is black and white of images; without it as `images` has it.
        title: written above.
        ax: where to draw; a new figure without it.

    Returns:
        The figure.

    Raises:
        ShapeError: there is no number, or sets or an option are of another shape.
        InvalidTypeError: `x` is of another type.
        NonFiniteError: a number is NaN or infinite.
        InvalidValueError: there is nothing to show, or an option is out of range.

    Examples:
        >>> import torch
        >>> from scoresde import plot
        >>> x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> picture = plot.samples({"data": x, "samples": x + 0.1})
    """
    found = given("samples", x, transform)
    sets, first, names = found.sets, found.first, names or found.names
    event = tuple(first.shape[1:])
    what = kind(event)
    words = words_of(labels, sets)
    alone = list(sets) == [""]
    if what in ("images", "volumes"):
        if what == "images" and len(event) == 2:
            sets = {label: part[:, None] for label, part in sets.items()}
        draw = images if what == "images" else volumes
        return draw(
            sets[""] if alone else sets, columns=columns, scale=scale,
            limits=found.limits if limits is None else limits, labels=words, title=title, ax=ax,
        )  # fmt: skip
    if what == "signals":
        sets = {k: v[:, None] if len(event) == 1 else v for k, v in sets.items()}
        names = names if len(names) == next(iter(sets.values())).shape[1] else ()
        if len(sets) > 1 and ax is None:
            return beside(sets, names, words, title)
        return signals(sets, title=title, ax=ax, labels=words, names=names)
    sets = {k: v.reshape(len(v), -1) for k, v in sets.items()}
    size = next(iter(sets.values())).shape[1]
    frame = frame_of(sets, density)
    draw_points = partial(points, density=density, names=names, labels=words, frame=frame)
    if len(sets) == 1 or size != 2 or ax is not None:
        return draw_points(sets[""] if alone else sets, title=title, ax=ax)
    drawn, panels = paper.sheet(None, (4.4 * len(sets), 4.6), 1, len(sets))
    for i, (panel, (label, part)) in enumerate(zip(panels, sets.items(), strict=True)):
        draw_points(part, ax=panel, title=paper.plain(label))
        if words and i < len(sets) - 1:
            panel.legend_ = None  # the last one has it
        elif not words:
            panel.collections[-1].set_facecolor(paper.colour(i, len(sets)))
    if title is not None:
        drawn.suptitle(title, fontsize="medium", color=paper.INK)
    return drawn

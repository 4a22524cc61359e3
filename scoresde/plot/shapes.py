"""Draw samples of any shape by the picture for their kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.plot import paper
from scoresde.plot.kinds import USUAL, kind
from scoresde.plot.lines import LINES, beside, signals
from scoresde.plot.mosaic import images, volumes
from scoresde.plot.paper import Axes, Figure
from scoresde.plot.scatter import frame_of, points
from scoresde.plot.sets import Labels, Sets, given, groups, tones_of, words_of
from scoresde.targets import Target
from scoresde.units import Transform

__all__ = ["USUAL", "kind", "samples"]

# Bands of at most this many classes of signals are drawn side by side.
_BESIDE = 4


@door
def samples(
    x: Sets,
    *,
    transform: Transform | None = None,
    density: Target | None = None,
    known: Tensor | None = None,
    names: Sequence[str] = (),
    labels: Labels = (),
    columns: int | None = None,
    scale: int | None = None,
    limits: tuple[float, float] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw samples of any shape: points, signals, images or volumes, chosen by `kind`.

    Several sets by name, such as data and samples, are drawn side by side with the same axes. Sets
    of images may differ in size, such as images and measurements of them. Options that do not apply
    to a kind are ignored.

    Args:
        x: `(N, *)`, a tensor, an array, a list or `scoresde.data.Data`; or several sets by name.
            The first 10,000 samples of data are drawn, in their own units, with the names of their
            columns.
        transform: The transform of the data, such as `model.transform`; samples are drawn in the
            units of the data.
        density: The true distribution of points on the line or in the plane.
        known: The known values of one signal or image, in the units of the data, NaN where nothing
            is known. They are drawn as dots over the signals, or as the first of the images. Beside
            several sets of images they are a set of their own, named "known".
        names: The names of the entries of points, or of the channels of signals. For signals they
            are ignored if there are more or fewer names than channels.
        labels: A label of each sample, `(N,)`, strings or integers, or data with these classes.
            Labels are written above images, and shown as colours of points and signals. The same
            labels are used for every set.
        columns: The number of images per row.
        scale: The magnification of an image's pixels.
        limits: The values of black and white of images, for example `(0, 255)` for floats from 0 to
            255; by default as in `images`.
        title: The title.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        ShapeError: A set is empty, sets that are not images differ in shape, or an option has
            another shape.
        InvalidTypeError: `x` has another type.
        NonFiniteError: A number is NaN or infinite.
        InvalidValueError: `x` is an empty mapping, an option is out of range, or `known` is given
            with labels, or with a set named "known", for several sets of images.

    Examples:
        >>> import torch
        >>> from scoresde import plot
        >>> x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> picture = plot.samples({"data": x, "samples": x + 0.1})
    """
    found = given("samples", x, transform, sizes=True)
    sets, first, names = found.sets, found.first, names or found.names
    event = tuple(first.shape[1:])
    what = kind(event)
    words = words_of(labels, sets)
    alone = list(sets) == [""]
    if what in ("images", "volumes"):
        if known is not None:
            if known.numel() != math.prod(event):
                raise ShapeError(f"known must be of shape {event}, got {tuple(known.shape)}")
            middle = float(first.amin() + first.amax()) / 2
            part = known.detach().cpu().double().nan_to_num(nan=middle).reshape(1, *event)
            if alone:
                sets = {"": torch.cat([part, first])}
                words = words_of(["known", *(words or [""] * len(first))], sets)
            elif words or "known" in sets:
                raise InvalidValueError(
                    'known is drawn as a set "known" beside the others, which must have other '
                    "names and no labels"
                )
            else:
                sets = {"known": part, **sets}
        if what == "images":
            sets = {k: part[:, None] if part.ndim == 3 else part for k, part in sets.items()}
        draw = images if what == "images" else volumes
        return draw(
            sets[""] if alone else sets, columns=columns, scale=scale,
            limits=found.limits if limits is None else limits, labels=words, title=title, ax=ax,
        )  # fmt: skip
    if what == "signals":
        sets = {k: v[:, None] if len(event) == 1 else v for k, v in sets.items()}
        names = names if len(names) == next(iter(sets.values())).shape[1] else ()
        parts = groups(sets, words)
        bands = max(map(len, parts.values())) > LINES
        if alone and ax is None and 1 < len(parts) <= _BESIDE and bands:
            return beside(parts, names, [], title, known)  # bands of classes would overlap
        if len(sets) > 1 and ax is None:
            return beside(sets, names, words, title, known)
        return signals(
            x if alone else sets, transform=transform if alone else None, title=title, ax=ax,
            known=known, labels=words, names=names,
        )  # fmt: skip
    sets = {k: v.reshape(len(v), -1) for k, v in sets.items()}
    size = next(iter(sets.values())).shape[1]
    frame = frame_of(sets, density)
    draw_points = partial(points, density=density, names=names, labels=words, frame=frame)
    if len(sets) == 1 or size != 2 or ax is not None:
        if alone:
            return draw_points(x, transform=transform, title=title, ax=ax)
        return draw_points(sets, title=title, ax=ax)
    drawn, panels = paper.sheet(None, (4.4 * len(sets), 4.9), 1, len(sets))
    tones = tones_of(sets, ())
    dot = min(25.0, max(1.0, 8_000 / max(map(len, sets.values()))))
    for i, (panel, (label, part)) in enumerate(zip(panels, sets.items(), strict=True)):
        draw_points(part, ax=panel, title=paper.plain(label))
        for dots in panel.collections:
            dots.set(sizes=[dot])  # the same in every panel
        if words and i < len(sets) - 1:
            panel.legend_ = None  # only the last panel has a legend
        elif not words:
            panel.collections[-1].set_facecolor(tones[label])
    paper.headline(drawn, title, None)
    return drawn

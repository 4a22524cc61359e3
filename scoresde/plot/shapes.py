"""Samples of any shape: which picture suits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import ShapeError
from scoresde.plot import paper
from scoresde.plot.lines import beside, signals
from scoresde.plot.mosaic import images, volumes
from scoresde.plot.paper import Axes, Figure, Sets
from scoresde.plot.scatter import MOST, frame_of, points
from scoresde.targets import Target
from scoresde.units import Transform

__all__ = ["USUAL", "Kind", "kind", "samples"]

Kind = Literal["points", "signals", "images", "volumes"]

USUAL: Mapping[Kind, int] = {"points": 1000, "signals": 12, "images": 16, "volumes": 4}
"""How many samples one picture shows well: points as many as show a law, signals one by one."""


@door
def kind(event_shape: Sequence[int]) -> Kind:
    """Return what samples of a shape are drawn as.

    Up to six numbers are points, more of them one signal. `(C, T)` is a signal of C channels where
    C is 1, or at most 8 and T twice as much or more; any other matrix is an image. `(C, H, W)` is
    an image, and what has more axes a volume.

    Args:
        event_shape: That of one sample.

    Examples:
        >>> from scoresde import plot
        >>> [plot.kind(shape) for shape in [(2,), (2, 100), (28, 28), (3, 8, 8), (1, 4, 4, 4)]]
        ['points', 'signals', 'images', 'images', 'volumes']
    """
    shape = tuple(event_shape)
    if len(shape) == 2:
        c, t = shape
        return "signals" if c == 1 or (c <= 8 and t >= 2 * c) else "images"
    if len(shape) <= 1:
        return "points" if sum(shape) <= MOST else "signals"
    return "images" if len(shape) == 3 else "volumes"


@door
def samples(
    x: Sets,
    *,
    transform: Transform | None = None,
    density: Target | None = None,
    names: Sequence[str] = (),
    labels: Sequence[str] = (),
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
        x: `(N, *)`, or several sets by name.
        transform: the map to the units of the data, in which they are then drawn; that of a model
            is `model.transform`.
        density: the true law of points on the line or in the plane.
        names: what the entries of points, or the channels of signals, are.
        labels: what each sample is, `(N,)`: above images, in colours of their own among points and
            a few signals.
        columns: images per row.
        scale: how many pixels a side of one pixel of an image gets.
        limits: what is black and white of images. Without it that of the transform where it tells;
            else 0 and 255 of bytes, -1 and 1 where the values reach between 0.5 and 1.5 from 0, and
            for others 99 % of them, in colours with a scale.
        title: written above.
        ax: where to draw; a new figure without it.

    Returns:
        The figure.

    Raises:
        ShapeError: there is no number, or sets or an option are of another shape.
        NonFiniteError: a number is NaN or infinite.
        InvalidValueError: there is nothing to show, or an option is out of range.

    Examples:
        >>> from scoresde import plot
        >>> x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
        >>> picture = plot.samples({"data": x, "samples": x + 0.1})
    """
    sets = {str(k): v for k, v in (x if isinstance(x, Mapping) else {"": x}).items()}
    bytes_ = any(isinstance(part, Tensor) and part.dtype == torch.uint8 for part in sets.values())
    sets = paper.sets_of("samples", sets)
    if transform is not None:
        if limits is None and transform.levels is not None:
            low, high = transform.inverse(torch.tensor([-1.0, 1.0], dtype=torch.float64)).tolist()
            limits = (low, high)
        sets = paper.sets_of("samples", {k: transform.inverse(v) for k, v in sets.items()})
    event = tuple(next(iter(sets.values())).shape[1:])
    what = kind(event)
    if labels and any(len(labels) != len(part) for part in sets.values()):
        raise ShapeError(f"need a label for each of the samples, got {len(labels)}")
    if what in ("images", "volumes"):
        if limits is None:
            limits = (0.0, 255.0) if bytes_ else _usual(torch.cat([*sets.values()]))
        draw = images if what == "images" else volumes
        return draw(
            sets if isinstance(x, Mapping) else sets[""], columns=columns, scale=scale,
            limits=limits, labels=labels, title=title, ax=ax,
        )  # fmt: skip
    if what == "signals":
        flat = len(event) == 1
        if len(sets) > 1 and ax is None:
            parts = {k: v[:, None] if flat else v for k, v in sets.items()}
            return beside(parts, () if flat else names, title)
        return signals(
            sets if isinstance(x, Mapping) else sets[""], title=title, ax=ax, labels=labels,
            names=() if flat else names,
        )  # fmt: skip
    sets = {k: v.reshape(len(v), -1) for k, v in sets.items()}
    frame = frame_of(sets, density)
    if labels and len(sets) == 1:
        own = next(iter(sets.values()))
        sets = {
            word: own[[i for i, label in enumerate(labels) if label == word]]
            for word in dict.fromkeys(labels)
        }
        sets = sets if len(sets) <= len(paper.COLOURS) else {"": own}
    elif len(sets) > 1 and frame_size(sets) == 2 and ax is None:
        drawn, panels = paper.sheet(None, (4.4 * len(sets), 4.6), 1, len(sets))
        for i, (panel, (label, part)) in enumerate(zip(panels, sets.items(), strict=True)):
            points(
                part, density=density, names=names, frame=frame, ax=panel, title=paper.plain(label)
            )
            panel.collections[-1].set_facecolor(paper.colour(i, len(sets)))
        if title is not None:
            drawn.suptitle(title, fontsize="medium", color=paper.INK)
        return drawn
    return points(
        sets if list(sets) != [""] else sets[""], density=density, names=names, frame=frame,
        title=title, ax=ax,
    )  # fmt: skip


def frame_size(sets: Mapping[str, Tensor]) -> int:
    """Return how many entries points have."""
    return next(iter(sets.values())).shape[1]


def _usual(x: Tensor) -> tuple[float, float] | None:
    """Return the limits of images in [-1, 1], or None where the values do not look like that."""
    reach = max(map(abs, paper.span(x.flatten())))
    return (-1.0, 1.0) if 0.5 <= reach <= 1.5 else None

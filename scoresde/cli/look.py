"""How the command line draws samples: their units, names and conditions, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from scoresde import plot
from scoresde.plot.paper import SUFFIXES
from scoresde.score import ScoreModel
from scoresde.sde import Classes, Field, facts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "Look", "picture"]

PICTURES = SUFFIXES
"""The endings of pictures."""

_NAMED = 36  # images above which conditions are written


@dataclass(frozen=True)
class Look:
    """Describe how samples are drawn.

    Args:
        scale: Pixels of the picture along a side of one pixel.
        columns: Images side by side.
        given: Their conditions by name, one row for each or one for all.
    """

    scale: int | None = None
    columns: int | None = None
    given: Mapping[str, Tensor] = field(default_factory=dict)


def picture(tensors: Mapping[str, Tensor], model: ScoreModel, look: Look) -> Figure:
    """Return the picture of samples `x` in the numbers of the model, and of their labels `y`."""
    x = tensors["x"]
    declared = facts(model).conditions or {}
    given = dict(look.given)
    if "y" in tensors and "label" in declared:
        given["label"] = tensors["y"]
    of_all = {k: v for k, v in given.items() if len(v) == 1 or bool((v == v[:1]).all())}
    title = ", ".join(_said(name, declared[name], value[0]) for name, value in of_all.items())
    own = {k: v for k, v in given.items() if k not in of_all}
    few = len(x) <= _NAMED or plot.kind(model.event_shape) == "points"
    labels = [
        ", ".join(_said(name, declared[name], value[i]) for name, value in own.items())
        for i in range(len(x) if own and few else 0)
    ]
    return plot.samples(
        x, transform=model.transform, names=model.columns, labels=labels, scale=look.scale,
        columns=look.columns, title=title or None,
    )  # fmt: skip


def _said(name: str, kind: Classes | Field, value: Tensor) -> str:
    """Return a condition in words: a class by its name, and at most three numbers."""
    if isinstance(kind, Classes):
        k = int(value)
        return "missing" if k < 0 else kind.names[k] if kind.names else f"{name} {k}"
    numbers = [f"{number:.3g}" for number in value.flatten()[:3].tolist()]
    if kind.names:
        numbers = [f"{word} {number}" for word, number in zip(kind.names, numbers, strict=False)]
        return f"{', '.join(numbers)}{', …' if value.numel() > 3 else ''}"
    more = ", …" if value.numel() > 3 else ""
    return f"{name} = {', '.join(numbers)}{more}"

"""Make pictures of samples for the command line, with their units, names and conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde import plot
from scoresde.cli.held_out import Asked
from scoresde.data import Data, order
from scoresde.errors import InvalidValueError
from scoresde.plot.paper import SUFFIXES
from scoresde.plot.sets import MISSING
from scoresde.score import ScoreModel
from scoresde.sde import Classes, Field, class_name, facts
from scoresde.units import Transform

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "PictureOptions", "data_beside", "in_words", "picture", "rounded"]

PICTURES = SUFFIXES
"""The suffixes of pictures."""

_NAMED = 64  # the largest number of images or signals with their conditions beside them


@dataclass(frozen=True)
class PictureOptions:
    """Hold the options of a picture of samples.

    Args:
        scale: The side of one pixel of an image, in pixels of the picture.
        columns: The number of images side by side.
        given: The conditions of the samples by name, one row for each or one for all.
        known: The known values of one sample, in the units of the data, NaN where nothing is known.
        beside: Data that are drawn beside the samples; with them no conditions are shown.
        round: Round the columns in which the data had only integers.
    """

    scale: int | None = None
    columns: int | None = None
    given: Mapping[str, Tensor] = field(default_factory=dict)
    known: Tensor | None = None
    beside: Data | None = None
    round: bool = True


def picture(tensors: Mapping[str, Tensor], model: ScoreModel, options: PictureOptions) -> Figure:
    """Return the picture of samples `x` in model units, with their labels `y`."""
    x = tensors["x"]
    given = dict(options.given)
    if "y" in tensors and (name := class_name(facts(model).conditions or {})) is not None:
        given[name] = tensors["y"]
    title, labels = in_words(given, model, len(x))
    labels = labels if options.beside is None else []
    transform: Transform | None = model.transform
    if options.round and model.whole:
        x, transform = rounded(model.transform.inverse(x), model), None
    sets = x if options.beside is None else {"data": options.beside, "samples": x}
    return plot.samples(
        sets, transform=transform, known=options.known, names=model.columns, labels=labels,
        scale=options.scale, columns=options.columns, title=title or None,
    )  # fmt: skip


def in_words(given: Mapping[str, Tensor], model: ScoreModel, n: int) -> tuple[str, list[str]]:
    """Return the conditions that n samples have in common, and the other conditions of each sample.

    The second result is empty if all conditions are common, or if there are too many samples to
    write the conditions of each.

    Args:
        given: The conditions by name, one row for each sample or one for all.
        model: The model that takes them.
        n: The number of samples.
    """
    declared = facts(model).conditions or {}
    of_all = {k: v for k, v in given.items() if len(v) == 1 or bool((v == v[:1]).all())}
    title = ", ".join(_in_words(name, declared[name], value[0]) for name, value in of_all.items())
    of_each = {k: v for k, v in given.items() if k not in of_all}
    few = n <= _NAMED or plot.kind(model.event_shape) == "points"
    labels = [
        ", ".join(_in_words(name, declared[name], value[i]) for name, value in of_each.items())
        for i in range(n if of_each and few else 0)
    ]
    return title, labels


def rounded(x: Tensor, model: ScoreModel) -> Tensor:
    """Return rows in the units of the data, with the columns of integers rounded."""
    whole = torch.tensor([name in model.whole for name in model.columns], dtype=torch.bool)
    return x.where(~whole, x.round()) if model.whole else x


def data_beside(asked: Asked, model: ScoreModel, given: Mapping[str, Tensor]) -> Data:
    """Return data in a random order, to be drawn beside samples.

    If all samples have the same class, the data have that class too.

    Args:
        asked: The data.
        model: The model.
        given: The conditions of the samples, one row for each or one for all.

    Raises:
        InvalidValueError: No sample of the data has the class.
    """
    data = asked.data
    data = data[order(len(data), seed=0, epoch=0)]
    for name, kind in (facts(model).conditions or {}).items():
        value, rows = given.get(name), data.conditions.get(name)
        if not isinstance(kind, Classes) or value is None or not isinstance(rows, Tensor):
            continue
        if bool((value == value[0]).all()) and value[0] >= 0:
            same = (rows == value[0].to(rows.device)).nonzero().flatten()
            if not len(same):
                word = _in_words(name, kind, value[0])
                raise InvalidValueError(f"{asked.source} has no sample of the class {word}")
            data = data[same]
    return data


def _in_words(name: str, kind: Classes | Field, value: Tensor) -> str:
    """Return a condition as text: a class by its name, or at most three numbers."""
    if isinstance(kind, Classes):
        k = int(value)
        return MISSING if k < 0 else kind.names[k] if kind.names else f"{name} {k}"
    numbers = [f"{number:.3g}" for number in value.flatten()[:3].tolist()]
    if kind.names:
        numbers = [f"{word} {number}" for word, number in zip(kind.names, numbers, strict=False)]
        return f"{', '.join(numbers)}{', …' if value.numel() > 3 else ''}"
    more = ", …" if value.numel() > 3 else ""
    return f"{name} = {', '.join(numbers)}{more}"

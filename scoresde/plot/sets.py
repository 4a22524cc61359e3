"""Convert samples of any type, and their labels, to what the pictures draw."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import as_numbers, quoted
from scoresde.data import Data
from scoresde.data.column_order import in_columns
from scoresde.data.nearer import nearer
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.plot import paper
from scoresde.plot.kinds import kind
from scoresde.sde import class_name
from scoresde.units import Transform

__all__ = ["MISSING", "Given", "Labels", "Sets", "Words", "given", "groups", "tones_of", "words_of"]

Sets: TypeAlias = Any
"""Samples `(N, *)`: a tensor, an array, a list of numbers or data; or several sets by name."""

Labels: TypeAlias = Any
"""Labels of samples: strings or integers, as a sequence, an array or a tensor `(N,)`; or data,
whose classes are used as labels."""

MISSING = "missing"
"""The label of samples without a class: grey, after all classes."""

# The largest number of samples that are read from data.
_MOST = 10_000


@dataclass(frozen=True, eq=False)
class Given:
    """Hold checked samples in the units of the data.

    Attributes:
        sets: Samples `(N, *)` by name, float64 on the CPU; a single set has the empty name.
        names: The names of the entries of a sample, if the data have names.
        limits: The smallest and the largest value, if the type or the transform determines them.
        of_data: True if the first set is `Data`.
    """

    sets: dict[str, Tensor]
    names: tuple[str, ...]
    limits: tuple[float, float] | None
    of_data: bool

    @property
    def first(self) -> Tensor:
        """Return the first set."""
        return next(iter(self.sets.values()))


def given(name: str, x: Sets, transform: Transform | None = None, *, sizes: bool = False) -> Given:
    """Return checked samples in the units of the data.

    Samples of `Data` and bytes are in these units already. The inverse of `transform` converts
    other samples. If no `transform` is given, and samples are drawn beside data, samples in model
    units are recognised by their mean and spread, and converted.

    Args:
        name: The name of the samples in errors.
        x: The samples, see `Sets`.
        transform: The transform of the data.
        sizes: Allow sets of images of different shapes.

    Raises:
        InvalidTypeError: `x` has another type.
        InvalidValueError: `x` is an empty mapping.
        NonFiniteError: A number is NaN or infinite.
        ShapeError: A set is empty, or the sets have events of different shapes.
    """
    parts = x if isinstance(x, Mapping) else {"": x}
    if not parts:
        raise InvalidValueError("there is nothing to show; give at least one set of samples")
    names: tuple[str, ...] = ()
    limits = _ends(transform)
    sets = {}
    data = next((part for part in parts.values() if isinstance(part, Data)), None)
    for label, part in parts.items():
        if isinstance(part, Data):
            part = in_columns(part, names)
            names, limits = names or part.columns, limits or _ends(part.transform)
            part = part.store.read(slice(_MOST))
            inverse = None
        else:
            part = _tensor(name, part)
            inverse = None if transform is None else transform.inverse
        bytes_ = part.dtype == torch.uint8
        if bytes_ and limits is None:
            limits = (0.0, 255.0)
        whole = paper.finite(f"{name} {label}".strip(), part)
        if inverse is not None and not bytes_:
            whole = paper.finite(f"{name} {label}".strip(), inverse(whole))
        elif data is not None and not (bytes_ or isinstance(parts[label], Data)):
            whole = _beside(whole, data)
        sets[str(label)] = whole
    events = {tuple(part.shape[1:]) for part in sets.values()}
    if len(events) > 1 and not (sizes and {*map(kind, events)} == {"images"}):
        shown = " and ".join(map(str, sorted(events)))
        raise ShapeError(f"all sets must have samples of the same shape, got {shown}")
    return Given(sets, names, limits, isinstance(next(iter(parts.values())), Data))


def _beside(x: Tensor, data: Data) -> Tensor:
    """Return samples in the units of the data beside which they are drawn."""
    if x.shape[1:] != data.event_shape:
        return x
    return nearer(x, data.transform.inverse(x).double(), data.store.read(slice(_MOST)))


class Words(list[str]):
    """Hold the labels of samples, and the labels of all classes that the data may have.

    Attributes:
        classes: The labels of all classes, or nothing if they are unknown.
    """

    def __init__(self, words: Iterable[str], classes: Iterable[str] = ()) -> None:
        super().__init__(words)
        self.classes = (*classes,)


def words_of(labels: Labels, sets: Mapping[str, Tensor]) -> Words:
    """Return the labels as strings; for data, return the names of their classes.

    Raises:
        InvalidTypeError: The labels are not a sequence with a word or an integer for each sample.
        InvalidValueError: The data have no classes.
        ShapeError: A set has more or fewer samples than there are labels.
    """
    classes: Sequence[str] = labels.classes if isinstance(labels, Words) else ()
    if isinstance(labels, Data):
        labels, classes = _of_classes(labels)
    if isinstance(labels, (Tensor, np.ndarray)):
        labels = labels.tolist()
    listed = isinstance(labels, Sequence) and not isinstance(labels, str)
    if not listed or any(isinstance(label, list | tuple) for label in labels):
        raise InvalidTypeError(
            f"labels must be a sequence of words or integers, one for each sample, or data with "
            f"classes; got {quoted(labels)}"
        )
    if labels and any(len(labels) != len(part) for part in sets.values()):
        sizes = " and ".join(str(len(part)) for part in sets.values())
        raise ShapeError(f"need a label for each of the samples, {sizes}; got {len(labels)} labels")
    return Words(map(str, labels), classes)


def _of_classes(data: Data) -> tuple[list[str], Sequence[str]]:
    """Return the classes of samples by name, or by number without names, and all classes."""
    if data.label is None:
        raise InvalidValueError(
            "labels=data needs data with classes, but these data have none; give a list of labels"
        )
    name = class_name(data.kinds) or ""
    names = data.names.get(name) or [*map(str, range(getattr(data.kinds[name], "n", 0)))]
    return [names[k] if k >= 0 else MISSING for k in data.label.tolist()], names


def groups(sets: Mapping[str, Tensor], words: Sequence[str]) -> dict[str, Tensor]:
    """Divide the sets by the labels of the samples, into at most as many groups as colours.

    Labels are sorted, so that each has the same colour in any order of the samples.
    """
    return {label: part for label, part in _every(sets, words).items() if len(part)}


def tones_of(
    sets: Mapping[str, Tensor], words: Sequence[str], *, data: bool = False
) -> dict[str, str]:
    """Return the colours of the groups of sets, by their places in the sorted labels.

    If all classes of the data are known, the colour of a class does not depend on which other
    classes are drawn.

    Args:
        sets: Samples by name.
        words: The labels of the samples.
        data: True if a single set is data, and not samples.
    """
    every = _every(sets, words)
    tones = paper.tones(every if words else sorted(every, key=_natural), data=data)
    missing = {f"{name}, {MISSING}" if name else MISSING for name in sets} if words else ()
    return {name: paper.GREY if name in missing else tone for name, tone in tones.items()}


def _every(sets: Mapping[str, Tensor], words: Sequence[str]) -> dict[str, Tensor]:
    """Return the result of `groups`, with empty groups for further classes of the data."""
    if not words:
        return dict(sets)
    most = len(paper.OTHERS)
    kinds = sorted(set(words), key=_natural)
    known = sorted(words.classes if isinstance(words, Words) else (), key=_natural)
    whole = [*known, *(kind for kind in kinds if kind not in known)]
    if len(whole) * len(sets) <= most:
        kinds = whole
    elif len(kinds) * len(sets) > most:
        kinds = kinds[: max(1, most // len(sets) - 1)]
        words = [word if word in kinds else "others" for word in words]
        kinds.append("others")
    rows = {kind: [i for i, word in enumerate(words) if word == kind] for kind in kinds}
    return {
        f"{name}, {kind}" if name else kind: part[index]
        for name, part in sets.items()
        for kind, index in rows.items()
    }


def _natural(word: str) -> tuple[bool, list[tuple[bool, int, str]]]:
    """Return a sort key that puts "label 2" before "label 10", and "missing" last."""
    parts = re.split(r"(\d+)", word)
    whole = [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
    return word == MISSING, whole


def _ends(transform: Transform | None) -> tuple[float, float] | None:
    """Return the smallest and the largest value of quantised data, else None."""
    if transform is None or transform.levels is None:
        return None
    low, high = transform.inverse(torch.tensor([-1.0, 1.0], dtype=torch.float64)).tolist()
    return low, high


def _tensor(name: str, x: Any) -> Tensor:
    if isinstance(x, Tensor):
        return x
    if isinstance(x, (np.ndarray, list, tuple)):
        if isinstance(x, (list, tuple)) and x and all(isinstance(row, Tensor) for row in x):
            if len({tuple(row.shape) for row in x}) > 1:
                raise ShapeError(
                    f"{name} must hold samples of the same shape, got a list of several shapes"
                )
            return torch.stack([*x])
        return as_numbers(name, x)
    raise InvalidTypeError(
        f"{name} must be a tensor, an array, a list of numbers, data, or a mapping from names "
        f"to these, got {quoted(x)}; for a table or a file make scoresde.data.Data(...) first"
    )

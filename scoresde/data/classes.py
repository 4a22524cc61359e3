"""Convert text to labels, and renumber labels to the classes of a model."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scoresde.checks import outside
from scoresde.data.commas import has_comma
from scoresde.data.report import some
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.sde import Classes, Field

__all__ = ["Named", "classes_of", "is_number", "numbered_as", "warn_of_order"]


class Named(NamedTuple):
    """Hold labels with the names of their classes, or vectors with the names of their entries.

    Attributes:
        rows: The labels `(N,)`, integers; or floats `(N, k)`.
        names: The names of the classes in the order of their numbers, or of the k entries.
    """

    rows: Any
    names: tuple[str, ...]


def classes_of(text: Iterable[Any], what: str) -> Named:
    """Convert text to labels, with the classes in sorted order; an empty cell becomes -1.

    Raises:
        InvalidTypeError: More than half of the different texts are numbers.
    """
    cells = [None if cell in (None, "") else str(cell) for cell in text]
    names = sorted({cell for cell in cells if cell is not None})
    words = [name for name in names if not is_number(name)]
    commas = [word for word in words if has_comma(word)]
    if 2 * (len(words) - len(commas)) < len(names):
        odd = [word for word in words if word not in commas]
        advice = "leave cells of missing numbers empty"
        if not odd:
            odd = commas
            advice = "write them with a decimal point and without separators of thousands"
        raise InvalidTypeError(
            f"{what} holds numbers except for {some(map(repr, odd))}; {advice}"
            if odd
            else f"{what} holds numbers that are text; convert them, such as [int(v) for v in y]"
        )
    numbers = {name: k for k, name in enumerate(names)}
    rows = [-1 if cell is None else numbers[cell] for cell in cells]
    return Named(torch.tensor(rows, dtype=torch.int64), tuple(names))


def is_number(cell: str) -> bool:
    """Return True if text can be read as a number, except "1_2", which Python reads as 12."""
    if "_" in cell:
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return True


def numbered_as(name: str, rows: Tensor, old: Classes, kind: Classes) -> Tensor:
    """Renumber labels from the classes `old` to the classes `kind`, by name.

    The numbers stay the same if `old` or `kind` has no names.

    Args:
        name: The name of the condition, for errors.
        rows: Labels `(N,)`, with -1 for missing labels.
        old: The classes of the labels.
        kind: The new classes, such as the classes of a model.

    Raises:
        InvalidValueError: A class of the labels is not in `kind`.
    """
    if not old.names or not kind.names or old.names == kind.names[: old.n]:
        return rows
    used = [old.names[k] for k in torch.unique(rows[rows >= 0]).tolist()]
    if unknown := [word for word in used if word not in kind.names]:
        near = difflib.get_close_matches(unknown[0], kind.names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InvalidValueError(
            f"the condition {name!r} has the classes {some(map(repr, unknown))}{hint} in the data, "
            f"but the classes of the model are {some(map(repr, kind.names))}; rename the classes, "
            "or give numbers of the model's classes"
        )
    places = [kind.names.index(word) if word in kind.names else -1 for word in old.names]
    return torch.tensor([*places, -1])[rows]  # the last entry is used for the label -1


def warn_of_order(
    names: Mapping[str, tuple[str, ...]], known: Mapping[str, Classes | Field], model: str
) -> None:
    """Warn if the classes of data have names, but the classes of a trained model have none.

    Names are numbered in sorted order. There is no warning if the names are the numbers 0, 1, ...

    Args:
        names: The names of the data's classes by condition.
        known: The conditions of the model.
        model: The name of the model, for the warning.
    """
    for name, words in names.items():
        kind = known.get(name)
        if isinstance(kind, Classes) and not kind.names and words != numerals(len(words)):
            warnings.warn(
                f"{model} has {kind.n} classes of {name!r} without names, but the data have "
                f"{len(words)} named classes, which are numbered in sorted order: {words[0]!r} is "
                "0; if the model numbers them differently, give numbers as labels",
                UserWarning,
                stacklevel=outside(),
            )


def numerals(n: int) -> tuple[str, ...]:
    """Return the numbers from 0 to n - 1 as text."""
    return tuple(map(str, range(n)))

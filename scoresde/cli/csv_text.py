"""Write samples that are vectors as the text of a .csv file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor

from scoresde.errors import InvalidValueError
from scoresde.score import ScoreModel
from scoresde.sde import Classes, Field, class_name, facts

__all__ = ["as_csv", "check_vectors", "csv_columns"]


def check_vectors(path: Path, model: ScoreModel) -> None:
    """Raise InvalidValueError if a .csv is to hold samples that are not vectors."""
    if path.suffix == ".csv" and len(model.event_shape) != 1:
        raise InvalidValueError(
            f"a .csv holds vectors, but samples have the shape {model.event_shape}; write .npy"
        )


def csv_columns(model: ScoreModel) -> list[str]:
    """Return the names of the columns of vectors in a .csv file: as in the data, or x0, x1, ..."""
    return list(model.columns) or [f"x{k}" for k in range(math.prod(model.event_shape))]


def as_csv(
    arrays: Mapping[str, Any], model: ScoreModel, given: Mapping[str, Tensor] = MappingProxyType({})
) -> str:
    """Return vectors as the text of a .csv file: a line with the names, then a line per vector.

    Args:
        arrays: The vectors `x`, and their labels `y` if there are any.
        model: The model, which knows the names.
        given: The conditions of the vectors by name, one row for each vector or one row for all.
            Conditions that are numbers, vectors or classes have columns too.
    """
    columns = dict(zip(csv_columns(model), map(_numbers, arrays["x"].T), strict=True))
    kinds = facts(model).conditions or {}
    values = {name: value.numpy() for name, value in given.items()}
    if "y" in arrays:
        values[class_name(kinds) or "label"] = arrays["y"]
    for name, value in values.items():
        rows = np.broadcast_to(value, (len(arrays["x"]), *value.shape[1:]))
        for title, column in _columns(name, rows, kinds.get(name)).items():
            columns[f"{name} {title}" if title in columns else title] = column
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[*columns], *zip(*columns.values(), strict=True)])
    return text.getvalue()


def _columns(name: str, rows: Any, kind: Classes | Field | None) -> dict[str, list[str]]:
    """Return the columns of a condition by title; none for a field of several axes."""
    if isinstance(kind, Field):
        if len(kind.shape) != 1:
            return {}
        titles = kind.names or (
            [name] if kind.shape == (1,) else [f"{name}{k}" for k in range(*kind.shape)]
        )
        return dict(zip(titles, map(_numbers, rows.T), strict=True))
    words = kind.names if kind is not None else ()
    return {name: ["" if k < 0 else words[k] if words else str(k) for k in rows.tolist()]}


def _numbers(column: Any) -> list[str]:
    """Return numbers as text, with the fewest digits from which the same numbers are read."""
    # plus 0, so that a negative zero is 0
    return ["" if number != number else str(number + 0).removesuffix(".0") for number in column]

"""Write samples that are vectors as the text of a .csv file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from scoresde.score import ScoreModel
from scoresde.sde import Classes, class_name, facts

__all__ = ["as_csv", "csv_columns"]


def csv_columns(model: ScoreModel) -> list[str]:
    """Return the names of a vector's entries in a .csv file: those in the data, or x0, x1, ..."""
    return list(model.columns) or [f"x{k}" for k in range(math.prod(model.event_shape))]


def as_csv(arrays: Mapping[str, Any], model: ScoreModel) -> str:
    """Return a line with the names of the columns, and below it a line for each vector."""
    names = csv_columns(model)
    columns = [[f"{number:.9g}" for number in column] for column in arrays["x"].T.tolist()]
    if "y" in arrays:
        kinds = facts(model).conditions or {}
        name = class_name(kinds) or "label"
        kind = kinds.get(name)
        words = kind.names if isinstance(kind, Classes) else ()
        columns.append([words[k] if words else str(k) for k in arrays["y"].tolist()])
        names.append(name)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([names, *zip(*columns, strict=True)])
    return text.getvalue()

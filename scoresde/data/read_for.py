"""Read data in the units of a score, with the conditions that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scoresde.data.classes import warn_of_order
from scoresde.data.column_order import in_columns
from scoresde.data.samples import Data
from scoresde.sde import Score, facts

__all__ = ["read_for"]


def read_for(
    score: Score, x: Tensor | Data, condition: Mapping[str, Any] | None
) -> tuple[Tensor, Mapping[str, Any] | None]:
    """Return samples and conditions; convert a `Data` to the units and classes of the score.

    Columns are matched by name if both data and score have names.

    Args:
        score: The score; its facts may have a transform and conditions.
        x: Samples `(N, *)`, which are not converted, or a `Data`.
        condition: The conditions; None takes the conditions of the data.

    Raises:
        InvalidValueError: The data have a class or a column that the score does not have, or
            numbers outside the range of the score's transform of bytes or other integers.
    """
    if not isinstance(x, Data):
        return x, condition
    known = facts(score)
    x = in_columns(x, known.columns, known.transform)
    if known.transform is not None:
        x = x.units_of(known.transform)
    declared = known.conditions or {}
    if condition is None and (there := declared.keys() & x.conditions.keys()):
        kinds = {name: kind for name, kind in declared.items() if name in there}
        warn_of_order(x.only(there).names, kinds, "the score")
        condition = x.only(there).as_kinds(kinds).condition(slice(None))
    return x.batch(slice(None)), condition

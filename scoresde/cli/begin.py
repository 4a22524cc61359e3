"""Prepare a trained model to continue its training on other data."""

from __future__ import annotations

import torch

from scoresde.data import Data
from scoresde.data.classes import warn_of_order
from scoresde.data.column_order import in_columns
from scoresde.data.layout import laid_as
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.score import ScoreModel
from scoresde.sde import Classes, Field, facts
from scoresde.units import Identity

__all__ = ["begin"]


def begin(source: str, data: Data) -> tuple[ScoreModel, Data]:
    """Return a model extended by the classes of the data, and the data in its units.

    A class that the model knows by name keeps the number that it has in the model. New classes get
    the next numbers. Labels without names keep their numbers: label 3 of the data is label 3 of the
    model. If the model takes labels and the data have none, all labels are missing (-1).

    Args:
        source: A model, as for `ScoreModel.from_pretrained`.
        data: The data to be learnt.

    Raises:
        CheckpointError: There is no such model.
        ShapeError: The samples have another shape than the model's.
        InvalidValueError: The data have a transform, and the model has none; or the data have
            other columns than the model, or numbers outside the range of its transform.

    Warns:
        UserWarning: The classes of the data have names, but the classes of the model have none.
    """
    model = ScoreModel.from_pretrained(source)
    data = in_columns(laid_as(data, model.event_shape), model.columns, model.transform)
    if data.event_shape != model.event_shape:
        raise ShapeError(
            f"the samples have shape {data.event_shape}, but the samples of {source} have "
            f"{model.event_shape}; resize them, image files by --size"
        )
    if model.transform == Identity() != data.transform:
        raise InvalidValueError(
            f"{source} was trained on data without a transform, but these data have "
            f"{data.transform}; give data in the units of that model"
        )
    data = data.units_of(model.transform)
    known = dict(facts(model).conditions or {})
    warn_of_order(data.names, known, source)
    for name, words in data.names.items():
        kind = known.get(name)
        if isinstance(kind, Classes) and kind.names:
            more_names = (*kind.names, *(word for word in words if word not in kind.names))
            known[name] = Classes(len(more_names), more_names)
    data = data.as_kinds(known)
    of_model = facts(model).conditions or {}
    more = {
        name: kind.n
        for name, kind in data.kinds.items()
        if isinstance(kind, Classes) and _is_new(kind, of_model.get(name))
    }
    if more:
        model = model.grown(more)
        model.names = {**model.names, **{k: v for k, v in data.names.items() if k in more}}
    lacking = {k: v for k, v in known.items() if isinstance(v, Classes) and k not in data.kinds}
    if lacking:
        none = {name: torch.full((len(data),), -1) for name in lacking}
        data = Data(data, transform=data.transform, columns=data.columns, kinds=lacking, **none)
    return model, data


def _is_new(kind: Classes, of_model: Classes | Field | None) -> bool:
    """Return True if some of these classes are not in the model."""
    return of_model is None or (isinstance(of_model, Classes) and of_model.n < kind.n)

"""Data that a model is asked about, as its commands read them."""

from __future__ import annotations

from torch import Tensor

from scoresde.data import Data, load
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.score import ScoreModel

__all__ = ["held_out", "labels_of"]


def held_out(source: str, split: str | None, model: ScoreModel) -> Data:
    """The data, in the units of the model.

    Raises:
        ShapeError: Their samples have another shape than the model's.
    """
    data = load(source, split=split).units_of(model.transform)
    if data.event_shape != model.event_shape:
        raise ShapeError(
            f"the samples of {source} have shape {data.event_shape}, "
            f"but the model's have {model.event_shape}"
        )
    return data


def labels_of(data: Data, source: str, model: ScoreModel) -> Tensor | None:
    """Their labels, where the model takes any.

    Raises:
        InvalidValueError: It takes some, and there are none.
    """
    if model.classes is None:
        return None
    if data.label is None:
        raise InvalidValueError(f"the model knows classes, but {source} has no labels")
    return data.label

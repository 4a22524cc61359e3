"""A trained model to begin a run with, and the data as it takes them."""

from __future__ import annotations

import warnings

import torch

from scoresde.checks import outside
from scoresde.data import Data
from scoresde.data.layout import laid_as
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.score import ScoreModel
from scoresde.sde import Classes, Field, facts
from scoresde.units import Identity

__all__ = ["begin"]


def begin(source: str, data: Data) -> tuple[ScoreModel, Data]:
    """Return a model that takes the classes of the data too, and the data in its units.

    Classes with names are those of the same names of the model, and new ones come after its own.
    Labels without names keep their numbers: label 3 of the data is label 3 of the model. Of labels
    that the model takes and the data lack, all are missing.

    Args:
        source: What `ScoreModel.from_pretrained` takes.
        data: What the model is to learn.

    Raises:
        CheckpointError: There is no such model.
        ShapeError: The samples have another shape than the model's.
        InvalidValueError: They have other units, which the model does not know.

    Warns:
        UserWarning: The classes have names, and those of the model, which are more or fewer, none.
    """
    model = ScoreModel.from_pretrained(source)
    data = laid_as(data, model.event_shape)
    if data.event_shape != model.event_shape:
        raise ShapeError(
            f"the samples have shape {data.event_shape}, but those of {source} have "
            f"{model.event_shape}; resize them, image files by --size"
        )
    if model.transform == Identity() != data.transform:
        raise InvalidValueError(
            f"{source} learnt numbers as they were, and these data would be changed by "
            f"{data.transform}; give data in the numbers of that model"
        )
    data = data.units_of(model.transform)
    known = dict(facts(model).conditions or {})
    for name, words in data.names.items():
        kind = known.get(name)
        if isinstance(kind, Classes) and kind.names:
            more_names = (*kind.names, *(word for word in words if word not in kind.names))
            known[name] = Classes(len(more_names), more_names)
        elif isinstance(kind, Classes) and len(words) != kind.n:
            warnings.warn(
                f"{source} knows {kind.n} classes of {name!r} by their numbers, and the data have "
                f"names of {len(words)}, numbered in their order: {words[0]!r} is 0; if their "
                "numbers are others, give the numbers themselves",
                UserWarning,
                stacklevel=outside(),
            )
    data = data.as_kinds(known)
    own = facts(model).conditions or {}
    more = {
        name: kind.n
        for name, kind in data.kinds.items()
        if isinstance(kind, Classes) and _is_new(kind, own.get(name))
    }
    if more:
        model = model.grown(more)
        model.names = {**model.names, **{k: v for k, v in data.names.items() if k in more}}
    lacking = {k: v for k, v in known.items() if isinstance(v, Classes) and k not in data.kinds}
    if lacking:
        none = {name: torch.full((len(data),), -1) for name in lacking}
        data = Data(data, transform=data.transform, columns=data.columns, kinds=lacking, **none)
    return model, data


def _is_new(kind: Classes, own: Classes | Field | None) -> bool:
    """Return whether some of these classes are not the model's own."""
    return own is None or (isinstance(own, Classes) and own.n < kind.n)

"""Data that a model is asked about, as its commands read them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from scoresde.cli.config import RunConfig
from scoresde.cli.options import columns_of
from scoresde.data import Data, load
from scoresde.data.layout import laid_as
from scoresde.errors import InvalidValueError, ScoreSDEError, ShapeError
from scoresde.score import ScoreModel
from scoresde.sde import Classes, Condition, facts

__all__ = ["conditions_of", "held_out", "warn_of_training"]


def held_out(
    source: str,
    split: str | None,
    model: ScoreModel,
    *,
    condition: Sequence[str] = (),
    size: int | None = None,
    usual: str = "test",
) -> Data:
    """The data, in the units of the model.

    Args:
        source: What `scoresde.data.load` takes.
        split: A part of them, or None.
        model: Whose data they are.
        condition: Where their conditions are, as `columns_of` reads it.
        size: Pixels a side that images are resized to, or None.
        usual: The part of a data set of torchvision's where none is named.

    Raises:
        ShapeError: Their samples have another shape than the model's.
    """
    columns = columns_of(condition)
    kinds = {k: v for k, v in (facts(model).conditions or {}).items() if k in columns}
    with warnings.catch_warnings():
        # which axis is which is seen from the model
        warnings.filterwarnings("ignore", message="samples of .* are read as")
        data = load(
            source, condition=columns, kinds=kinds, split=split or _usual(source, usual), size=size
        )
    data = laid_as(data, model.event_shape).units_of(model.transform)
    data = data.as_kinds(facts(model).conditions or {})
    if data.event_shape != model.event_shape:
        raise ShapeError(
            f"the samples of {source} have shape {data.event_shape}, "
            f"but the model's have {model.event_shape}; images are resized by --size"
        )
    return data


def warn_of_training(checkpoint: str, source: str, split: str | None) -> None:
    """Say so where the run's own file names these data as those that were trained on."""
    try:
        run = RunConfig.read(Path(checkpoint) / "config.toml").data
    except ScoreSDEError:  # a model without a run, or the run of another version
        return
    if run.source == source and (split or _usual(source, "test")) == (
        run.split or _usual(source, "train")
    ):
        warnings.warn(
            f"the model was trained on {source}: what it knows by heart looks perfect here; take "
            "data that were kept apart",
            RuntimeWarning,
            stacklevel=2,
        )


def _usual(source: str, split: str) -> str | None:
    """The split of a data set that has some and that none was named of."""
    named = not set(source) & {".", "/", "\\", ":"} and source.lower() != "digits"
    return split if named else None


def conditions_of(data: Data, source: str, model: ScoreModel) -> Condition | None:
    """The conditions of the data that the model takes, of all samples.

    Raises:
        InvalidValueError: It takes one that the data have not, or whose classes may be others.
        ScoreSDEError: They are of another kind.
    """
    declared = facts(model).conditions or {}
    for name, kind in declared.items():
        if name not in data.conditions:
            what = "classes" if name == "label" else f"the condition {name!r}"
            has = "labels" if name == "label" else "such condition"
            raise InvalidValueError(
                f"the model knows {what}, but {source} has no {has}; name its column or its file "
                f"by --condition {name}=..."
            )
        if isinstance(kind, Classes) and len(data.names.get(name, range(kind.n))) != kind.n:
            # names are numbered in their order: without one, others take its number
            raise InvalidValueError(
                f"the model knows {kind.n} classes of {name!r}, but {source} has names of "
                f"{len(data.names[name])}, whose numbers may be others'; give every class a "
                "sample, or the numbers"
            )
    return Condition.of(data.only(declared).condition(slice(None)), len(data), declared)

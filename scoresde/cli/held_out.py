"""Data that a model is asked about, as its commands read them."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from scoresde.cli.config import RunConfig
from scoresde.data import Data, load
from scoresde.errors import InvalidValueError, ScoreSDEError, ShapeError
from scoresde.score import ScoreModel

__all__ = ["held_out", "labels_of", "warn_of_classes", "warn_of_training"]

_UNEVEN = 0.05  # the share of data in excess classes that goes unmentioned


def held_out(
    source: str,
    split: str | None,
    model: ScoreModel,
    *,
    size: int | None = None,
    usual: str = "test",
) -> Data:
    """The data, in the units of the model.

    Args:
        source: What `scoresde.data.load` takes.
        split: A part of them, or None.
        model: Whose data they are.
        size: Pixels a side that images are resized to, or None.
        usual: The part of a data set of torchvision's where none is named.

    Raises:
        ShapeError: Their samples have another shape than the model's.
    """
    data = load(source, split=split or _usual(source, usual), size=size)
    data = data.units_of(model.transform)
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


def warn_of_classes(data: Data, source: str, model: ScoreModel) -> None:
    """Say so where samples of all classes in turn are no samples of the data's law."""
    if model.classes is None or data.label is None:
        return
    share = torch.bincount(data.label, minlength=model.classes) / len(data)
    excess = float((share - 1 / model.classes).clamp_min(0).sum())
    if excess > _UNEVEN:
        warnings.warn(
            f"samples are drawn of all classes in turn, but {source} has {excess:.0%} too many of "
            "some, which the comparison counts as the model's error; take data with as many of "
            "each class, or --samples in the shares of the data",
            RuntimeWarning,
            stacklevel=2,
        )


def _usual(source: str, split: str) -> str | None:
    """The split of a data set that has some and that none was named of."""
    named = not set(source) & {".", "/", "\\", ":"} and source.lower() != "digits"
    return split if named else None


def labels_of(data: Data, source: str, model: ScoreModel) -> Tensor | None:
    """Their labels, where the model takes any.

    Raises:
        InvalidValueError: It takes some, and there are none; or a folder has other classes than
            the model.
    """
    if model.classes is None:
        return None
    if data.label is None:
        raise InvalidValueError(f"the model knows classes, but {source} has no labels")
    if Path(source).is_dir() and data.classes != model.classes:
        # folders are numbered in the order of their names: without one, others take its number
        raise InvalidValueError(
            f"the model knows {model.classes} classes, but {source} has folders of {data.classes}, "
            "whose numbers may be others'; give every class its folder, or the labels in a .npz"
        )
    return data.label

"""Check the arguments of a trainer: the score, the configuration, and whether the data fit both."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from scoresde.checks import check_name, outside, quoted
from scoresde.data import Data
from scoresde.data.column_check import whole_columns
from scoresde.data.column_order import in_columns
from scoresde.data.layout import laid_as
from scoresde.errors import (
    CheckpointError,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    UnknownNameError,
)
from scoresde.score import ScoreModel
from scoresde.score.names import grown_names
from scoresde.sde import SDE, Classes, Field, Moments, facts, process_of
from scoresde.training.config import TrainConfig
from scoresde.units import Identity

__all__ = ["absolute", "adopt", "check_fit", "numbered", "process", "warn_of_moments"]

# A warning is given if the means of data and model differ by more than _MEANS standard deviations,
# if their variances differ by more than a factor _SCALE, or if the variances of the columns of the
# data differ by more than a factor _SPREAD.
_MEANS, _SCALE, _SPREAD = 3.0, 4.0, 100.0


def absolute(folder: str | Path | None) -> Path | None:
    """Return the absolute path of a run's folder, which outlives a change of the working directory.

    Raises:
        InvalidValueError: The path is an empty text, such as an unset variable of a script.
        CheckpointError: The path is relative, and the working directory was removed.
    """
    if folder == "":
        raise InvalidValueError("the folder is an empty text; give a path, or None for no folder")
    try:
        return None if folder is None else Path(folder).absolute()
    except FileNotFoundError as error:
        raise CheckpointError(
            f"the folder {str(folder)!r} is relative, but the working directory was removed; give "
            "an absolute path, or change to a directory that exists"
        ) from error


def process(score: object) -> SDE:
    """Return the SDE that a score belongs to.

    Raises:
        InvalidTypeError: The score is not a module.
        InvalidValueError: The score has no SDE.
    """
    if not isinstance(score, nn.Module):
        raise InvalidTypeError(
            f"a trainer needs a score that is an nn.Module, got {quoted(score)}; train the inner "
            "score and wrap the result, or turn this score into a module"
        )
    try:
        return process_of(score, None)
    except InvalidValueError as error:
        raise InvalidValueError(
            f"{error}: give the module an attribute `facts = Facts(sde=VESDE())`, or make "
            "ScoreModel(net, VESDE(), event_shape) of a network"
        ) from error


def check_fit(score: nn.Module, config: TrainConfig, data: Data) -> None:
    """Raise an error unless the score can be trained on the data.

    Raises:
        ShapeError: The data's events have another shape than the score's.
        DataError: The data's moments overflow.
        UnknownNameError: The data have a condition that the score does not take, or lack a
            condition named in `condition_dropout`.
        InvalidValueError: The score takes a condition that is missing in the data or has another
            form there; or the score was trained on data in other units.
    """
    known = facts(score)
    if known.event_shape is not None and data.event_shape != known.event_shape:
        fits = laid_as(data, known.event_shape).event_shape == known.event_shape
        layout = ", or load the data with their layout=, such as 'HW' or 'TC'" if fits else ""
        raise ShapeError(
            f"the data have events of shape {data.event_shape}, but the score has "
            f"{known.event_shape}; build the score with event_shape=data.event_shape{layout}"
        )
    data.moments()  # raises an error if the moments overflow, which would later give a NaN loss
    if known.conditions is not None:
        _check_conditions(known.conditions, data)
    if isinstance(config.condition_dropout, dict):
        for name in config.condition_dropout:
            check_name("condition", name, data.kinds)
    _check_units(score, data)


def numbered(score: nn.Module, data: Data) -> Data:
    """Return the data with columns and classes in the model's order, matched by name.

    Raises:
        InvalidValueError: The data have a class or a column that the model does not have.
    """
    known = facts(score)
    return in_columns(data, known.columns, known.transform).as_kinds(known.conditions or {})


def adopt(score: nn.Module, data: Data) -> None:
    """Give a `ScoreModel` the transform, classes and columns of its data, and remove its pilot."""
    if not isinstance(score, ScoreModel):
        return
    if data.transform != Identity():
        score.transform = data.transform
    known = facts(score).conditions or {}
    classes = {name: kind.n for name, kind in known.items() if isinstance(kind, Classes)}
    score.names = {**score.names, **grown_names(data.names, classes)}
    if data.columns:
        score.columns, score.whole = data.columns, whole_columns(data)
    score.pilot = None


def _check_units(score: nn.Module, data: Data) -> None:
    """Raise an error if the model was trained on data with another transform."""
    if isinstance(score, ScoreModel):
        known = score.transform
        if Identity() not in (known, data.transform) and known != data.transform:
            raise InvalidValueError(
                f"the model was trained on data with the transform {known}, but these data have "
                f"{data.transform}; train on data.units_of(model.transform)"
            )


def _check_conditions(taken: Mapping[str, Classes | Field], data: Data) -> None:
    """Raise an error unless data and score have the same conditions, by name and kind."""
    for name, of_data in data.kinds.items():
        build = (
            f"num_classes={{{name!r}: {of_data.n}}}"
            if isinstance(of_data, Classes)
            else (f"condition={{{name!r}: {of_data.shape}}}")
        )
        ways = f"build the network with {build}, or train on data.without({name!r})"
        kind = taken.get(name)
        if kind is None:
            raise UnknownNameError(
                f"the data have the condition {name!r}, which the score does not take; {ways}"
            )
        if not _fits(of_data, kind):
            raise InvalidValueError(
                f"the condition {name!r} of the data is {of_data}, but the score takes {kind}; "
                f"{ways}"
            )
    for name, kind in taken.items():
        if name not in data.kinds:
            nothing = "all -1" if isinstance(kind, Classes) else "all NaN"
            raise InvalidValueError(
                f"the score takes the condition {name!r}, {kind}, which the data lack; give "
                f"Data(x, {name}=...), {nothing} if it is never known, or build the network "
                "without it"
            )


def _fits(of_data: Classes | Field, kind: Classes | Field) -> bool:
    if isinstance(of_data, Classes) and isinstance(kind, Classes):
        return of_data.n <= kind.n
    return of_data == kind


def warn_of_moments(score: nn.Module, data: Data) -> None:
    """Warn if the score assumes other moments than the data's, or the SDE's noise hides columns.

    The loss would not show such a mistake.

    Args:
        score: The score with its moments, the moments of its conditions, and its SDE.
        data: The training data.
    """
    known = facts(score)
    # the transform is affine, so the new std is the transform of mean + std minus that of the mean
    survey = data.survey
    mean, above = data.transform.forward(
        torch.stack([survey.mean, survey.mean + survey.var.sqrt()])
    )
    mean, var = mean.double(), (above - mean).double().square()
    problems = [] if known.moments is None else _disagreements(known.moments, mean, var)
    if known.sde is not None:
        problems += _hidden(known.sde, _columns(var).sqrt())
    if isinstance(score, ScoreModel) and known.conditions is not None:
        problems += _units(score.condition_units.moments(), data)
    for problem in problems:
        warnings.warn(problem, UserWarning, stacklevel=outside())


def _disagreements(moments: Moments, mean: Tensor, var: Tensor) -> list[str]:
    """Return a sentence for each clear difference between the assumed moments and the data's."""
    found = []
    assumed = moments.var if moments.cov is None else moments.cov.diagonal()
    assumed = torch.as_tensor(assumed).cpu().double()
    of_model, theirs = float(assumed.mean()), float(var.mean())
    off = float((mean - torch.as_tensor(moments.mean).cpu().double()).abs().max()) / of_model**0.5
    cure = "give the model moments=Moments(*data.moments()), or standardise the data"
    if off > _MEANS:
        found.append(
            f"the data's mean differs from the mean in the model's moments by up to {off:.3g} "
            f"standard deviations, so samples will not resemble the data; {cure}"
        )
    if theirs and not 1 / _SCALE <= theirs / of_model <= _SCALE:
        found.append(
            f"the data's variance is {theirs:.3g}, but the variance in the model's moments is "
            f"{of_model:.3g}, so samples will not resemble the data; {cure}"
        )
    columns = _columns(var)
    if assumed.numel() == 1 and len(columns) and columns.max() / columns.min() > _SPREAD:
        found.append(
            "the model has one variance for all columns, but the data's variances range from "
            f"{float(columns.min()):.3g} to {float(columns.max()):.3g}, so columns with a small "
            "variance are hardly learnt; standardise the data, by data.standardized() or "
            "`--standardize`"
        )
    return found


def _units(assumed: Mapping[str, tuple[Tensor, Tensor]], data: Data) -> list[str]:
    """Return a sentence for each condition that is not standardised by the model's moments."""
    found = []
    for name, (mean, std) in data.condition_moments().items():
        zero, one = torch.zeros(()), torch.ones(())
        middle, scale = (part.double().cpu() for part in assumed.get(name, (zero, one)))
        off, ratio = float(((mean - middle) / scale).abs().max()), std / scale
        if off > _MEANS or ratio.max() > _SCALE or ratio.min() < 1 / _SCALE:
            found.append(
                f"the network would receive the condition {name!r} with means up to {off:.3g} and "
                f"standard deviations from {float(ratio.min()):.3g} to {float(ratio.max()):.3g}, "
                "but 0 and 1 are best for learning; give the model "
                "condition_moments=data.condition_moments()"
            )
    return found


def _columns(var: Tensor) -> Tensor:
    """Return the positive variances of the columns of vectors, or of the channels of images."""
    columns = var.reshape(len(var), -1).mean(1)
    return columns[columns > 0]


def _hidden(sde: SDE, stds: Tensor) -> list[str]:
    """Return a sentence if columns have standard deviations below the smallest noise."""
    end = torch.tensor(sde.eps, dtype=torch.float64)
    least = float(sde.sigma(end) / sde.alpha(end))
    lost = int((stds < least).sum())
    if not lost:
        return []
    return [
        f"{lost} of {len(stds)} columns of the data have standard deviations, down to "
        f"{float(stds.min()):.3g}, below the smallest noise, {least:.3g}, and cannot be learnt; "
        "standardise the data, or take an SDE with less noise at eps"
    ]

"""What a trainer is given, checked once: the score, the data, and whether they fit."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from scoresde.checks import quoted
from scoresde.data import Data
from scoresde.errors import InvalidTypeError, InvalidValueError, ScoreSDEError, ShapeError
from scoresde.sde import SDE, Condition, Facts, Moments, facts, process_of
from scoresde.training.config import TrainConfig

__all__ = ["check_fit", "check_kinds", "process", "warn_of_moments"]

_MEANS, _SCALE, _SPREAD = 3.0, 4.0, 100.0


def check_kinds(score: object, config: object) -> None:
    """Raise InvalidTypeError unless the score is a module and the configuration a TrainConfig."""
    if not isinstance(score, nn.Module):
        raise InvalidTypeError(
            f"a trainer trains a score that is an nn.Module, got {quoted(score)}; train the score "
            "inside it and wrap the result, or make the whole a module"
        )
    if not isinstance(config, TrainConfig):
        raise InvalidTypeError(f"config must be a TrainConfig, got {type(config).__name__}")


def process(score: nn.Module) -> SDE:
    """Return the SDE that a score belongs to.

    Raises:
        InvalidValueError: It knows none.
    """
    try:
        return process_of(score, None)
    except InvalidValueError as error:
        raise InvalidValueError(
            f"{error}: as an attribute `facts = Facts(sde=VESDE())` of the module, or by "
            "ScoreModel(net, VESDE(), event_shape) of a network"
        ) from error


def check_fit(score: nn.Module, data: Data) -> None:
    """Refuse data that the score cannot take.

    Raises:
        ShapeError: The events have another shape than those of the score.
        DataError: Their numbers are beyond what a model can have.
        ScoreSDEError: The score takes no labels, or not these.
    """
    known = facts(score)
    if known.event_shape is not None and data.event_shape != known.event_shape:
        raise ShapeError(
            f"the data's events have shape {data.event_shape}, the score's {known.event_shape}; "
            "build the score with event_shape=data.event_shape"
        )
    data.moments()  # numbers without end would only show in the loss
    if data.label is None:
        return
    try:
        Condition.of({"label": data.label}, len(data), known.conditions)
    except ScoreSDEError as error:
        raise type(error)(
            f"the data have labels of {data.classes} classes, and {error}; build the network with "
            f"num_classes={data.classes}, or train on `data.without('label')`"
        ) from error


def warn_of_moments(known: Facts, data: Data, *, stacklevel: int) -> None:
    """Warn where a score was made for data of other moments, which would not show in the loss.

    Args:
        known: What the score knows, moments and process; None is no assumption.
        data: What it is to learn.
        stacklevel: Of the warning.
    """
    # an affine map takes deviations to deviations
    survey = data.survey
    mean, above = data.transform.forward(
        torch.stack([survey.mean, survey.mean + survey.var.sqrt()])
    )
    mean, var = mean.double(), (above - mean).double().square()
    problems = [] if known.moments is None else _disagreements(known.moments, mean, var)
    if known.sde is not None:
        problems += _hidden(known.sde, _columns(var).sqrt())
    for problem in problems:
        warnings.warn(problem, UserWarning, stacklevel=stacklevel + 1)


def _disagreements(moments: Moments, mean: Tensor, var: Tensor) -> list[str]:
    """Say in which ways the moments of the data, `(*event)`, are not those assumed."""
    found = []
    assumed = moments.var if moments.cov is None else moments.cov.diagonal()
    assumed = torch.as_tensor(assumed).double().cpu()
    own, theirs = float(assumed.mean()), float(var.mean())
    off = float((mean - torch.as_tensor(moments.mean).double().cpu()).abs().max()) / own**0.5
    cure = "give the model moments=Moments(*data.moments()), or standardise the data"
    if off > _MEANS:
        found.append(
            f"the data's mean is up to {off:.3g} standard deviations of the model's moments off "
            f"their mean: samples will not be like the data; {cure}"
        )
    if theirs and not 1 / _SCALE <= theirs / own <= _SCALE:
        found.append(
            f"the data's variance is {theirs:.3g} and that of the model's moments {own:.3g}: "
            f"samples will not be like the data; {cure}"
        )
    columns = _columns(var)
    if assumed.numel() == 1 and len(columns) and columns.max() / columns.min() > _SPREAD:
        found.append(
            f"the model has one variance for all columns, and those of the data are from "
            f"{float(columns.min()):.3g} to {float(columns.max()):.3g}: the narrow ones are hardly "
            "learnt; standardise the data, by data.standardized() or `--standardize`"
        )
    return found


def _columns(var: Tensor) -> Tensor:
    """Return the variance of each column of vectors, or channel of images, that has any."""
    columns = var.reshape(len(var), -1).mean(1)
    return columns[columns > 0]


def _hidden(sde: SDE, stds: Tensor) -> list[str]:
    """Say which columns of these standard deviations vanish in the smallest noise."""
    end = torch.tensor(sde.eps, dtype=torch.float64)
    least = float(sde.sigma(end) / sde.alpha(end))
    lost = int((stds < least).sum())
    if not lost:
        return []
    return [
        f"{lost} of {len(stds)} columns of the data have a standard deviation down to "
        f"{float(stds.min()):.3g}, below the smallest noise, {least:.3g}, in which they are not "
        "seen; standardise the data, or take a process with less noise at its end"
    ]

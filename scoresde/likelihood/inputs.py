"""Check the arguments of likelihoods before the first evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_batch, outside
from scoresde.errors import InvalidValueError
from scoresde.score import device_of, modules
from scoresde.sde import SDE, Condition, Moments, Score, facts, process_of
from scoresde.sde.score import warn_between
from scoresde.units import Identity

__all__ = ["check_density", "check_input", "moments_of", "time", "warn_of_units"]

# Samples that are this many standard deviations away from the mean are probably in other units.
_FAR = 20.0


def check_input(
    score: Score, sde: SDE | None, x: Tensor, condition: Mapping[str, Any] | None
) -> tuple[SDE, Condition | None]:
    """Return the process and the conditions of samples; raise unless they fit the score.

    Raises:
        DeviceError: The score's weights are on the meta device.
        InvalidValueError, InvalidTypeError, ShapeError: The samples or conditions do not fit the
            score.
        NonFiniteError: `x` holds a NaN or an infinity.

    Warns:
        UserWarning: A network that was trained at levels will be evaluated between them.
    """
    sde = process_of(score, sde)
    device_of(score)  # checks it
    known = facts(score)
    # a score without a network is a formula, which is valid between levels too
    if known.sde is not None and sde.levels is not None and modules(score):
        warn_between(known.sde, None)
    check_batch("x", x, known.event_shape)
    return sde, Condition.of(condition, len(x), known.conditions, x.device)


def check_density(score: Score) -> None:
    """Raise InvalidValueError if a score is known not to be the gradient of a log-density."""
    if facts(score).density is False:
        raise InvalidValueError(
            "a guided or composed score is not the gradient of a log-density, so its flow has no "
            "likelihood; give the inner score, with the condition"
        )


def moments_of(score: Score, moments: Moments | None) -> Moments | None:
    """Return `moments`, or the moments in the score's facts if `moments` is None."""
    return facts(score).moments if moments is None else moments


def warn_of_units(score: Score, known: Moments | None, x: Tensor) -> None:
    """Warn if samples are so far from the data that they are probably in the user's units."""
    transform = facts(score).transform
    if known is None or transform in (None, Identity()) or not x.numel():
        return
    off = (x.double() - torch.as_tensor(known.mean).to(x.device, torch.float64)).square()
    deviations = float((off / known.mean_variance()).reshape(len(x), -1).mean(1).median().sqrt())
    if deviations > _FAR:
        warnings.warn(
            f"the samples are {deviations:.3g} standard deviations from the mean of the model's "
            "data: log_prob takes tensors in model units; pass samples in your units as Data(x)",
            stacklevel=outside(),
        )


def time(t: float) -> Tensor:
    """Return a time as a float64 tensor."""
    return torch.tensor(t, dtype=torch.float64)

"""What comes in, checked before the first evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_batch
from scoresde.errors import InvalidValueError
from scoresde.score import modules
from scoresde.sde import SDE, Condition, Moments, Score, facts, process_of
from scoresde.sde.score import warn_between

__all__ = ["check_density", "check_input", "moments_of", "time"]


def check_input(
    score: Score, sde: SDE | None, x: Tensor, condition: Mapping[str, Any] | None
) -> tuple[SDE, Condition | None]:
    """Return the process and the condition of samples, all of which fit the score.

    Raises:
        InvalidValueError, InvalidTypeError, ShapeError: They do not.
        NonFiniteError: `x` holds a NaN or an infinity.

    Warns:
        UserWarning: A network that learnt levels will be asked between them.
    """
    sde = process_of(score, sde)
    known = facts(score)
    # a formula, without a network, knows all times
    if known.sde is not None and sde.levels is not None and modules(score):
        warn_between(known.sde, None)
    check_batch("x", x, known.event_shape)
    return sde, Condition.of(condition, len(x), known.conditions, x.device)


def check_density(score: Score) -> None:
    """Raise InvalidValueError for a score that is known to be no density's."""
    if facts(score).density is False:
        raise InvalidValueError(
            "a guided or composed score is that of no density, so that its flow tells none; give "
            "the score inside it, under the condition"
        )


def moments_of(score: Score, moments: Moments | None) -> Moments | None:
    """Return the data's moments: those given, or those that the score knows."""
    return facts(score).moments if moments is None else moments


def time(t: float) -> Tensor:
    """Return a time as a float64 tensor."""
    return torch.tensor(t, dtype=torch.float64)

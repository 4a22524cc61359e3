"""What comes in, checked before the first evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_has
from scoresde.errors import InvalidTypeError, NonFiniteError, ShapeError
from scoresde.sde import SDE, Condition, Moments, Score, facts, process_of

__all__ = ["check_input", "moments_of", "time"]


def check_input(
    score: Score, sde: SDE | None, x: Tensor, condition: Mapping[str, Any] | None
) -> tuple[SDE, Condition | None]:
    """Return the process and the condition of samples, all of which fit the score.

    Raises:
        InvalidValueError, InvalidTypeError, ShapeError: They do not.
        NonFiniteError: `x` holds a NaN or an infinity.
    """
    sde = process_of(score, sde)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InvalidTypeError(
            f"x must be a floating-point tensor (B, *), got {got}; "
            "images of bytes are dequantised first"
        )
    known = facts(score)
    event = known.event_shape
    if x.ndim == 0 or (event is not None and tuple(x.shape[1:]) != tuple(event)):
        raise ShapeError(
            f"x must have shape (B, {', '.join(map(str, event or ['*']))}), got {tuple(x.shape)}"
        )
    if not x.isfinite().all():
        raise NonFiniteError("x holds NaN or infinity")
    return sde, Condition.of(condition, len(x), known.conditions, x.device)


def moments_of(score: Score, moments: Moments | None) -> Moments | None:
    """Return the data's moments: those given, or those that the score knows."""
    moments = facts(score).moments if moments is None else moments
    if moments is not None:
        check_has("moments", moments, "at", "Moments(mean, var=...)")
    return moments


def time(t: float) -> Tensor:
    """Return a time as a float64 tensor."""
    return torch.tensor(t, dtype=torch.float64)

"""What comes in, checked before the first evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_has
from scoresde.errors import InvalidTypeError, NonFiniteError, ShapeError
from scoresde.score import check_problem
from scoresde.sde import SDE, Moments

__all__ = ["check_input", "moments_of", "time"]


def check_input(model: Any, sde: SDE, x: Tensor, condition: Mapping[str, Tensor] | None) -> None:
    """Raise unless the model, its SDE, the samples `(B, *)` and their condition fit."""
    check_problem(model, sde)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InvalidTypeError(
            f"x must be a floating-point tensor (B, *), got {got}; "
            "images of bytes are dequantised first"
        )
    event = getattr(model, "event_shape", None)
    if x.ndim == 0 or (event is not None and tuple(x.shape[1:]) != tuple(event)):
        raise ShapeError(
            f"x must have shape (B, {', '.join(map(str, event or ['*']))}), got {tuple(x.shape)}"
        )
    if not x.isfinite().all():
        raise NonFiniteError("x holds NaN or infinity")
    if condition is not None and not isinstance(condition, Mapping):
        raise InvalidTypeError(
            f"condition= maps names to tensors, such as {{'label': labels}}, got {condition!r}"
        )
    for name, value in (condition or {}).items():
        if not isinstance(value, Tensor):
            raise InvalidTypeError(f"condition {name!r} must be a tensor, got {value!r}")
        if value.shape[:1] != x.shape[:1]:
            raise ShapeError(
                f"condition {name!r} of shape {tuple(value.shape)} needs one row for each of the "
                f"{len(x)} samples"
            )


def moments_of(model: Any, data: Moments | None) -> Moments | None:
    """The data's moments: those given, or the model's own."""
    data = getattr(model, "data", None) if data is None else data
    if data is not None:
        check_has("data", data, "at", "Moments(mean, var=...)")
    return data


def time(t: float) -> Tensor:
    """A time as the rest of the package takes it."""
    return torch.tensor(t, dtype=torch.float64)

"""Reshape coefficients of time so that they multiply states of any shape."""

from __future__ import annotations

from torch import Tensor

from scoresde.checks import check_batch
from scoresde.errors import ShapeError

__all__ = ["check_times", "expand"]


def expand(c: Tensor, x: Tensor) -> Tensor:
    """Return a coefficient `()`, `(1,)` or `(B,)` in the dtype of `x`, ready to multiply it.

    Args:
        c: A coefficient, computed in float64.
        x: A state `(B, *)`.

    Raises:
        InvalidTypeError: `x` is not floating-point, so that the coefficient would become an
            integer.
        ShapeError: `c` has another shape, or `x` has no batch dimension.

    Examples:
        >>> import torch
        >>> tuple(expand(torch.tensor([0.5, 2.0]), torch.ones(2, 3, 8, 8)).shape)
        (2, 1, 1, 1)
    """
    check_times(c, x)
    if c.ndim == 0:
        return c.to(x.dtype)
    return c.to(x).reshape(-1, *(1,) * (x.ndim - 1))


def check_times(t: Tensor, x: Tensor) -> None:
    """Raise unless `x` is a batch of floating-point states, and `t` is `()`, `(1,)` or `(B,)`."""
    check_batch("x", x, finite=False)
    if t.ndim and (t.ndim > 1 or t.shape[0] not in (1, x.shape[0])):
        raise ShapeError(
            f"time must have shape () or (B,) = ({x.shape[0]},), got {tuple(t.shape)} "
            f"for x of shape {tuple(x.shape)}"
        )

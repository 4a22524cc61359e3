"""What every metric asks of its samples."""

from __future__ import annotations

from torch import Tensor

from scoresde.errors import InvalidTypeError, NonFiniteError, ShapeError

__all__ = ["finite", "flat"]

# The squares of larger numbers, summed up, may leave float64, and those of smaller ones vanish.
_LARGEST, _SMALLEST = 1e140, 1e-140


def flat(name: str, x: Tensor) -> Tensor:
    """Samples `(N, *)` as a finite float64 matrix `(N, D)`, out of any graph."""
    x = finite(name, x)
    if x.ndim == 0:
        raise ShapeError(f"{name} must be a batch (B, *), got a single number")
    rows = x.reshape(len(x), x.shape[1:].numel())
    largest = float(rows.abs().max()) if rows.numel() else 0.0
    if largest > _LARGEST or 0 < largest < _SMALLEST:
        raise NonFiniteError(
            f"{name} holds numbers up to {largest:.3g}, too {'large' if largest > 1 else 'small'} "
            "to be squared; divide both sides of the comparison by their scale"
        )
    return rows


def finite(name: str, x: Tensor) -> Tensor:
    """`x` as float64 and out of any graph, once it is seen to be real and finite."""
    if not isinstance(x, Tensor) or x.is_complex():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InvalidTypeError(f"{name} must be a tensor of real numbers, got {got}")
    if not x.isfinite().all():
        raise NonFiniteError(f"{name} holds NaN or infinite numbers; look where they come from")
    return x.detach().double()

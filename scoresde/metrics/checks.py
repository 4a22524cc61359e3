"""Check the samples that a metric compares."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from scoresde.checks import check_dense, check_finite, check_shape, outside, quoted
from scoresde.errors import InvalidTypeError, NonFiniteError, ShapeError

__all__ = ["check_squares", "finite", "flat", "pair", "reach", "same_bytes", "same_units", "whole"]

# Squares of numbers above `_LARGEST` may overflow in float64, and of numbers below `_SMALLEST`
# underflow.
_LARGEST, _SMALLEST = 1e140, 1e-140
# Warn if the ranges of two compared sets differ by more than this factor.
_APART = 32


def flat(name: str, x: Tensor) -> Tensor:
    """Return samples `(N, *)` as a detached float64 matrix `(N, D)`.

    Raises:
        InvalidTypeError: The samples are not a tensor of real numbers.
        ShapeError: `x` is a single number.
        NonFiniteError: A number is NaN or infinite, or squares overflow or underflow.
    """
    x = finite(name, x)
    check_shape(name, x)
    check_squares(name, x, "divide both sets by the same number")
    return x.reshape(len(x), x.shape[1:].numel())


def check_squares(name: str, x: Tensor, remedy: str) -> None:
    """Raise NonFiniteError if squares of float64 numbers may overflow, or all may underflow."""
    largest = float(x.abs().max()) if x.numel() else 0.0
    if largest > _LARGEST or 0 < largest < _SMALLEST:
        raise NonFiniteError(
            f"{name} holds numbers up to {largest:.3g}, so their squares "
            f"{'over' if largest > 1 else 'under'}flow; {remedy}"
        )


def same_units(**sources: tuple[bool, float]) -> None:
    """Raise an error or warn if compared sets seem to be in different units.

    Args:
        sources: The result of `reach` for each set, by name.

    Raises:
        InvalidTypeError: Some sets are bytes and others are not.

    Warns:
        UserWarning: The range of one set is more than 32 times the range of another.
    """
    names = sorted(sources, key=lambda name: sources[name])
    (bytes_last, most), (bytes_first, least) = sources[names[-1]], sources[names[0]]
    if bytes_last and not bytes_first:
        raise InvalidTypeError(
            f"{names[-1]} are bytes and {names[0]} are not; convert both to the same scale, for "
            "example by x.float() / 127.5 - 1, or give the data as Data(x, transform=BYTES)"
        )
    if 0 < _APART * least < most:
        warnings.warn(
            f"the range of {names[-1]} is {most:.4g}, and the range of {names[0]} is {least:.4g}; "
            "check that both are in the same units",
            UserWarning,
            stacklevel=outside(),
        )


def same_bytes(**sets: Tensor) -> None:
    """Raise InvalidTypeError if some of these sets of samples are bytes and some are not."""
    same_units(**{name: (x.dtype == torch.uint8, 0.0) for name, x in sets.items()})


def reach(x: Tensor) -> tuple[bool, float]:
    """Return whether the samples are bytes, and their range (maximum minus minimum)."""
    if x.numel() == 0:
        return x.dtype == torch.uint8, 0.0
    low, high = x.double().aminmax()
    return x.dtype == torch.uint8, float(high - low)


def pair(x: Tensor, y: Tensor, least: int, names: tuple[str, str] = ("x", "y")) -> list[Tensor]:
    """Return two sets of at least `least` samples, flattened by `flat`, on the device of x."""
    a, b = (flat(name, part) for name, part in zip(names, (x, y), strict=True))
    same_bytes(**dict(zip(names, (x, y), strict=True)))
    if x.shape[1:] != y.shape[1:] or min(len(a), len(b)) < least:
        raise ShapeError(
            f"{names[0]} and {names[1]} must each hold at least {least} events, all of the same "
            f"shape, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    return [a, b.to(a.device)]


def whole(*sets: Tensor) -> list[Tensor]:
    """Return for each set a mask `(1, N)` that selects all rows, as `Metric.__call__` takes it."""
    return [torch.ones(1, len(part), dtype=torch.bool, device=part.device) for part in sets]


def finite(name: str, x: Tensor) -> Tensor:
    """Return `x` as detached float64; raise unless it is real and finite."""
    if not isinstance(x, Tensor) or x.is_complex():
        raise InvalidTypeError(f"{name} must be a tensor of real numbers, got {quoted(x)}")
    check_dense(name, x)
    check_finite(name, x)
    return x.detach().double()

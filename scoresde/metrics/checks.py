"""What every metric asks of its samples."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from scoresde.checks import check_dense, check_finite, check_shape, outside, quoted
from scoresde.errors import InvalidTypeError, NonFiniteError, ShapeError

__all__ = ["finite", "flat", "pair", "reach", "same_bytes", "same_units", "whole"]

# The squares of larger numbers, summed up, may leave float64, and those of smaller ones vanish.
_LARGEST, _SMALLEST = 1e140, 1e-140
# How many times as far numbers may reach as those that they are compared with, unremarked.
_APART = 32


def flat(name: str, x: Tensor) -> Tensor:
    """Return samples `(N, *)` as a finite float64 matrix `(N, D)`, out of any graph."""
    x = finite(name, x)
    check_shape(name, x)
    rows = x.reshape(len(x), x.shape[1:].numel())
    largest = float(rows.abs().max()) if rows.numel() else 0.0
    if largest > _LARGEST or 0 < largest < _SMALLEST:
        raise NonFiniteError(
            f"{name} holds numbers up to {largest:.3g}, too {'large' if largest > 1 else 'small'} "
            "to be squared; divide both sides of the comparison by their scale"
        )
    return rows


def same_units(**sources: tuple[bool, float]) -> None:
    """Raise or warn where what is compared is surely, or very likely, in different units.

    Args:
        sources: By name, whether its numbers are bytes, and how far they reach from least to most.

    Raises:
        InvalidTypeError: Some are bytes and some are not.

    Warns:
        UserWarning: One reaches more than 32 times as far as another.
    """
    names = sorted(sources, key=lambda name: sources[name])
    (bytes_last, most), (bytes_first, least) = sources[names[-1]], sources[names[0]]
    if bytes_last and not bytes_first:
        raise InvalidTypeError(
            f"{names[-1]} are bytes and {names[0]} are not; bring both to one scale, for "
            "example by x.float() / 127.5 - 1, or give the data as Data(x, transform=BYTES)"
        )
    if 0 < _APART * least < most:
        warnings.warn(
            f"the numbers of {names[-1]} reach over {most:.4g} and those of {names[0]} over "
            f"{least:.4g}; are they in one unit?",
            UserWarning,
            stacklevel=outside(),
        )


def same_bytes(**sets: Tensor) -> None:
    """Raise InvalidTypeError where some sets of samples, by name, are bytes and some are not."""
    same_units(**{name: (x.dtype == torch.uint8, 0.0) for name, x in sets.items()})


def reach(x: Tensor) -> tuple[bool, float]:
    """Return what `same_units` asks of a tensor."""
    if x.numel() == 0:
        return x.dtype == torch.uint8, 0.0
    low, high = x.double().aminmax()
    return x.dtype == torch.uint8, float(high - low)


def pair(x: Tensor, y: Tensor, least: int, names: tuple[str, str] = ("x", "y")) -> list[Tensor]:
    """Return two sets of at least so many samples, each as `flat` does, on the device of x."""
    a, b = (flat(name, part) for name, part in zip(names, (x, y), strict=True))
    same_bytes(**dict(zip(names, (x, y), strict=True)))
    if x.shape[1:] != y.shape[1:] or min(len(a), len(b)) < least:
        raise ShapeError(
            f"{names[0]} and {names[1]} must hold at least {least} events of one shape each, got "
            f"{tuple(x.shape)} and {tuple(y.shape)}"
        )
    return [a, b.to(a.device)]


def whole(*sets: Tensor) -> list[Tensor]:
    """Return the choice of all rows of each set, `(1, N)`, as metrics take it."""
    return [torch.ones(1, len(part), dtype=torch.bool, device=part.device) for part in sets]


def finite(name: str, x: Tensor) -> Tensor:
    """Return `x` as float64 and out of any graph, once it is seen to be real and finite."""
    if not isinstance(x, Tensor) or x.is_complex():
        raise InvalidTypeError(f"{name} must be a tensor of real numbers, got {quoted(x)}")
    check_dense(name, x)
    check_finite(name, x)
    return x.detach().double()

r"""Define linear operators of inverse problems, from an event to its measurement.

Each is called with a batch of events and returns a batch of measurements, in their dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from scoresde.checks import (
    as_numbers,
    check_batch,
    check_fields,
    check_finite,
    check_integer,
    check_range,
    summary,
)
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.precision import full_precision

__all__ = ["Blur", "Downsample", "Fourier", "Grey", "Mask", "Projection"]


@dataclass(frozen=True, eq=False, repr=False)
class Mask:
    """Keep some entries of an event: `(B, *event)` to `(B, m)`, in the order of the event.

    Args:
        keep: Which entries are measured, of the event's shape: truth values, or 0 and 1.

    Raises:
        InvalidValueError: It holds other numbers, or keeps nothing.

    Examples:
        >>> Mask([True, False, True])(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., 3.]])
    """

    keep: Tensor

    __repr__ = summary

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", _truth("keep", self.keep))

    @full_precision()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the entries that are kept."""
        check_batch("what is measured", x, finite=False)
        if x.shape[1:] != self.keep.shape:
            raise ShapeError(
                f"the mask is of events {tuple(self.keep.shape)}, got {tuple(x.shape[1:])}"
            )
        return x[:, self.keep.to(x.device)]


@dataclass(frozen=True)
class Blur:
    r"""Blur the last axes of an event by a Gaussian kernel; beyond the border there are zeros.

    Args:
        width: Its standard deviation in entries, positive, at most 10,000.
        dims: How many of the last axes are blurred.

    Raises:
        InvalidValueError: The width is not positive, or there are no such axes.
    """

    width: float
    dims: int = 2

    def __post_init__(self) -> None:
        check_fields(self)
        check_range("width", self.width, "(0, 10000]")
        check_integer("dims", self.dims, 1)

    @full_precision()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the blurred events, of the same shape."""
        check_batch("what is measured", x, finite=False)
        _check_axes(x, self.dims)
        reach = math.ceil(4 * self.width)
        offset = torch.arange(-reach, reach + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (offset / self.width) ** 2)
        kernel = (kernel / kernel.sum()).to(x).reshape(1, 1, -1)
        for axis in range(-self.dims, 0):
            rows = x.movedim(axis, -1)
            line = rows.reshape(-1, 1, rows.shape[-1])
            line = torch.nn.functional.conv1d(line, kernel, padding=reach)
            x = line.reshape(rows.shape).movedim(-1, axis)
        return x


@dataclass(frozen=True)
class Downsample:
    """Take the means of blocks of the last axes: images of fewer pixels.

    Args:
        factor: The side of a block, at least 1, which divides those of the events.
        dims: How many of the last axes are reduced.

    Raises:
        InvalidValueError: A number is below 1.
    """

    factor: int
    dims: int = 2

    def __post_init__(self) -> None:
        check_integer("factor", self.factor, 1)
        check_integer("dims", self.dims, 1)

    @full_precision()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the means."""
        check_batch("what is measured", x, finite=False)
        _check_axes(x, self.dims)
        for axis in range(-self.dims, 0):
            if x.shape[axis] % self.factor:
                raise ShapeError(
                    f"blocks of {self.factor} do not divide a side of {x.shape[axis]} in events of "
                    f"shape {tuple(x.shape[1:])}"
                )
            rows = x.movedim(axis, -1)
            x = rows.reshape(*rows.shape[:-1], -1, self.factor).mean(-1).movedim(-1, axis)
        return x


@dataclass(frozen=True)
class Grey:
    """Make colour images grey: `(B, 3, *)` to `(B, 1, *)`.

    Args:
        weights: The share of each channel; those of Rec. 601 by default.

    Raises:
        NonFiniteError, InvalidTypeError, ShapeError: The weights are no finite numbers in a row.
    """

    weights: tuple[float, ...] = (0.299, 0.587, 0.114)

    def __post_init__(self) -> None:
        weights = as_numbers("weights", self.weights, dtype=torch.float64)
        check_finite("weights", weights)
        if weights.ndim != 1 or len(weights) == 0:
            raise ShapeError(f"weights are one number for each channel, got {self.weights}")
        object.__setattr__(self, "weights", tuple(weights.tolist()))

    @full_precision()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the weighted sum of the channels."""
        check_batch("what is measured", x, finite=False)
        if x.ndim < 2 or x.shape[1] != len(self.weights):
            raise ShapeError(
                f"grey is made of {len(self.weights)} channels, the first axis of an event, got "
                f"events of shape {tuple(x.shape[1:])}"
            )
        weights = x.new_tensor(self.weights)
        return (x.movedim(1, -1) @ weights)[:, None]


@dataclass(frozen=True, eq=False, repr=False)
class Fourier:
    """Sample the discrete Fourier transform of the last axes, as a magnetic resonance scanner does.

    The transform is orthonormal. It makes `(B, *, n, 2)` of `(B, *, *sides)`: real and imaginary
    parts of the n frequencies that are kept.

    Args:
        keep: Which frequencies are measured, of the shape of the last axes, in the order of
            `torch.fft.fftn`, where the frequency 0 comes first.

    Raises:
        InvalidValueError: It holds other numbers than 0 and 1, or keeps nothing.

    Examples:
        >>> Fourier([1, 1, 0, 0])(torch.ones(1, 4))  # the mean, and nothing at the next frequency
        tensor([[[2., 0.],
                 [0., 0.]]])
    """

    keep: Tensor

    __repr__ = summary

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", _truth("keep", self.keep))

    @full_precision()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the frequencies that are kept."""
        check_batch("what is measured", x, finite=False)
        n = self.keep.ndim
        _check_axes(x, n)
        if x.shape[-n:] != self.keep.shape:
            raise ShapeError(
                f"the frequencies kept are of {tuple(self.keep.shape)}, and the last axes of "
                f"events are {tuple(x.shape[-n:])}"
            )
        found = torch.fft.fftn(x, dim=tuple(range(-n, 0)), norm="ortho")
        return torch.view_as_real(found[..., self.keep.to(x.device)])


@dataclass(frozen=True)
class Projection:
    """Project an event onto m random directions, which are orthonormal: `(B, *event)` to `(B, m)`.

    Args:
        m: How many, at least 1.
        seed: Of the directions.

    Raises:
        InvalidValueError: There are fewer than 1, or more than the dimensions of an event.
    """

    m: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("m", self.m, 1)
        check_integer("seed", self.seed, 0)

    @full_precision()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the coordinates along the directions."""
        check_batch("what is measured", x, finite=False)
        rows = x.reshape(len(x), x.shape[1:].numel())
        if self.m > rows.shape[1]:
            raise InvalidValueError(
                f"events of {rows.shape[1]} dimensions have no {self.m} orthonormal directions"
            )
        found: Tensor = rows @ _directions(rows.shape[1], self.m, self.seed).to(x)
        return found


@lru_cache(maxsize=4)
def _directions(d: int, m: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    q: Tensor
    with torch.inference_mode(False):  # what is kept for later calls may be differentiated there
        q, _ = torch.linalg.qr(torch.randn(d, m, generator=draw, dtype=torch.float64))
    return q


def _truth(what: str, value: object) -> Tensor:
    """Return a mask as truth values, of which one at least is true."""
    found = as_numbers(what, value)
    if not ((found == 0) | (found == 1)).all():
        raise InvalidValueError(f"{what} holds truth values, or 0 and 1")
    if not found.any():
        raise InvalidValueError(f"{what} keeps nothing: all is 0")
    return found.bool().clone()


def _check_axes(x: Tensor, dims: int) -> None:
    if x.ndim - 1 < dims:
        raise ShapeError(
            f"the operator acts on the last {dims} axes, and events have the shape "
            f"{tuple(x.shape[1:])}; give dims= or keep= of fewer"
        )

r"""Define linear operators for inverse problems, which map events to measurements.

Each operator maps a batch of events to a batch of measurements of the same dtype.
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
    """Select entries of an event: `(B, *event)` to `(B, m)`, in the order of the flattened event.

    Args:
        keep: A mask of the event's shape, booleans or 0 and 1, true for the entries that are
            measured.

    Raises:
        InvalidValueError: The mask has numbers other than 0 and 1, or is false everywhere.

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
        """Return the selected entries."""
        check_batch("what is measured", x, finite=False)
        if x.shape[1:] != self.keep.shape:
            raise ShapeError(
                f"the mask is for events of shape {tuple(self.keep.shape)}, got "
                f"{tuple(x.shape[1:])}"
            )
        return x[:, self.keep.to(x.device)]


@dataclass(frozen=True)
class Blur:
    r"""Convolve the last axes of an event with a Gaussian kernel, with zeros outside the event.

    Args:
        width: The standard deviation of the kernel in entries of the axis, positive, at most
            10,000.
        dims: The number of last axes to blur: 2 for images `(C, H, W)`, 1 for signals `(C, T)`,
            whose channels `dims=2` would mix.

    Raises:
        InvalidValueError: The width or `dims` is out of range.
        ShapeError: In a call, the event has fewer than `dims` axes, or one of several axes to blur
            has length 1, as the channel of a signal `(1, T)`.
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
        if self.dims > 1 and 1 in x.shape[-self.dims :]:
            raise ShapeError(
                f"Blur with dims={self.dims} would blur an axis of length 1 in events of shape "
                f"{tuple(x.shape[1:])}; give a smaller dims=, for signals dims=1"
            )
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
    """Average blocks of the last axes, such as 2x2 pixels of an image.

    Args:
        factor: The side of a block, at least 1; it must divide the sides of the events.
        dims: The number of last axes to reduce.

    Raises:
        InvalidValueError: A number is below 1.
        ShapeError: In a call, the factor does not divide a side, or there are fewer than `dims`
            axes.
    """

    factor: int
    dims: int = 2

    def __post_init__(self) -> None:
        check_integer("factor", self.factor, 1)
        check_integer("dims", self.dims, 1)

    @full_precision()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the means of the blocks."""
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
    """Convert colour images `(B, C, *)` to grey images `(B, 1, *)`, by weights of the channels.

    Args:
        weights: The weight of each channel; by default the weights of Rec. 601 for red, green and
            blue.

    Raises:
        NonFiniteError, InvalidTypeError, ShapeError: The weights are not a list of finite numbers.
    """

    weights: tuple[float, ...] = (0.299, 0.587, 0.114)

    def __post_init__(self) -> None:
        weights = as_numbers("weights", self.weights, dtype=torch.float64)
        check_finite("weights", weights)
        if weights.ndim != 1 or len(weights) == 0:
            raise ShapeError(f"weights must be one number for each channel, got {self.weights}")
        object.__setattr__(self, "weights", tuple(weights.tolist()))

    @full_precision()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the weighted sum of the channels."""
        check_batch("what is measured", x, finite=False)
        if x.ndim < 2 or x.shape[1] != len(self.weights):
            raise ShapeError(
                f"Grey needs events with {len(self.weights)} channels on the first axis, got "
                f"events of shape {tuple(x.shape[1:])}"
            )
        weights = x.new_tensor(self.weights)
        return (x.movedim(1, -1) @ weights)[:, None]


@dataclass(frozen=True, eq=False, repr=False)
class Fourier:
    """Sample the discrete Fourier transform of the last axes, as a magnetic resonance scanner does.

    The transform is orthonormal. It maps `(B, *, *sides)` to `(B, *, n, 2)`, the real and imaginary
    parts of the n measured frequencies.

    Args:
        keep: A mask of the shape of the last axes, true for the frequencies that are measured, in
            the order of `torch.fft.fftn`, which begins with frequency 0.

    Raises:
        InvalidValueError: The mask has other numbers than 0 and 1, or is false everywhere.

    Examples:
        >>> Fourier([1, 1, 0, 0])(torch.ones(1, 4))  # a constant has the frequency 0 alone
        tensor([[[2., 0.],
                 [0., 0.]]])
    """

    keep: Tensor

    __repr__ = summary

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", _truth("keep", self.keep))

    @full_precision()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the measured frequencies."""
        check_batch("what is measured", x, finite=False)
        n = self.keep.ndim
        _check_axes(x, n)
        if x.shape[-n:] != self.keep.shape:
            raise ShapeError(
                f"the mask of frequencies has shape {tuple(self.keep.shape)}, but the last axes of "
                f"the events have shape {tuple(x.shape[-n:])}"
            )
        found = torch.fft.fftn(x, dim=tuple(range(-n, 0)), norm="ortho")
        return torch.view_as_real(found[..., self.keep.to(x.device)])


@dataclass(frozen=True)
class Projection:
    """Project an event onto m random, orthonormal directions: `(B, *event)` to `(B, m)`.

    Args:
        m: The number of directions, at least 1.
        seed: The seed of the directions.

    Raises:
        InvalidValueError: m is below 1, or in a call above the number of dimensions of an event.
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
    # outside of inference mode, since later calls may differentiate through this tensor
    with torch.inference_mode(False):
        q, _ = torch.linalg.qr(torch.randn(d, m, generator=draw, dtype=torch.float64))
    return q


def _truth(what: str, value: object) -> Tensor:
    """Return a mask as booleans; raise if all are false."""
    found = as_numbers(what, value)
    if not ((found == 0) | (found == 1)).all():
        raise InvalidValueError(f"{what} must hold booleans, or 0 and 1")
    if not found.any():
        raise InvalidValueError(f"{what} selects nothing: it is 0 everywhere")
    return found.bool().clone()


def _check_axes(x: Tensor, dims: int) -> None:
    if x.ndim - 1 < dims:
        raise ShapeError(
            f"the operator acts on the last {dims} axes, but events have the shape "
            f"{tuple(x.shape[1:])}; give a smaller dims=, or keep= with fewer axes"
        )

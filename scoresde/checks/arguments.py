"""Check the values of arguments: numbers, names, tensors, devices."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from scoresde.checks.annotations import quoted
from scoresde.checks.readable import check_readable, unreadable
from scoresde.errors import (
    DeviceError,
    InvalidTypeError,
    InvalidValueError,
    MemoryLimitError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)

__all__ = [
    "as_event",
    "as_numbers",
    "check_batch",
    "check_finite",
    "check_floating",
    "check_increasing",
    "check_integer",
    "check_name",
    "check_noise",
    "check_range",
    "check_shape",
    "check_unmasked",
    "in_dtype",
    "in_memory",
    "named",
    "named_device",
    "narrowed",
    "seeded",
]

T = TypeVar("T")
C = TypeVar("C")


# Numbers


def check_integer(what: str, value: int, least: int) -> int:
    """Return the value as a Python integer; numpy integers and arrays with one integer are allowed.

    Raises:
        InvalidValueError: The value is not an integer, or below `least`.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise InvalidValueError(f"{what} must be an integer >= {least}, got {quoted(value)}")
    return number


def check_range(what: str, value: float, interval: str) -> None:
    """Raise InvalidValueError unless a number lies in an interval such as `"(0, 1]"`."""
    low, high = _ends(interval)
    above = value > low or (interval[0] == "[" and value == low)
    if not (above and (value < high or (interval[-1] == "]" and value == high))):
        rule = _IN_WORDS.get(interval, f"lie in {interval}")
        raise InvalidValueError(f"{what} must {rule}, got {quoted(value)}")


_IN_WORDS = {
    "(-inf, inf)": "be finite",
    "(0, inf)": "be positive and finite",
    "(0, inf]": "be positive",
    "[0, inf)": "be finite and >= 0",
}


@functools.cache
def _ends(interval: str) -> tuple[float, float]:
    low, high = interval[1:-1].split(",")
    return float(low), float(high)


def check_increasing(**values: float) -> None:
    """Raise InvalidValueError unless the named numbers are positive, finite and increasing."""
    if not all(a < b for a, b in itertools.pairwise([0.0, *values.values(), math.inf])):
        given = ", ".join(f"{name} = {quoted(value)}" for name, value in values.items())
        raise InvalidValueError(f"need 0 < {' < '.join(values)}, finite, got {given}")


# Names


def check_name(kind: str, name: object, choices: Collection[str]) -> None:
    """Raise UnknownNameError, with a suggestion, unless `name` is one of the choices."""
    if name not in choices:
        raise UnknownNameError.of(kind, name, choices)


def named(kind: str, given: str | T, choices: Mapping[str, C]) -> T | C:
    """Return the choice with this name; return an object unchanged.

    Raises:
        UnknownNameError: The name is not among the choices.
    """
    if not isinstance(given, str):
        return given
    check_name(kind, given, choices)
    return choices[given]


# Tensors


def check_batch(
    what: str, x: Tensor, event: Sequence[int] | None = None, *, finite: bool = True
) -> None:
    """Raise unless `x` is a batch `(B, *event)` of floating-point numbers.

    Args:
        what: The name of the argument.
        x: A tensor.
        event: The shape of one sample, or None for any.
        finite: Raise for NaN and infinity too.
    """
    if not isinstance(x, Tensor):
        raise InvalidTypeError(f"{what} must be a tensor, got {quoted(x)}")
    if not x.is_floating_point():
        check_floating(what, x)
    check_dense(what, x)
    check_shape(what, x, event)
    if finite:
        check_finite(what, x)


def check_floating(what: str, x: Tensor | torch.dtype) -> None:
    """Raise InvalidTypeError unless a tensor or a dtype is floating-point."""
    dtype, remedy = x, "choose torch.float32 or torch.float64"
    if not isinstance(dtype, torch.dtype):
        dtype, remedy = dtype.dtype, "for 8-bit images: x.float() / 127.5 - 1"
    if not dtype.is_floating_point:
        raise InvalidTypeError(f"{what} must be floating point, got {dtype}; {remedy}")


def check_dense(what: str, x: Tensor) -> None:
    """Raise unless a tensor is dense, and has at least 16 bits if it is floating-point.

    Raises:
        InvalidTypeError: The tensor is sparse, nested or quantized, has another layout, or fewer
            than 16 bits.
        DeviceError: The tensor is on the meta device, or was made in a `FakeTensorMode`.
    """
    if type(x).__name__ == "FakeTensor" and not torch.compiler.is_compiling():
        raise DeviceError(f"{what} is a FakeTensor, which holds no numbers; pass a real tensor")
    if x.is_meta:
        raise DeviceError(f"{what} is on the meta device, which holds no numbers; {_ELSEWHERE}")
    if x.is_quantized:
        raise InvalidTypeError(f"{what} must not be quantized; use .dequantize()")
    if x.layout != torch.strided or x.is_nested:
        kind = "nested" if x.is_nested else str(x.layout)
        raise InvalidTypeError(f"{what} must be a dense tensor, not {kind}; use .to_dense()")
    if x.is_floating_point() and x.itemsize < 2:
        raise InvalidTypeError(f"{what} needs at least half precision, got {x.dtype}; use .float()")


def check_shape(what: str, x: Tensor, event: Sequence[int] | None = None) -> None:
    """Raise ShapeError unless a tensor has the shape `(B, *event)`; None allows any event."""
    if x.ndim == 0 or (event is not None and tuple(x.shape[1:]) != tuple(event)):
        expected = ", ".join(map(str, ("B", *(("*",) if event is None else event))))
        raise ShapeError(f"{what} must have shape ({expected}), got {tuple(x.shape)}")


def check_finite(what: str, x: Tensor) -> None:
    """Raise NonFiniteError if a tensor holds NaN or infinity.

    Raises:
        InvalidTypeError: The tensor is mapped over by `torch.func.vmap`, so it cannot be read.
    """
    check_readable(what, x)
    if not x.isfinite().all():
        raise NonFiniteError(f"{what} holds NaN or infinity; remove or repair those numbers")


def narrowed(what: str, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in another floating-point dtype.

    Raises:
        NonFiniteError: A finite number overflows the dtype.
    """
    out = x.to(dtype)
    if not torch.equal(out.isfinite(), x.isfinite()):
        raise NonFiniteError(
            f"{what} of up to {float(x.abs().max()):.3g} are too large for {dtype}; "
            "give dtype=torch.float32"
        )
    return out


def in_dtype(what: str, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return results, one row for each point, in a dtype.

    Raises:
        NonFiniteError: A row is not finite, since its point is too far from the data.
    """
    out = values.to(dtype)
    finite = out.isfinite().reshape(len(out), out.shape[1:].numel()).all(1)
    if not finite.all():
        bad = (~finite).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"points {bad[:8]} are so far from the data that {dtype} cannot hold {what} there; "
            "leave them out, or scale all points down"
        )
    return out


def check_noise(sigma: Tensor, t: Tensor | float, remedy: str) -> None:
    """Raise InvalidValueError, whose message ends with `remedy`, if the noise scale at a time is 0.

    In a compiled graph and under `torch.func.vmap` nothing is checked, and the score becomes
    infinite or NaN.
    """
    if not unreadable(sigma) and not (sigma > 0).all():
        first = float(torch.as_tensor(t).expand_as(sigma)[~(sigma > 0)][0])
        raise InvalidValueError(f"there is no noise at t = {first:.6g}, where sigma is 0; {remedy}")


def as_event(what: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one sample as a tuple of integers of at least 0.

    Raises:
        InvalidValueError: A side is not an integer of at least 0.
    """
    return tuple(check_integer(f"each side of {what}", side, 0) for side in shape)


def as_numbers(what: str, value: object, **options: Any) -> Tensor:
    """Convert the value to a tensor by `torch.as_tensor` with these `options`.

    Without `options`, Python numbers become a CPU tensor of at least single precision, and an array
    becomes a CPU tensor of its dtype, whatever torch's default device and dtype are.

    Raises:
        InvalidTypeError: The value cannot be converted to a tensor, has masked numbers, or is a
            boolean, a complex number or an array of these that a dtype would turn into numbers.
    """
    if "dtype" in options and not _is_real(value):
        raise InvalidTypeError(f"{what} must be a real number or tensor, got {quoted(value)}")
    check_unmasked(what, value)
    try:
        if isinstance(value, Tensor):
            return torch.as_tensor(value, **options)
        found = torch.as_tensor(value, **{"device": "cpu", **options})
        if "dtype" in options or isinstance(value, np.ndarray | np.generic):
            return found
        lost = found.is_floating_point() and found.itemsize < 4  # torch's default dtype may be half
        return torch.as_tensor(value, dtype=torch.float32, device=found.device) if lost else found
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTypeError(
            f"{what} must be a number or a tensor, got {quoted(value)}"
        ) from error


def check_unmasked(what: str, value: object) -> None:
    """Raise InvalidTypeError if numbers of a numpy array are masked."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InvalidTypeError(
            f"{what} has masked numbers, whose mask would be lost; leave them out, or pass "
            "value.filled(numpy.nan) if missing numbers are allowed"
        )


def _is_real(value: object) -> bool:
    kind = getattr(value, "dtype", type(value))
    if isinstance(kind, torch.dtype):
        return not kind.is_complex and kind != torch.bool
    # the kinds "b" and "c" of numpy are booleans and complex numbers
    return kind is not bool and getattr(kind, "kind", "") not in ("b", "c")


# Resources


@contextmanager
def in_memory(advice: str | Callable[[], str]) -> Iterator[None]:
    """Turn an out-of-memory error of the block, on any device, into an error with advice.

    Raises:
        MemoryLimitError: The block ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if isinstance(error, MemoryLimitError) or not (
            known or "can't allocate memory" in str(error)
        ):
            raise
        raise MemoryLimitError(advice if isinstance(advice, str) else advice()) from error


def named_device(device: torch.device | str) -> torch.device:
    """Return a device on which a tensor can be made.

    Raises:
        DeviceError: The device does not exist or cannot be used.
    """
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"device={device!r} cannot be used here: {reason}; try 'cpu'") from error
    if found.type == "meta":
        raise DeviceError(f"the meta device holds no numbers; {_ELSEWHERE}")
    return found


_ELSEWHERE = "take the CPU or a GPU"


def seeded(seed: int) -> torch.Generator:
    """Return a torch generator seeded with the lowest 63 bits of a seed.

    Raises:
        InvalidValueError: The seed is not an integer of at least 0.
    """
    return torch.Generator().manual_seed(check_integer("seed", seed, 0) % 2**63)

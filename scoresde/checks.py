"""Arguments, refused in a sentence where they are not what they should be."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor

from scoresde.errors import DeviceError, InvalidTypeError, InvalidValueError, UnknownNameError

__all__ = [
    "as_numbers",
    "check_fields",
    "check_floating",
    "check_generator",
    "check_has",
    "check_integer",
    "check_name",
    "check_real",
    "is_out_of_memory",
    "lacks",
    "named",
    "named_device",
    "quoted",
    "seeded",
]

T = TypeVar("T")
C = TypeVar("C")

# An annotation is a class, or its name where annotations are postponed.
_KINDS: dict[object, tuple[type, str]] = {
    float: (Real, "a number"),
    int: (Integral, "an integer"),
    str: (str, "a string"),
}
_KINDS |= {"float": _KINDS[float], "int": _KINDS[int], "str": _KINDS[str]}


def quoted(value: object) -> str:
    """Return a value for an error message, cut to 200 characters."""
    try:
        text = repr(value)
    except Exception:  # of whatever kind: the message is about something else
        text = f"an object of the class {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:197]}..."


def check_fields(owner: Any, *, finite: bool = False) -> None:
    """Check the fields of a dataclass that are declared as `float`, `int` or `str`.

    Args:
        owner: An instance.
        finite: Whether its numbers must be finite.

    Raises:
        InvalidTypeError: A field holds something else.
        InvalidValueError: A number is not finite.
    """
    for field in fields(owner):
        value = getattr(owner, field.name)
        kind, words = _KINDS.get(field.type, (object, ""))
        # True is an integer of Python's, and no number of anybody's
        if not isinstance(value, kind) or (words and isinstance(value, bool)):
            raise InvalidTypeError(
                f"{field.name} of {type(owner).__name__} must be {words}, got {quoted(value)}"
            )
        if finite and isinstance(value, Real) and not math.isfinite(value):
            raise InvalidValueError(f"{field.name} must be finite, got {value}")


def check_integer(what: str, value: int, least: int) -> int:
    """The value as Python's own integer; an array of one would multiply lists in another way.

    Raises:
        InvalidValueError: It is no integer, or below `least`.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise InvalidValueError(f"{what} must be an integer >= {least}, got {quoted(value)}")
    return number


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the host or a device, has run out."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def check_real(what: str, value: object) -> None:
    """Raise InvalidTypeError unless `value` is a real number."""
    if not isinstance(value, Real):
        raise InvalidTypeError(f"{what} must be a number, got {quoted(value)}")


def check_name(kind: str, name: object, choices: Collection[str]) -> None:
    """Raise UnknownNameError, with the nearest of the choices, unless `name` is one of them."""
    if name not in choices:
        raise UnknownNameError.of(kind, name, choices)


def check_has(what: str, value: object, attribute: str, expected: str) -> None:
    """Raise InvalidTypeError unless `value` has the attribute by which such things are known.

    Args:
        what: The argument.
        value: What came in.
        attribute: A name that everything of the kind has.
        expected: The kind, in words.
    """
    if lacks(value, attribute):
        raise InvalidTypeError(f"{what} must be {expected}, got {quoted(value)}")


def lacks(value: object, attribute: str) -> bool:
    """Whether it is no object of the kind with this attribute; nor is the kind's class one."""
    return isinstance(value, type) or not hasattr(value, attribute)


def named(kind: str, given: str | T, choices: Mapping[str, C], attribute: str, other: str) -> T | C:
    """The choice of that name; an object stands for itself.

    Args:
        kind: What it is.
        given: What came in.
        choices: What has a name.
        attribute: A name that every object of the kind has.
        other: Such an object, in words.

    Raises:
        UnknownNameError: The name is not among the choices.
        InvalidTypeError: It is neither a name nor such an object.
    """
    if not isinstance(given, str):
        check_has(kind, given, attribute, f"a name ({', '.join(choices)}) or {other}")
        return given
    check_name(kind, given, choices)
    return choices[given]


def check_floating(what: str, dtype: torch.dtype) -> None:
    """Raise InvalidTypeError unless `dtype` is one of floating point."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InvalidTypeError(
            f"{what} must be floating point, got {dtype}; for 8-bit images: x.float() / 127.5 - 1"
        )


def named_device(device: torch.device | str) -> torch.device:
    """The device, once a tensor was made there.

    Raises:
        DeviceError: It is none, or cannot be used here.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"device={device!r} cannot be used here: {reason}; try 'cpu'") from error


def as_numbers(what: str, value: object, **options: Any) -> Tensor:
    """The value as a tensor, made with the `options` of `torch.as_tensor`.

    Raises:
        InvalidTypeError: It is none and cannot become one.
    """
    try:
        return torch.as_tensor(value, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidTypeError(
            f"{what} must be a number or a tensor, got {quoted(value)}"
        ) from error


def seeded(seed: int) -> torch.Generator:
    """A generator of torch's, which takes 63 bits of a seed.

    Raises:
        InvalidValueError: The seed is no integer of at least 0.
    """
    return torch.Generator().manual_seed(check_integer("seed", seed, 0) % 2**63)


def check_generator(generator: object) -> None:
    """Raise InvalidTypeError unless it is a generator of torch, or None."""
    if generator is not None:
        check_has("generator", generator, "initial_seed", "a torch.Generator")

"""Arguments that are numbers, refused in a sentence where they are none."""

from __future__ import annotations

import math
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import torch

from scoresde.errors import InvalidTypeError, InvalidValueError

__all__ = ["check_fields", "check_integer", "is_out_of_memory"]

# An annotation is a class, or its name where annotations are postponed.
_KINDS: dict[object, tuple[type, str]] = {
    float: (Real, "a number"),
    int: (Integral, "an integer"),
    str: (str, "a string"),
}
_KINDS |= {"float": _KINDS[float], "int": _KINDS[int], "str": _KINDS[str]}


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
        if not isinstance(value, kind):
            raise InvalidTypeError(
                f"{field.name} of {type(owner).__name__} must be {words}, got {value!r}"
            )
        if finite and isinstance(value, float) and not math.isfinite(value):
            raise InvalidValueError(f"{field.name} must be finite, got {value}")


def check_integer(what: str, value: int, least: int) -> None:
    """Raise InvalidValueError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < least:
        raise InvalidValueError(f"{what} must be an integer >= {least}, got {value!r}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the host or a device, has run out."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )

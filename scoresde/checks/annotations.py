"""Check the arguments of public functions against their annotations.

`door` and `typed` check the arguments of a function, `check_fields` the fields of a dataclass.
Annotations have their usual meaning, with these exceptions: True and integers beyond 64 bits are
not numbers; numpy's numbers are numbers; and where a tensor and a number are allowed, so is a list,
a tuple or an array. Of a callable or a protocol only the existence of its methods is checked.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import operator
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from numbers import Real
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import typeguard
from torch import Tensor

from scoresde.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from scoresde.precision import full_precision

__all__ = ["bind", "check_fields", "door", "quoted", "typed"]

F = TypeVar("F", bound=Callable[..., Any])


def quoted(value: object) -> str:
    """Return the repr of a value for an error message, limited to 200 characters."""
    try:
        text = repr(value)
    except Exception:  # the repr of an unknown class can raise any error
        text = f"an object of the class {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:197]}..."


def typed(function: F) -> F:
    """Check the arguments of a public function against its annotations at every call.

    Raises:
        InvalidTypeError: An argument does not have the annotated type, is missing, or is not
            expected.
        UnknownNameError: A string is not one of the values that its annotation lists.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        bound = bind(function, signature, args, kwargs)
        hints = _of_function(function)
        for name, value in bound.arguments.items():
            if name in hints and value is not signature.parameters[name].default:
                hints[name].check(name, value)
        return function(*args, **kwargs)

    return typing.cast(F, checked)


def door(function: F) -> F:
    """Check arguments as `typed` does, and run a public function in `full_precision`.

    So the result does not depend on autocast and on the default device of the caller.
    """
    return typed(full_precision()(function))


def bind(
    function: Callable[..., Any],
    signature: inspect.Signature,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> inspect.BoundArguments:
    """Return the arguments of a call by name.

    Raises:
        InvalidTypeError: An argument is missing, or is not expected.
    """
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidTypeError(_misfit(function, signature, kwargs, error)) from None


def check_fields(owner: Any, *, finite: bool = False) -> None:
    """Check the fields of a dataclass against their annotations, and convert numpy numbers.

    Args:
        owner: An instance of the dataclass.
        finite: Require numbers to be finite.

    Raises:
        InvalidTypeError: A field does not have the annotated type.
        InvalidValueError: A number is not finite.
        UnknownNameError: A string is not one of the values that its annotation lists.
    """
    kind: Any = type(owner)
    for name, hint in _of_fields(kind).items():
        value = getattr(owner, name)
        hint.check(f"{name} of {kind.__name__}", value)
        if isinstance(value, np.number):  # torch and file formats expect Python numbers
            value = value.item()
            object.__setattr__(owner, name, value)
        if finite and isinstance(value, Real) and not math.isfinite(value):
            raise InvalidValueError(f"{name} must be finite, got {value}")


class _Kind(type):
    """Let `isinstance(value, cls)` return `cls.holds(value)`."""

    def __instancecheck__(cls, value: object) -> bool:
        return bool(cls.__dict__["holds"](value))


class _Number(metaclass=_Kind):
    words = "a number"
    holds = staticmethod(lambda value: not _is_bool(value) and _is_float(value))


class _Integer(metaclass=_Kind):
    words = "an integer"
    holds = staticmethod(lambda value: not _is_bool(value) and _is_index(value))


class _Callable(metaclass=_Kind):
    words = "a callable"
    holds = staticmethod(lambda value: callable(value) and not isinstance(value, type))


class _Numbers(metaclass=_Kind):
    words = "numbers"
    holds = staticmethod(lambda value: isinstance(value, (Tensor, np.ndarray, list, tuple)))


def _is_bool(value: object) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_float(value: Any) -> bool:
    """Return True for real numbers that torch can represent."""
    too_large = isinstance(value, int) and abs(value) >= 2**63
    return isinstance(value, Real) and not isinstance(value, Fraction) and not too_large


def _is_index(value: Any) -> bool:
    """Return True for an integer, and for an array or tensor with a single integer."""
    try:
        operator.index(value)
    except Exception:  # torch raises a RuntimeError for some tensors
        return False
    return True


_READ_AS = {float: _Number, int: _Integer}
_WORDS = {
    str: "a string", bool: "True or False", Tensor: "a tensor", types.NoneType: "None",
    torch.dtype: "a torch.dtype", torch.device: "a torch.device", Mapping: "a mapping",
    Sequence: "a sequence", Iterable: "an iterable", np.ndarray: "an array", os.PathLike: "a path",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Hint:
    """Hold an annotation as classes for isinstance, parts for typeguard, and allowed strings."""

    classes: tuple[type, ...]
    rest: tuple[Any, ...]
    choices: tuple[str, ...]
    words: str

    def check(self, what: str, value: object) -> None:
        if isinstance(value, self.classes) or (isinstance(value, str) and value in self.choices):
            return
        for hint in self.rest:
            try:
                typeguard.check_type(
                    value, hint,
                    collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS,
                )  # fmt: skip
                return
            except typeguard.TypeCheckError:
                continue
        if self.choices and isinstance(value, str):
            raise UnknownNameError.of(what, value, self.choices)
        raise InvalidTypeError(f"{what} must be {self.words}, got {quoted(value)}")


def _hint(annotation: Any) -> _Hint | None:
    """Return the parsed annotation, or None if it allows any value."""
    parts = [_translated(part) for part in _alternatives(annotation)]
    if any(part in (Any, object) or isinstance(part, TypeVar) for part in parts):
        return None
    if Tensor in parts and (_Number in parts or Sequence[_Number] in parts):
        parts.append(_Numbers)
    literals = [part for part in parts if typing.get_origin(part) is Literal]
    choices = tuple(choice for part in literals for choice in typing.get_args(part))
    plain = [part for part in parts if isinstance(part, type) and typing.get_origin(part) is None]
    rest = [part for part in parts if part not in plain and part not in literals]
    words = [repr(choice) for choice in choices]
    words += [_named(part) for part in parts if part not in literals and part is not _Numbers]
    listed = ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else words[0]
    return _Hint(tuple(plain), tuple(rest), choices, listed)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(a for part in typing.get_args(annotation) for a in _alternatives(part))
    return (annotation,)


def _translated(annotation: Any) -> Any:
    """Replace Python's numbers and callables in an annotation by the classes of this module."""
    if annotation is None:
        return types.NoneType
    if annotation in _READ_AS:
        return _READ_AS[annotation]
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Callable or getattr(annotation, "_is_protocol", False):
        return _Callable if origin or "__call__" in vars(annotation) else object
    if origin is None or origin is Literal or not args:
        return annotation
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(lambda a, b: a | b, map(_translated, args))
    return origin[tuple(a if a is Ellipsis else _translated(a) for a in args)]


def _named(part: Any) -> str:
    """Describe an annotation in plain English, with an article."""
    origin = typing.get_origin(part)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_named, typing.get_args(part)))
    if origin is not None:
        whole = _WORDS.get(origin, f"a {origin.__name__}")
        args = typing.get_args(part)
        inside = dict.fromkeys(_plural(a) for a in args if a is not Ellipsis)
        if "" in inside or not inside or origin is os.PathLike:
            return whole
        fixed = origin is tuple and Ellipsis not in args and len(inside) == 1
        return f"{whole} of {f'{len(args)} ' if fixed else ''}{' and '.join(inside)}"
    if part in _WORDS:
        return _WORDS[part]
    words: str | None = vars(part).get("words") if isinstance(part, _Kind) else None
    name = getattr(part, "__name__", str(part))
    return words or f"{'an' if name[0] in 'AEIO' or name == 'SDE' else 'a'} {name}"


def _plural(part: Any) -> str:
    """Describe an annotation in plain English, in the plural; return "" for Any."""
    if part in (Any, object):
        return ""
    words = _named(part).removeprefix("an ").removeprefix("a ")
    return words if words.endswith("s") else f"{words}s"


@functools.cache
def _of_function(function: Callable[..., Any]) -> dict[str, _Hint]:
    kinds = {p.name: p.kind for p in inspect.signature(function).parameters.values()}
    hints = typing.get_type_hints(function)
    fixed = {n: h for n, h in hints.items() if n in kinds and kinds[n] not in (2, 4)}
    return {name: hint for name, given in fixed.items() if (hint := _hint(given)) is not None}


@functools.cache
def _of_fields(kind: type) -> dict[str, _Hint]:
    try:
        hints = typing.get_type_hints(kind)
    # the class is defined in a function, and local names cannot be looked up
    except NameError:
        simple = {"float": float, "int": int, "str": str, "bool": bool}
        known = {f.name: f.type for f in dataclasses.fields(kind)}
        hints = {n: simple.get(t, Any) if isinstance(t, str) else t for n, t in known.items()}
    names = {field.name for field in dataclasses.fields(kind)}
    given = {name: hint for name, hint in hints.items() if name in names}
    return {name: hint for name, h in given.items() if (hint := _hint(h)) is not None}


# names of arguments in other libraries, with the names in this package
_MEANT = {
    "num_samples": "n", "n_samples": "n", "samples": "n", "num_steps": "steps",
    "label": "condition", "labels": "condition", "model": "score",
}  # fmt: skip


# arguments that a user may expect, and where to set the value instead
_INSTEAD = {
    "held_out": "set the fraction of the data to hold out in the config: "
    "config.changed(held_out=0.1)"
}


def _misfit(
    function: Callable[..., Any],
    signature: inspect.Signature,
    kwargs: Mapping[str, Any],
    error: TypeError,
) -> str:
    """Return the message for a wrong call, with a suggestion for an unknown argument."""
    called = getattr(function, "__qualname__", type(function).__name__)
    names = [name for name in signature.parameters if name not in ("self", "cls")]
    any_name = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for name in kwargs:
        if name not in names and not any_name:
            near = difflib.get_close_matches(name, names, n=1)
            near = [_MEANT[name]] if _MEANT.get(name) in names else near
            hint = f"; did you mean {near[0]}=?" if near else f"; it takes {', '.join(names)}"
            hint = f"; {_INSTEAD[name]}" if name in _INSTEAD and "config" in names else hint
            return f"{called} takes no argument {name}={hint}"
    needed = [p.name for p in signature.parameters.values() if p.default is p.empty]
    needed = [name for name in needed if name in names]
    return f"{called}: {error}; it needs {', '.join(needed)}, in this order"

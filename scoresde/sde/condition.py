"""Declare and check conditions: the inputs of a score besides the state and the time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import (
    as_numbers,
    check_dense,
    check_fields,
    check_integer,
    check_name,
    check_readable,
    quoted,
)
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)

__all__ = ["Classes", "Condition", "Field", "class_name"]


@dataclass(frozen=True)
class Classes:
    """Declare a condition that is an integer label.

    Two declarations are equal if their `n` are equal, whatever their names, since a score receives
    only the labels.

    Args:
        n: The number of classes. Labels are 0 to n - 1; -1 stands for a missing label.
        names: The names of the classes, in the order of their numbers; empty if they have none.

    Examples:
        >>> Classes(10).check("label", torch.tensor([3, -1]))  # no error
        >>> Classes(2, names=("cat", "dog")).numbers("label", ["dog", None, "cat"])
        [1, -1, 0]
    """

    n: int
    names: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        check_integer("the number of classes", self.n, 1)
        check_fields(self)
        if self.names and not len(set(self.names)) == len(self.names) == self.n:
            raise InvalidValueError(
                f"{self.n} classes need {self.n} different names or none, got {quoted(self.names)}"
            )

    def __repr__(self) -> str:
        return f"Classes(n={self.n}{f', names={self.names}' if self.names else ''})"

    def numbers(self, name: str, given: Any) -> Any:
        """Return the labels of class names; return anything else unchanged.

        Args:
            name: The name of the condition, for errors.
            given: The name of a class, or a list or array of names, with None for a missing name.

        Raises:
            InvalidValueError: The classes have no names.
            UnknownNameError: No class has such a name.
        """
        if isinstance(given, str):
            return self._number(name, given)
        row = isinstance(given, list | tuple) or (isinstance(given, np.ndarray) and given.ndim == 1)
        if row and any(isinstance(one, str) for one in given):
            return [-1 if one is None else self.numbers(name, one) for one in given]
        return given

    def _number(self, name: str, given: str) -> int:
        if not self.names:
            raise InvalidValueError(
                f"the classes of the condition {name!r} have no names here, got {given[:100]!r}; "
                f"give a class's number, 0 to {self.n - 1}"
            )
        if given not in self.names:
            raise UnknownNameError.of("class", given, self.names)
        return self.names.index(given)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (), the shape of one label."""
        return ()

    def missing(self, value: Tensor) -> Tensor:
        """Return a mask `(B,)` of the missing labels."""
        return value < 0

    def check(self, name: str, value: Tensor) -> None:
        """Raise unless `value` holds labels from -1 to n - 1."""
        if value.is_floating_point() or value.is_complex() or value.dtype == torch.bool:
            raise InvalidTypeError(
                f"condition {name!r} takes integer labels, got {value.dtype}; pass labels.long()"
            )
        if not value.numel():
            return
        low, high = (int(end) for end in value.long().aminmax())  # not implemented for uint64
        if not (-1 <= low and high < self.n):
            raise InvalidValueError(
                f"condition {name!r} takes labels from 0 to {self.n - 1}, or -1 for a missing one; "
                f"got labels from {low} to {high}"
            )


@dataclass(frozen=True)
class Field:
    """Declare a condition that is a floating-point tensor, with NaN for missing entries.

    Two declarations are equal if their shapes are.

    Args:
        shape: The shape for one sample, without the batch: `(8,)` for a vector, `(3, 64, 64)` for a
            field.
        names: The names of a vector's entries; empty if they have none.

    Examples:
        >>> Field((8,)).check("text", torch.zeros(2, 8))  # no error
    """

    shape: tuple[int, ...]
    names: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.shape, default=1) < 1:
            raise InvalidValueError(f"the sides of a field are at least 1, got {self.shape}")
        if self.names and not (len(self.names),) == self.shape:
            raise InvalidValueError(
                f"names= takes one name for each entry of a vector, got {quoted(self.names)} for "
                f"a field of shape {self.shape}"
            )

    def __repr__(self) -> str:
        return f"Field(shape={self.shape}{f', names={self.names}' if self.names else ''})"

    def missing(self, value: Tensor) -> Tensor:
        """Return a mask `(B,)` of the rows of `value` `(B, *)` in which every entry is NaN."""
        return value.isnan().reshape(len(value), math.prod(self.shape)).all(1)

    def check(self, name: str, value: Tensor) -> None:
        """Raise unless `value` is a floating-point tensor whose numbers float32 can hold."""
        if not value.is_floating_point():
            raise InvalidTypeError(
                f"condition {name!r} takes floating point numbers, got {value.dtype}; "
                "pass its .float()"
            )
        if value.float().isinf().any():
            raise NonFiniteError(
                f"condition {name!r} holds an infinity, or a number above 3.4e38, which float32 "
                "cannot hold; write NaN for missing values"
            )


def class_name(kinds: Mapping[str, Classes | Field] | None) -> str | None:
    """Return the name of the condition that holds the class labels, or None.

    It is "label" if that condition is of type `Classes`, else the only condition of that type.

    Examples:
        >>> class_name({"species": Classes(3), "age": Field((1,))})
        'species'
    """
    names = [name for name, kind in (kinds or {}).items() if isinstance(kind, Classes)]
    return "label" if "label" in names else names[0] if len(names) == 1 else None


class Condition(Mapping[str, Tensor]):
    """Hold the conditions of a batch: for each name a tensor `(B, *)`, one row for each sample.

    It is a mapping, so a network takes it as `net(x, c, **condition)`.

    Args:
        values: Tensors with the same number of rows.

    Examples:
        >>> condition = Condition.of({"label": 3}, n=2, declared={"label": Classes(10)})
        >>> print(condition, condition["label"].tolist())
        Condition(label: 2 labels, all 3) [3, 3]
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        if not isinstance(values, Mapping):
            raise InvalidTypeError(f"a Condition maps names to tensors, got {quoted(values)}")
        self._values = dict(values)

    @classmethod
    def of(
        cls,
        values: Mapping[str, Any] | None,
        n: int,
        declared: Mapping[str, Classes | Field] | None = None,
        device: torch.device | None = None,
    ) -> Condition | None:
        """Return the checked conditions of n samples, or None if there are none.

        Args:
            values: A mapping from names to tensors with n rows, or with one row or number for all
                samples. A label may be given as the name of its class. A `Condition` is checked
                like any other mapping.
            n: The number of samples.
            declared: The names that the score takes, with their kinds; None if unknown.
            device: The device to which the tensors are moved after the check.

        Raises:
            InvalidTypeError: `values` is not a mapping, or a value is not dense or not of the
                declared type.
            InvalidValueError: The score takes no conditions, a label lies outside the range of the
                classes, or a class is given by name but the classes have no names.
            UnknownNameError: The score takes no condition of that name, or has no class of that
                name.
            NonFiniteError: A declared field holds an infinity; NaN marks a missing value.
            ShapeError: A value has neither n rows nor one.
        """
        if values is None:
            return None
        if not isinstance(values, Mapping):
            raise InvalidTypeError(
                "condition= maps names to tensors, such as {'label': labels}, got "
                f"{quoted(values)}"
            )
        rows = {}
        for name, given in values.items():
            kind = None
            if declared is not None:
                if not declared:
                    raise InvalidValueError(
                        f"this score takes no condition, got condition={{{name!r}: ...}}; "
                        "leave it out"
                    )
                check_name("condition", name, declared)
                kind = declared[name]
                given = kind.numbers(name, given) if isinstance(kind, Classes) else given
            value = as_numbers(f"condition {name!r}", given)
            check_readable(f"condition {name!r}", value)
            check_dense(f"condition {name!r}", value)
            if kind is not None:
                kind.check(name, value)
            # a copy, since the user may change the tensor later
            rows[name] = _rows(name, value.clone(), n, kind).to(device)
        return cls(rows) if rows else None

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        rows = ", ".join(f"{name}: {_described(value)}" for name, value in self.items())
        return f"Condition({rows})"

    def rows(self, index: slice | Sequence[int] | Tensor) -> Condition:
        """Return the conditions of the samples at these indices."""
        return Condition({name: value[index] for name, value in self.items()})

    def to(self, device: torch.device) -> Condition:
        """Return the conditions, moved to a device."""
        return Condition({name: value.to(device) for name, value in self.items()})

    def only(self, names: Mapping[str, object] | None) -> Condition | None:
        """Return the conditions with these names, or None if none is left; None keeps all names."""
        kept = {k: v for k, v in self.items() if names is None or k in names}
        return Condition(kept) if kept else None

    def without(self, *names: str) -> Condition | None:
        """Return the conditions without these names, or None if no condition is left.

        A wrapper of a score calls this to use some conditions itself and to pass on the others.
        """
        kept = {name: value for name, value in self.items() if name not in names}
        return Condition(kept) if kept else None


def _described(value: Tensor) -> str:
    """Describe a tensor of a condition: its labels and their range, or the shape of its fields."""
    n = len(value)
    if value.is_floating_point():
        event = "x".join(map(str, value.shape[1:])) or "1"
        return f"{n} {'row' if n == 1 else 'rows'} of {event} floats"
    labels = f"{n} {'label' if n == 1 else 'labels'}"
    known = value[value >= 0]
    if value.ndim != 1 or not len(known):
        return labels if not n or len(known) else f"{labels}, all missing"
    low, high = (int(end) for end in known.long().aminmax())
    missing = n - len(known)
    text = f"{labels}, all {low}" if low == high else f"{labels} from {low} to {high}"
    return text + (f", {missing} missing" if missing else "")


def _rows(name: str, value: Tensor, n: int, kind: Classes | Field | None) -> Tensor:
    """Return the value expanded to `(n, *)`, one row for each sample."""
    given = tuple(value.shape)
    event = given[1:] if kind is None else kind.shape
    if event == (1,) and value.ndim < 2:  # a number becomes a vector of one entry, as in Data
        value = value.reshape(-1, 1)
    if tuple(value.shape) in {(), event} and (kind is not None or value.ndim == 0):
        value = value[None]
    if value.shape[1:] != event or len(value) not in (1, n):
        expected = " or ".join(dict.fromkeys(str(shape) for shape in ((n, *event), event)))
        raise ShapeError(
            f"condition {name!r} needs one row for each of the n = {n} samples, or one row for "
            f"all: the shape {expected}; got {given}"
        )
    return value.expand(n, *event)

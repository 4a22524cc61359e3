"""Check the conditions of samples. A condition has a name, and a row for each sample.

A row is either a label or an array. A label is an integer, or -1 if it is missing. An array, a
vector or a field, has floating-point numbers, with NaN for missing numbers. Bytes with several axes
are images, which are fields of numbers from 0 to 255.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import check_dense, check_name, outside, quoted
from scoresde.data.classes import Named, classes_of, numbered_as
from scoresde.data.column_order import Reordered, places_of
from scoresde.data.frames import rows_of
from scoresde.data.given import as_tensor, is_store
from scoresde.data.report import some
from scoresde.data.stores import Store, narrow, store_of
from scoresde.data.survey import Survey, survey
from scoresde.errors import (
    DataError,
    InvalidTypeError,
    InvalidValueError,
    ShapeError,
    UnknownNameError,
)
from scoresde.sde import Classes, Field

__all__ = [
    "ConditionMoments",
    "Kind",
    "as_conditions",
    "check_free",
    "check_known",
    "moments_of",
    "renumbered",
    "surveyed",
]

# Labels that begin at 1 are reported if each class has at least this many samples.
_MANY = 10
_HIGHEST = 2**31 - 2  # the highest label; a network with more classes cannot be built

Kind = Classes | Field

# If the distance between neighbouring float32 numbers near the mean is larger than this number of
# standard deviations, rounding destroys a condition.
_COARSE = 0.01
# Names that a condition cannot have, with the meaning that they have as arguments.
_TAKEN = {
    "transform": "the units", "kinds": "the kinds", "self": "the network",
    "columns": "the names of the numbers of a sample",
}  # fmt: skip


class ConditionMoments(NamedTuple):
    """Hold the mean and the standard deviation of a condition, which broadcast to its rows.

    Attributes:
        mean: `(k,)` for a vector, `(C, 1, ...)` for a field `(C, *)`, float64.
        std: The standard deviation in the same shape, 1 where all numbers are equal or missing.
    """

    mean: Tensor
    std: Tensor


class Checked(NamedTuple):
    """Hold the rows of a condition and its kind."""

    rows: Tensor | Store
    kind: Kind


def check_known(name: str, conditions: Collection[str]) -> None:
    """Raise UnknownNameError unless there is a condition with this name."""
    if not conditions:
        raise UnknownNameError(f"there is no condition {name!r}: these data have no conditions")
    check_name("condition", name, conditions)


def check_free(name: str) -> None:
    """Raise InvalidValueError if a condition has the name of an argument."""
    if name in _TAKEN:
        raise InvalidValueError(
            f"a condition cannot be called {name!r}, which is {_TAKEN[name]}; rename it"
        )


def as_conditions(
    given: Mapping[str, object], kinds: Mapping[str, Kind], n: int
) -> dict[str, Checked]:
    """Check the conditions of n samples, and return them sorted by name; skip None.

    Args:
        given: The rows by name.
        kinds: The kinds by name; a missing kind is inferred from the rows.
        n: The number of samples.

    Raises:
        DataError: The label of a sample is out of range, or a number is infinite.
        InvalidTypeError: Rows are neither integers nor floats, or a kind is not a Classes or Field.
        InvalidValueError: A condition has the name of an argument.
        ShapeError: The number of rows is not n, or rows do not have the shape of the kind.
        UnknownNameError: A name in `kinds` is not a condition.
    """
    found = {name: given[name] for name in sorted(given) if given[name] is not None}
    for name in found:
        check_free(name)
    for name, kind in kinds.items():
        check_known(name, given)
        if not isinstance(kind, Classes | Field):
            raise InvalidTypeError(
                f"the kind of {name!r} must be Classes(n) or Field(shape), got {quoted(kind)}"
            )
    return {name: _checked(name, rows, n, kinds.get(name)) for name, rows in found.items()}


def _checked(name: str, given: object, n: int, kind: Kind | None) -> Checked:
    names: tuple[str, ...] = ()
    if hasattr(given, "isna") and getattr(given, "ndim", 0) == 1:  # a column of pandas
        given = rows_of(given, f"condition {name!r}")
    if _is_text(given):
        given = classes_of(given, f"condition {name!r}")
    if isinstance(given, Named):
        given, names = given
    rows = given if is_store(given) else as_tensor(f"condition {name!r}", given)
    if not isinstance(rows, Tensor) and len(rows.shape) == 1:
        rows = rows.read(slice(None))  # a number for each sample
    if isinstance(rows, Tensor):
        check_dense(f"condition {name!r}", rows)
        rows = rows.detach().cpu()
        if rows.isinf().any():
            raise DataError(
                f"condition {name!r} of sample {int(rows.isinf().nonzero()[0, 0])} is infinite; "
                "write NaN for missing values"
            )
    if not rows.shape or rows.shape[0] != n:
        raise ShapeError(
            f"condition {name!r} must have one row for each of {n} samples, got shape "
            f"{tuple(rows.shape)}"
        )
    dtype = rows.dtype if isinstance(rows, Tensor) else rows.read(slice(1)).dtype
    if dtype == torch.bool or dtype.is_complex:
        way = "torch.view_as_real(y)" if dtype.is_complex else "y.long(), labels of 2 classes"
        raise InvalidTypeError(
            f"condition {name!r} takes integer labels or floats, got {dtype}; pass {way}"
        )
    image = dtype == torch.uint8 and len(rows.shape) > 2
    if kind is None and len(rows.shape) > 1 and not (dtype.is_floating_point or image):
        raise InvalidTypeError(
            f"condition {name!r} has integers of shape {tuple(rows.shape)}; give labels with one "
            "axis, y[:, 0], or other numbers as floats, y.float()"
        )
    if isinstance(kind, Classes) or (kind is None and _is_label(rows)):
        return Checked(*_labels(name, rows, kind, names))
    return Checked(*_field(name, rows, kind, names))


def _is_text(given: object) -> TypeGuard[Sequence[Any]]:
    """Return True for a sequence of class names, which may contain None."""
    row = isinstance(given, list | tuple) or (isinstance(given, np.ndarray) and given.ndim == 1)
    known = [one for one in given if one is not None] if row else []  # type: ignore[attr-defined]
    return bool(known) and all(isinstance(one, str) for one in known)


def _is_label(rows: Tensor | Store) -> bool:
    return isinstance(rows, Tensor) and not rows.is_floating_point() and rows.ndim == 1


def _labels(
    name: str, rows: Tensor | Store, kind: Classes | None, names: tuple[str, ...]
) -> tuple[Tensor, Classes]:
    rows = rows if isinstance(rows, Tensor) else rows.read(slice(None))
    if rows.ndim != 1:
        raise ShapeError(
            f"condition {name!r}, labels, must have shape ({len(rows)},), one for each sample; got "
            f"{tuple(rows.shape)}"
        )
    if rows.is_floating_point():  # a column in which some labels are missing is read as floats
        whole = rows.nan_to_num(-1.0)
        if not torch.equal(whole, whole.round()):
            raise InvalidTypeError(
                f"condition {name!r}, labels, must be integers, got {rows.dtype} with fractions"
            )
        rows = whole
    rows = rows.long()
    if names:
        found = Classes(len(names), names)
        kind = found if kind is None else kind
        if not kind.names and kind.n != found.n:
            raise InvalidValueError(
                f"condition {name!r} has the classes {some(map(repr, names))}, but its kind has "
                f"{kind.n} classes without names, whose order is unknown; give Classes({kind.n}, "
                "names=...), or give numbers as labels"
            )
        rows = numbered_as(name, rows, found, kind)
        kind = kind if kind.names else found
    low, high = int(rows.min()), int(rows.max())
    if kind is None and low == 1 < high and len(rows) >= _MANY * high:
        warnings.warn(
            f"the labels of {name!r} are 1 to {high}, so a model will have {high + 1} classes, "
            "but class 0 has no samples; number the classes from 0, or give their names as text",
            UserWarning,
            stacklevel=outside(),
        )
    if kind is None and high > _HIGHEST:
        raise DataError(
            f"the highest label of {name!r} is {high:,}, so a model would have as many classes; "
            "number the classes from 0, or give their names as text"
        )
    kind = Classes(max(high, 0) + 1) if kind is None else kind
    wrong = (rows < -1) | (rows >= kind.n)
    if wrong.any():
        raise DataError(
            f"labels of {name!r} lie in [{low}, {high}], expected [0, {kind.n - 1}], or -1 for a "
            f"missing label; sample {int(wrong.nonzero()[0])} has the first wrong label"
        )
    return rows, kind


def _field(
    name: str, rows: Tensor | Store, kind: Field | None, names: tuple[str, ...]
) -> tuple[Tensor | Store, Field]:
    if isinstance(rows, Tensor):
        image = rows.dtype == torch.uint8 and rows.ndim > 2
        if rows.dtype == torch.float64 and rows.ndim:  # models compute in float32
            rows = torch.from_numpy(narrow(rows.numpy()))
        elif rows.dtype != torch.float32 and not image:
            rows = rows.float()
        if rows.dtype == torch.float64 and (lost := rows.float().isinf()).any():
            raise DataError(
                f"condition {name!r} of sample {int(lost.nonzero()[0, 0])} overflows in float32, "
                "in which models compute; scale it"
            )
        if rows.ndim == 1 and (kind is None or kind.shape == (1,)):
            rows = rows[:, None]  # a number becomes a vector of one entry
    if 0 in rows.shape[1:]:
        raise ShapeError(f"condition {name!r} is empty: shape {tuple(rows.shape)}")
    shape = tuple(rows.shape[1:])
    names = kind.names if kind is not None and kind.names else names
    found = Field(shape, names if shape == (len(names),) else ())
    if kind is not None and kind != found:
        raise ShapeError(
            f"condition {name!r} has rows of shape {found.shape}, but its kind has {kind.shape}; "
            "give rows of that shape, or another kind"
        )
    return rows, found


def renumbered(
    conditions: Mapping[str, Tensor | Store], kinds: Mapping[str, Kind], known: Mapping[str, Kind]
) -> tuple[dict[str, Tensor | Store], dict[str, Kind]]:
    """Put conditions and their kinds in the order of a model's classes and columns.

    Raises:
        InvalidValueError: The model does not have one of the classes, or one of the columns.
    """
    rows, found = dict(conditions), dict(kinds)
    for name, kind in known.items():
        label, mine = rows.get(name), found.get(name)
        if label is not None and isinstance(mine, Field) and isinstance(kind, Field):
            if places := places_of(mine.names, kind.names, f"the columns of {name!r}"):
                moved = Reordered(store_of(label), places)
                in_memory = isinstance(label, Tensor)
                rows[name], found[name] = moved.read(slice(None)) if in_memory else moved, kind
            continue
        if not (isinstance(mine, Classes) and isinstance(kind, Classes)):
            continue
        if isinstance(label, Tensor) and kind.names and (mine.names or mine.n <= kind.n):
            rows[name], found[name] = numbered_as(name, label, mine, kind), kind
    return rows, found


def surveyed(name: str, rows: Tensor | Store) -> Survey:
    """Return moments and checksum of a condition; missing numbers are left out of the moments."""
    return survey(store_of(rows), what=f"condition {name!r}", missing=True)


def moments_of(name: str, found: Survey) -> ConditionMoments:
    """Return the moments of a condition for each entry of a vector or channel of a field.

    Raises:
        DataError: The differences between the numbers are too small for float32.
    """
    shape = tuple(found.mean.shape[:1]) or (1,)
    rows, var, n = (part.double().reshape(*shape, -1) for part in (found.mean, found.var, found.n))
    share = n / n.sum(1, keepdim=True).clamp_min(1)
    mean = (share * rows).sum(1)
    total = (share * (var + (rows - mean[:, None]).square())).sum(1)
    low = rows.masked_fill(n == 0, torch.inf).amin(1)
    high = rows.masked_fill(n == 0, -torch.inf).amax(1)
    varies = (var > 0).any(1) | (low < high)
    mean = mean.where(varies, low.nan_to_num(posinf=0.0))
    std = total.sqrt().where(varies, 1.0)
    steps = torch.finfo(torch.float32).eps * mean.abs() / std
    if bool((varies & (steps > _COARSE)).any()):
        worst = int((steps * varies).argmax())
        raise DataError(
            f"condition {name!r} has a mean of {float(mean[worst]):.6g} and a standard deviation "
            f"of {float(std[worst]):.3g}, which is too small for float32; subtract a constant"
        )
    axes = found.mean.shape[:1] + (1,) * (found.mean.ndim - 1)
    return ConditionMoments(mean.reshape(axes), std.reshape(axes))

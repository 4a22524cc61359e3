"""Choose the samples and the conditions from named arrays."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from scoresde.checks import check_name, outside
from scoresde.data.given import as_tensor
from scoresde.data.samples import Data
from scoresde.data.stores import channels_first, plain
from scoresde.data.wanted import Wanted
from scoresde.errors import DataError, InvalidTypeError, ShapeError
from scoresde.units import BYTES, DEEP, Identity, Transform

__all__ = ["LABELS", "SAMPLES", "check_numbers", "from_arrays", "key_of", "units_of"]

SAMPLES, LABELS = ("x", "images"), ("y", "labels")
"""The usual names of the samples, and of the labels."""


def key_of(names: Sequence[str], wanted: Wanted, what: str) -> str:
    """Return the name of the array that holds the samples.

    Raises:
        DataError: `sample` is empty, and no array has one of the usual names for samples.
        UnknownNameError: No array has the name in `sample`.
        InvalidTypeError: `sample` has several names.
    """
    if wanted.sample:
        if len(wanted.sample) > 1:
            raise InvalidTypeError(
                f"sample= names several columns ({', '.join(wanted.sample)}), which only tables "
                f"allow; for {what} give the name of one array"
            )
        check_name("array", wanted.sample[0], names)
        return wanted.sample[0]
    key = next((name for name in SAMPLES if name in names), None)
    if key is None:
        raise DataError(
            f"{what} has the keys {', '.join(names) or '(none)'}; say which are the samples, "
            f"sample={next(iter(names), 'x')!r}, or call them 'x' or 'images', and the labels 'y' "
            "or 'labels'"
        )
    return key


def from_arrays(
    what: str,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    wanted: Wanted,
    *,
    names: Collection[str] | None = None,
) -> Data:
    """Return the data of named arrays: one array as the samples, others as their conditions.

    If the user names no array as a condition, the conditions are the other arrays with the same
    number of rows that hold labels, text, floats or images. Integers called "y" or "labels" are the
    condition `label`.

    Args:
        what: The name of the source, for errors.
        arrays: The arrays by name.
        wanted: The choice of samples and conditions.
        names: The names of all entries of the source, including those that are not arrays; by
            default the names of the arrays.

    Raises:
        DataError: There are no samples, or several arrays have a name of labels.
        InvalidTypeError: The samples are not numbers, or are integers other than unsigned 8-bit or
            16-bit ones.
        ShapeError: The samples are one number, or a wanted condition has another number of rows.
    """
    key = key_of(list(arrays), wanted, what)
    x = arrays[key]
    check_numbers(what, x.dtype)
    if not x.ndim:
        raise ShapeError(f"{key!r} in {what} is one number; samples have shape (N, *event)")
    others = {name: rows for name, rows in arrays.items() if name != key}
    found = {
        name: rows
        for name, rows in others.items()
        if rows.shape[:1] == x.shape[:1] and rows.dtype.kind in "fiubcUO"
    }
    labels = [k for k, v in found.items() if k in LABELS and v.dtype.kind in "iu"]
    called = [*labels, *({"label"} & found.keys())]
    if labels and len(called) > 1:
        raise DataError(
            f"{what} has labels called {' and '.join(map(repr, called))}; keep one of them"
        )
    rows_by_name: dict[str, Any] = {}
    for name, rows in found.items():
        images = rows.dtype == np.uint8 and rows.ndim > 2
        usual = "label" if name in labels else name
        rows_by_name[usual] = channels_first(rows, what) if images else rows
    usable = [name for name, rows in rows_by_name.items() if _usable(rows)]
    if not wanted.condition:
        known = ({*arrays} if names is None else {*names}) - {key}
        for name in (*LABELS, "label"):
            if name in known and not {name, "label" if name in labels else name} & {*usable}:
                warnings.warn(
                    f"{what} has {name!r}, which is not used as a condition; labels must be "
                    f"integers of shape ({len(x)},), such as y[:, 0], and vectors must be floats",
                    UserWarning,
                    stacklevel=outside(),
                )
    return wanted.data(
        as_tensor(
            f"{key!r} in {what}",
            channels_first(x, what, as_is=wanted.layout is not None).astype(
                plain(x.dtype), copy=False
            ),
        ),
        rows_by_name,
        unasked=usable,
        transform=units_of(x.dtype),
    )


def units_of(dtype: np.dtype[Any]) -> Transform:
    """Return the transform to model units for numbers of this dtype."""
    return {1: BYTES, 2: DEEP}[dtype.itemsize] if _is_image(dtype) else Identity()


def check_numbers(what: str, dtype: np.dtype[Any]) -> None:
    """Raise InvalidTypeError unless samples are floats, bytes or 16-bit integers."""
    if dtype.kind not in "fuib":
        raise InvalidTypeError(f"the samples in {what} are {dtype}; they must be numbers")
    if dtype.kind != "f" and not _is_image(dtype):
        raise InvalidTypeError(
            f"the samples in {what} are {dtype}, whose range is unknown; convert them to floats, "
            "x.astype(np.float32), or images of 0 to 255 to bytes, x.astype(np.uint8)"
        )


def _is_image(dtype: np.dtype[Any]) -> bool:
    return dtype in (np.uint8, np.uint16)


def _usable(rows: np.ndarray[Any, Any]) -> bool:
    """Return True if an array can be a condition.

    It must hold integer labels, class names (text), floats, or images as bytes.
    """
    kind, axes = rows.dtype.kind, rows.ndim
    return kind == "f" or (kind in "iuUO" and axes == 1) or (rows.dtype == np.uint8 and axes > 2)

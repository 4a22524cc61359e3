"""Make data from Python values: arrays, tensors, dictionaries, lists, tuples, and `.pt` files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import check_dense, check_unmasked
from scoresde.data import stores
from scoresde.data.frames import check_order, table_of
from scoresde.data.given import as_tensor
from scoresde.data.keyed import SAMPLES, from_arrays, units_of
from scoresde.data.report import Faults
from scoresde.data.samples import Data
from scoresde.data.stores import channels_first, narrow, plain
from scoresde.data.tables import Table
from scoresde.data.torch_file import read_torch
from scoresde.data.torch_items import SAMPLE, is_image, split_item
from scoresde.data.wanted import Wanted
from scoresde.errors import DataError, InvalidTypeError, ShapeError

__all__ = ["from_file", "from_mapping", "from_rows", "from_sequence", "is_items", "of_table"]


def from_rows(rows: object, what: str, wanted: Wanted) -> Data:
    """Make data of a tensor, an array, or nested lists of numbers.

    Unsigned integers of 8 or 16 bits are read as images.

    Raises:
        InvalidTypeError: The samples are not numbers, or are an array of integers of another width.
        ShapeError: The samples have no event dimension.
    """
    if isinstance(rows, np.ndarray) and rows.dtype.names:
        return from_mapping({name: rows[name] for name in rows.dtype.names}, what, wanted)
    x = as_tensor(what, rows)
    check_dense("x", x)
    x = x.detach()
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if isinstance(rows, list | tuple) and x.dtype == torch.int64:  # [1, 2] means [1.0, 2.0]
        x = torch.from_numpy(narrow(x.numpy().astype(np.float64), exact=True))
    if x.dtype in (torch.uint8, torch.uint16) and x.ndim > 1:
        x = x.cpu()
        units = units_of(x.numpy().dtype)
        found = channels_first(x.numpy(), what, as_is=wanted.layout is not None)
        return wanted.data(
            torch.from_numpy(found.astype(plain(found.dtype), copy=False)), transform=units
        )
    return wanted.data(x)


def from_mapping(given: Mapping[Any, Any], what: str, wanted: Wanted) -> Data:
    """Make data of a dictionary of arrays, or of columns.

    Raises:
        DataError: The dictionary is empty, or no array has a usual name for samples.
        ShapeError: The columns have different lengths.
    """
    check_order({str(k): value for k, value in given.items()})
    arrays = {str(k): _array(str(k), value) for k, value in given.items() if value is not None}
    if not arrays:
        raise DataError(f"{what} has no entries")
    named = [name for name in (wanted.sample or SAMPLES) if name in arrays]
    if len(named) == 1 and arrays[named[0]].ndim > 1:
        return from_arrays(what, arrays, wanted)
    if any(rows.ndim != 1 for rows in arrays.values()):
        return from_arrays(what, arrays, wanted)
    return of_table(table_of(what, arrays), wanted)


def of_table(table: Table, wanted: Wanted) -> Data:
    """Make data of the columns of a table: the samples and the wanted conditions."""
    without, faults = wanted.columns(table), Faults()
    with faults.gathered():
        names, x = table.samples(without, wanted.sample, missing=wanted.missing)
    if faults.any:  # report faults of the samples together with those of the conditions
        with faults.gathered():
            wanted.given(table, None)
    faults.raise_all()
    return wanted.data(x, table, unasked=(), columns=names, lines=table.lines)


def is_items(given: object) -> bool:
    """Return True for a list or tuple whose entries are pairs, dictionaries or images.

    An entry that is a tuple counts as a pair if it begins with an array, as in torch data sets. An
    entry that is a list counts as a pair if its entries have different shapes.
    """
    if not isinstance(given, list | tuple) or not given:
        return False
    first = given[0]
    if isinstance(first, Mapping) or is_image(first):
        return True
    if not isinstance(first, tuple | list) or not first or not _shape(first[0]):
        return False
    return isinstance(first, tuple) or any(_shape(one) != _shape(first[0]) for one in first[1:])


def from_sequence(given: Sequence[Any], what: str, wanted: Wanted) -> Data:
    """Make data of a list of arrays or numbers, or of a tuple `(x, y)` of arrays.

    Raises:
        ShapeError: The arrays of a tuple have different numbers of rows; or they have the same
            shape, so that all of them may be samples, or only the first.
    """
    shapes = [_shape(one) for one in given] if isinstance(given, tuple) else []
    if len(shapes) > 1 and len(shapes[0]) > 1 and all(shapes):
        if len({shape[0] for shape in shapes}) > 1:
            rows = ", ".join(str(shape[0]) for shape in shapes)
            raise ShapeError(
                f"{what} holds arrays with {rows} rows; samples and conditions need the same "
                "number of rows, and arrays that are all samples need the same shape"
            )
        if len(set(shapes)) > 1:
            named = split_item(tuple(_array(f"part {k}", one) for k, one in enumerate(given)), what)
            return from_arrays(what, {"x": named.pop(SAMPLE), **named}, wanted)
        raise ShapeError(
            f"{len(given)} arrays of shape {shapes[0]} may be {len(given)} samples, or "
            f"{shapes[0][0]} samples with conditions; write {{'x': samples, 'y': conditions}}, or "
            "np.stack(samples)"
        )
    if all(isinstance(one, Tensor) for one in given) and len({one.shape for one in given}) == 1:
        return from_rows(torch.stack([one.detach().cpu() for one in given]), what, wanted)
    return from_rows(given, "the samples", wanted)


def from_file(path: Path, wanted: Wanted) -> Data:
    """Make data of a `.pt` file that holds a tensor, or a dictionary, list or tuple of tensors.

    Raises:
        DataError: The file is damaged, or holds something else.
    """
    found = read_torch(path)
    _check_room(found, str(path))
    if isinstance(found, Tensor):
        return from_rows(found, f"the samples in {path}", wanted)
    if isinstance(found, Mapping):
        return from_mapping(found, str(path), wanted)
    if isinstance(found, list | tuple) and found:
        return from_sequence(found, str(path), wanted)
    raise DataError(
        f"{path} holds a {type(found).__name__}; save a tensor, or a dictionary of tensors"
    )


def _check_room(found: Any, what: str) -> None:
    """Raise DataError for expanded tensors, whose copies would fill the memory."""
    parts = found.values() if isinstance(found, Mapping) else found
    listed = parts if not isinstance(found, Tensor) and isinstance(parts, Iterable) else [found]
    for x in (one for one in listed if isinstance(one, Tensor)):
        held = x.untyped_storage().nbytes() if not (x.is_sparse or x.is_quantized) else 0
        if x.numel() * x.element_size() > max(held, stores.IN_MEMORY):
            raise DataError(
                f"a tensor of shape {tuple(x.shape)} in {what} has {held:,} bytes in the file, "
                "which are repeated; save x.contiguous()"
            )


def _array(name: str, value: Any) -> np.ndarray[Any, Any]:
    """Convert a value of a dictionary to an array; text becomes Python objects."""
    check_unmasked(name, value)
    if isinstance(value, Tensor):
        check_dense(name, value)
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "to_numpy"):  # a column of a pandas or polars table
        value = value.to_numpy()
    listed = list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value
    if isinstance(listed, list) and any(isinstance(one, str) or one is None for one in listed):
        known = [one for one in listed if one is not None]
        if any(isinstance(one, str) for one in known):
            return np.array(listed, dtype=object)
        listed = [np.nan if one is None else one for one in listed]
    try:
        found = np.asarray(listed)
    except ValueError as error:
        raise InvalidTypeError(
            f"{name!r} holds rows of different shapes; give all rows the same shape"
        ) from error
    return narrow(found) if found.dtype == np.float64 else found


def _shape(value: Any) -> tuple[int, ...]:
    """Return the shape of a value, or only its length if inner lists differ in length."""
    if is_image(value):
        return (value.height, value.width)
    try:
        return tuple(np.shape(value))
    except ValueError:  # inner lists of different lengths
        return (len(value),)

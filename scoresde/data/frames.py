"""Convert tables of pandas, polars and pyarrow, and dictionaries of arrays, to a `Table`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from scoresde.data.report import some
from scoresde.data.stores import narrow, plain
from scoresde.data.tables import Column, Table
from scoresde.errors import DataError, InvalidTypeError, InvalidValueError, ShapeError

__all__ = ["check_order", "column_of", "frame", "is_frame", "rows_of", "table_of"]


_LARGEST = 2**64  # Python's integers have no largest


def is_frame(source: object) -> bool:
    """Return True for a table of pandas, polars or pyarrow."""
    return any(all(hasattr(source, name) for name in names) for names in _FRAMES)


_FRAMES = (
    ("columns", "isna", "to_numpy", "dtypes"),  # pandas
    ("columns", "schema", "to_dict", "width"),  # polars
    ("column_names", "schema", "to_pydict"),  # pyarrow
)


def frame(source: Any, what: str = "the table") -> Table:
    """Convert a DataFrame (without its index) or an Arrow table to a `Table`.

    Raises:
        DataError: The table has no rows, or two columns with the same name.
        InvalidTypeError: A column holds neither numbers nor text.
    """
    names = [str(name) for name in getattr(source, "column_names", source.columns)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{what} has several columns called {some(twice)}; rename them")
    if not len(source):
        raise DataError(f"{what} has no rows")
    if not hasattr(source, "iloc"):
        lists = source.to_pydict() if hasattr(source, "to_pydict") else source.to_dict()
        return table_of(what, {name: column_of(name, lists[name]) for name in names})
    columns = {}
    for k, name in enumerate(names):
        columns[name] = _series(source.iloc[:, k], f"the column {name!r} of {what}")
    return Table(what, columns)


def check_order(tables: Mapping[str, Any]) -> None:
    """Raise InvalidValueError if tables of pandas have the same index in different orders.

    The rows of samples and conditions are matched by their position.

    Args:
        tables: Tables or columns by name; objects without a pandas index are ignored.
    """
    indexed = {name: one.index for name, one in tables.items() if hasattr(one, "iloc")}
    for name, index in indexed.items():
        first, other = next(iter(indexed.items()))
        if len(index) == len(other) and not index.equals(other) and index.isin(other).all():
            raise InvalidValueError(
                f"{name} has the index of {first} in another order, and rows are matched by their "
                f"position; sort one by the other, .loc[other.index], or drop the index, "
                ".reset_index(drop=True)"
            )


def rows_of(series: Any, what: str) -> object:
    """Return a column of pandas as numbers, as text, or as labels with -1 for missing labels.

    Raises:
        InvalidTypeError: The column holds something else.
    """
    found = _series(series, what)
    if not isinstance(found, Column):
        return list(found)
    return np.nan_to_num(found.numbers, nan=-1).astype(np.int64) if found.whole else found.numbers


def column_of(name: str, cells: Iterable[Any]) -> np.ndarray[Any, Any]:
    """Convert the cells of a column to an array; None among floats becomes NaN."""
    listed = list(cells)
    known = [cell for cell in listed if cell is not None]
    if any(isinstance(cell, str) for cell in known):
        return np.array(listed, dtype=object)
    if len(known) == len(listed):
        return np.asarray(listed)
    numbers = np.asarray(known)
    if numbers.dtype.kind not in "fiub" or numbers.ndim != 1:
        raise InvalidTypeError(f"the column {name!r} holds neither numbers nor text")
    if numbers.dtype.kind in "iu":  # keep integers as objects, since NaN would make them floats
        return np.array(listed, dtype=object)
    return np.array([np.nan if cell is None else cell for cell in listed], dtype=np.float64)


def table_of(what: str, columns: Mapping[str, np.ndarray[Any, Any]]) -> Table:
    """Convert a mapping of columns `(N,)` to a `Table`; a column holds numbers, or text and None.

    Raises:
        ShapeError: The arrays have different lengths.
        DataError: The arrays are empty.
        InvalidTypeError: An array holds neither numbers nor text.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} {n}" for name, n in lengths.items())
        raise ShapeError(
            f"the columns of {what} have different lengths: {listed}; give all the same length"
        )
    if not all(lengths.values()):
        raise DataError(f"{what} has no rows")
    return Table(what, {k: _cells(v, f"the column {k!r} of {what}") for k, v in columns.items()})


def _cells(column: np.ndarray[Any, Any], what: str) -> Column | np.ndarray[Any, Any]:
    if column.ndim != 1:
        raise InvalidTypeError(
            f"{what} holds arrays of shape {column.shape[1:]} in its cells; pass them as an array, "
            "load({'x': np.stack(column)})"
        )
    if column.dtype.kind in "fiub":
        whole = column.dtype.kind != "f"
        numbers = narrow(column.astype(np.float64), exact=True) if whole else column
        return Column(numbers.astype(plain(numbers.dtype), copy=False), whole)
    cells = np.array([str(c) if isinstance(c, str) else c for c in column.tolist()], dtype=object)
    known = [cell for cell in cells if cell is not None]
    if all(isinstance(cell, str) for cell in known) and known:
        return cells
    if known and all(isinstance(cell, int) and abs(cell) < _LARGEST for cell in known):
        numbers = np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
        return Column(narrow(numbers, exact=True), True)
    raise InvalidTypeError(
        f"{what} has dtype {column.dtype}; convert it to numbers or text, or leave it out"
    )


def _series(series: Any, what: str) -> Column | np.ndarray[Any, Any]:
    kind = getattr(series.dtype, "kind", "O")
    if kind in "fiub":
        size = getattr(series.dtype, "itemsize", 8)  # sparse columns have none
        floats = np.float32 if size <= 4 and kind == "f" else np.float64
        numbers = np.asarray(series.to_numpy(dtype=floats, na_value=np.nan))
        return Column(numbers if kind == "f" else narrow(numbers, exact=True), kind != "f")
    cells: np.ndarray[Any, Any] = np.array(series, dtype=object)
    cells[np.asarray(series.isna(), dtype=bool)] = None
    known = [cell for cell in cells if cell is not None]
    if all(isinstance(cell, str) for cell in known):
        return cells
    if all(type(cell) is int for cell in known):  # for example a categorical column
        return _cells(cells, what)
    raise InvalidTypeError(
        f"{what} has dtype {series.dtype}; convert it to numbers or text, such as by "
        ".astype(float), or leave it out, df.drop(columns=...)"
    )

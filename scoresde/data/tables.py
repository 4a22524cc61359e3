"""Tables: columns of numbers or text, from `.csv`, `.parquet` and pandas' DataFrames.

An empty cell is a NaN among numbers, and None among text.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoresde import checkpoint
from scoresde.checks import check_name
from scoresde.data.conditions import Named
from scoresde.data.report import some
from scoresde.data.stores import narrow
from scoresde.errors import DataError, InvalidTypeError, MissingExtraError

__all__ = ["Column", "Table", "classes_of", "frame", "is_frame", "read_csv", "read_parquet"]

_WHOLE = re.compile(r"[+-]?\d+")
_SEPARATORS = ",;\t"


class Column(NamedTuple):
    """Numbers of a table.

    Attributes:
        numbers: `(N,)`, floats, NaN where a cell is empty.
        whole: Whether they were written as integers.
    """

    numbers: np.ndarray[Any, Any]
    whole: bool


class Table(Mapping[str, "Column | np.ndarray[Any, Any]"]):
    """Columns by name, in their order: numbers, or text `(N,)` as Python objects.

    Args:
        what: What it is called in errors.
        columns: All of one length.
    """

    def __init__(self, what: str, columns: Mapping[str, Column | np.ndarray[Any, Any]]) -> None:
        self.what, self._columns = what, columns

    def __getitem__(self, name: str) -> Column | np.ndarray[Any, Any]:
        check_name(f"column of {self.what}", name, self._columns)
        return self._columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def samples(self, without: Collection[str]) -> Tensor:
        """The numbers of all columns but those, `(N, columns)`.

        Raises:
            DataError: No column is left, or a cell is empty.
            InvalidTypeError: A column holds text.
        """
        names = [name for name in self if name not in without]
        if not names:
            raise DataError(f"no column of {self.what} is left for the samples")
        columns = []
        for name in names:
            numbers = self.numbers(name)
            if np.isnan(numbers).any():
                raise DataError(
                    f"sample {int(np.isnan(numbers).argmax())} of {self.what} has no number in the "
                    f"column {name!r}; fill it in, remove the row, or make the column a condition"
                )
            columns.append(numbers)
        return torch.from_numpy(np.stack(columns, 1))

    def numbers(self, name: str) -> np.ndarray[Any, Any]:
        """The numbers of a column, NaN where a cell is empty.

        Raises:
            InvalidTypeError: It holds text.
        """
        column = self[name]
        if isinstance(column, Column):
            return column.numbers
        first = next(cell for cell in column if cell is not None)
        raise InvalidTypeError(
            f"the column {name!r} of {self.what} holds text, {first[:50]!r}; make it a label, "
            f"condition={{'label': {name!r}}}, or leave it out"
        )

    def in_order(self, files: Sequence[str], column: str) -> Table:
        """The rows of these files, of which a column has the names.

        Raises:
            DataError: A file has no row, or several.
        """
        place: dict[str, int] = {}
        for i, cell in enumerate(map(str, self[column])):
            if place.setdefault(cell, i) != i:
                raise DataError(f"{self.what} has several rows of the file {cell!r}; keep one")
        lost = [name for name in files if name not in place]
        if lost:
            raise DataError(
                f"{self.what} has no row of {some(lost)}; add it, with empty cells where a "
                "condition is missing"
            )
        rows = np.array([place[name] for name in files])
        return Table(
            self.what,
            {
                name: Column(value.numbers[rows], value.whole)
                if isinstance(value, Column)
                else value[rows]
                for name, value in self.items()
                if name != column
            },
        )


def classes_of(text: Iterable[Any], what: str) -> Named:
    """The classes of text in sorted order, as labels; -1 where there is none.

    Raises:
        InvalidTypeError: Most of it are numbers.
    """
    cells = [None if cell in (None, "") else str(cell) for cell in text]
    names = sorted({cell for cell in cells if cell is not None})
    words = [name for name in names if _number(name) is None]
    commas = [word for word in words if _number(word.replace(",", ".")) is not None]
    if 2 * (len(words) - len(commas)) < len(names):
        odd = [word for word in words if word not in commas] or commas
        raise InvalidTypeError(
            f"{what} holds numbers, but for {some(map(repr, odd))}; leave the cells of missing "
            "numbers empty, and write a point for a decimal comma"
        )
    numbers = {name: k for k, name in enumerate(names)}
    rows = [-1 if cell is None else numbers[cell] for cell in cells]
    return Named(torch.tensor(rows, dtype=torch.int64), tuple(names))


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


# Files


def read_csv(path: Path) -> Table:
    """The table in a text file, of columns between commas, semicolons or tabs.

    The first line has the names of the columns; where all of its cells are numbers, it is a sample
    and the columns are called "0", "1", ...

    Raises:
        DataError: The file is missing, is no text, or its lines have several lengths.
    """
    checkpoint.open_file(path).close()  # a pipe would be waited for
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            separator = max(_SEPARATORS, key=first.count)
            lines = [line for line in csv.reader(file, delimiter=separator, strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path} as a table: {error}") from error
    if not lines:
        raise DataError(f"{path} is empty")
    names = [cell.strip() for cell in lines[0]]
    if all(_number(name) is not None for name in names):
        numbered = [str(k) for k in range(len(names))]
        labels = len(names) == 1 and all(_WHOLE.fullmatch(cell.strip()) for (cell, *_) in lines)
        if names == numbered and not labels:
            raise DataError(
                f"the first line of {path}, {some(names)}, may be the names that pandas gives, or "
                "a sample; write names there, or leave pandas's out by header=False"
            )
        names = numbered
    else:
        lines = lines[1:]
    _check_header(path, names, lines)
    columns = zip(names, zip(*lines, strict=True), strict=True)
    return Table(str(path), {name: _column(cells) for name, cells in columns})


def _check_header(path: Path, names: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    if "" in names:
        raise DataError(
            f"column {names.index('')} of {path} has no name; an index that pandas wrote is left "
            "out by df.to_csv(path, index=False)"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path} has several columns called {some(twice)}; rename them")
    for i, line in enumerate(lines):
        if len(line) != len(names):
            raise DataError(
                f"sample {i} of {path} has {len(line)} cells, and there are {len(names)} columns"
            )
    if not lines:
        raise DataError(f"{path} has no rows")


def _column(cells: Sequence[str]) -> Column | np.ndarray[Any, Any]:
    stripped = [cell.strip() for cell in cells]
    try:
        numbers = np.array([cell or "nan" for cell in stripped], dtype=np.float64)
    except ValueError:
        return np.array([cell or None for cell in stripped], dtype=object)
    whole = any(stripped) and all(_WHOLE.fullmatch(cell) for cell in stripped if cell)
    return Column(narrow(numbers, exact=whole), whole)


def read_parquet(path: Path) -> Table:
    """The table in a `.parquet` file, by pandas.

    Raises:
        MissingExtraError: pandas, or what it reads such files with, is not installed.
        DataError: The file is missing or broken.
    """
    checkpoint.open_file(path).close()
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError.of("pandas", "tables", f"reading {path}") from error
    try:
        found = pandas.read_parquet(path)
    except ImportError as error:
        raise MissingExtraError.of("pyarrow", "tables", f"reading {path}") from error
    except Exception as error:  # of whatever reads it
        raise DataError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    return frame(found, str(path))


def is_frame(source: object) -> bool:
    """Whether this is a table as pandas has them."""
    return all(hasattr(source, name) for name in ("columns", "isna", "to_numpy", "dtypes"))


def frame(source: Any, what: str = "the table") -> Table:
    """The table in a DataFrame; its index is left out.

    Raises:
        DataError: It has no rows, or columns of one name.
        InvalidTypeError: A column holds neither numbers nor text.
    """
    names = [str(name) for name in source.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{what} has several columns called {some(twice)}; rename them")
    if not len(source):
        raise DataError(f"{what} has no rows")
    columns = {}
    for k, name in enumerate(names):
        columns[name] = _series(source.iloc[:, k], f"the column {name!r} of {what}")
    return Table(what, columns)


def _series(series: Any, what: str) -> Column | np.ndarray[Any, Any]:
    kind = getattr(series.dtype, "kind", "O")
    if kind in "fiu":
        floats = np.float32 if series.dtype.itemsize <= 4 and kind == "f" else np.float64
        numbers = np.asarray(series.to_numpy(dtype=floats, na_value=np.nan))
        return Column(numbers if kind == "f" else narrow(numbers, exact=True), kind != "f")
    cells: np.ndarray[Any, Any] = np.array(series, dtype=object)
    cells[np.asarray(series.isna(), dtype=bool)] = None
    if all(cell is None or isinstance(cell, str) for cell in cells):
        return cells
    raise InvalidTypeError(
        f"{what} is of {series.dtype}; columns hold numbers or text, so convert it, such as by "
        ".astype(int)"
    )

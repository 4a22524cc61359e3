"""Tables: columns of numbers or text.

An empty cell is a NaN among numbers, and None among text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import check_name
from scoresde.data.report import some
from scoresde.errors import DataError, InvalidTypeError

__all__ = ["Column", "Table", "called"]


def called(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns; none where they are numbers, as columns without names have."""
    return () if all(name.isdecimal() for name in names) else tuple(names)


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

    def samples(
        self, without: Collection[str], only: Sequence[str] = (), *, missing: str = "raise"
    ) -> tuple[tuple[str, ...], Tensor]:
        """The names and the numbers of all columns but some, or of some only, `(N, columns)`.

        Args:
            without: Which columns are something else.
            only: Which columns are meant; none means all others.
            missing: Whether an empty cell is an error, "raise", or stays as a NaN.

        Raises:
            DataError: No column is left, or cells are empty.
            InvalidTypeError: Columns hold text.
            UnknownNameError: There is no column of a name.
        """
        for name in only:
            check_name("column", name, self._columns)
        names = tuple(only) or tuple(name for name in self if name not in without)
        if not names:
            raise DataError(f"no column of {self.what} is left for the samples")
        self._check_text(names)
        x = np.stack([self.numbers(name) for name in names], 1)
        empty = np.isnan(x)
        if missing == "raise" and empty.any():
            counts = zip(names, empty.sum(0).tolist(), strict=True)
            listed = some(f"{name!r} ({count:,})" for name, count in counts if count)
            first = next(name for name, lost in zip(names, empty.any(0), strict=True) if lost)
            rows = empty.any(1)
            raise DataError(
                f"{int(rows.sum()):,} of {len(x):,} samples of {self.what}, the first is number "
                f"{int(rows.argmax())}, have empty cells, of the columns {listed}; leave these "
                f"samples out by missing='drop', make the column a condition, which may be "
                f"missing, as by condition={{{first!r}: [{first!r}]}}, or fill the cells in"
            )
        return called(names), torch.from_numpy(x)

    def numbers(self, name: str) -> np.ndarray[Any, Any]:
        """Return the numbers of a column, NaN where a cell is empty.

        Raises:
            InvalidTypeError: It holds text.
        """
        column = self[name]
        if isinstance(column, Column):
            return column.numbers
        raise self._holds_text([name])

    def _check_text(self, names: Sequence[str]) -> None:
        text = [name for name in names if not isinstance(self[name], Column)]
        if text:
            raise self._holds_text(text)

    def _holds_text(self, names: Sequence[str]) -> InvalidTypeError:
        column = self[names[0]]
        assert isinstance(column, np.ndarray)
        first = next(cell for cell in column if cell is not None)
        rest = [name for name in self if name not in names and isinstance(self[name], Column)]
        some_of = (
            f", or name the columns of numbers that are samples by sample= ({some(rest)})"
            if rest
            else ""
        )
        one = len(names) == 1
        columns = f"{'column' if one else 'columns'} {some(map(repr, names))}"
        return InvalidTypeError(
            f"the {columns} of {self.what} {'holds' if one else 'hold'} text, such as "
            f"{first[:50]!r}; make it a label, condition={{'label': {names[0]!r}}}{some_of}"
        )

    def in_order(self, files: Sequence[str], column: str) -> Table:
        """Return the rows of these files, of which a column has the names.

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

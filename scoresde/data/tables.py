"""Hold tables with columns of numbers or text.

An empty cell is NaN in a column of numbers, and None in a column of text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import check_name
from scoresde.data.classes import is_number
from scoresde.data.commas import has_comma
from scoresde.data.report import Faults, some
from scoresde.errors import DataError, InvalidTypeError

__all__ = ["Column", "Table", "called"]

# If a column has fewer cells of text, they may all be different and still be classes.
_FEW = 20


def called(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns, or nothing if all names are numbers, such as default names."""
    return () if all(name.isdecimal() for name in names) else tuple(names)


class Column(NamedTuple):
    """Hold a column of numbers.

    Attributes:
        numbers: `(N,)`, floats, NaN where a cell is empty.
        whole: True if all numbers were written as integers.
    """

    numbers: np.ndarray[Any, Any]
    whole: bool


class Table(Mapping[str, "Column | np.ndarray[Any, Any]"]):
    """Hold columns by name, in order: numbers, or text `(N,)` as Python objects.

    Args:
        what: The name of the table, for errors.
        columns: The columns, all of the same length.
        lines: The lines of the rows in a file, counted from 1, or None.
        commas: The columns whose commas were read as decimal commas.
    """

    def __init__(
        self,
        what: str,
        columns: Mapping[str, Column | np.ndarray[Any, Any]],
        lines: Sequence[int] | None = None,
        commas: Sequence[str] = (),
    ) -> None:
        self.what, self._columns, self.commas = what, columns, tuple(commas)
        self.lines = None if lines is None else torch.tensor(lines)

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
        """Return the names and the numbers `(N, columns)` of the samples' columns.

        Args:
            without: Columns that do not belong to the samples, such as conditions.
            only: The columns of the samples; by default all but `without`.
            missing: "raise" raises an error for an empty cell; otherwise an empty cell is NaN.

        Raises:
            DataError: No column is left, or cells are empty or infinite, or there are several
                faults.
            InvalidTypeError: Columns hold text.
            UnknownNameError: There is no column with one of the names.
        """
        faults = Faults()
        for name in only:
            with faults.gathered():
                check_name("column", name, self._columns)
        faults.raise_all()
        names = tuple(only) or tuple(name for name in self if name not in without)
        if not names:
            raise DataError(
                f"no column of {self.what} is left for the samples; make fewer columns conditions"
            )
        known = [name for name in names if isinstance(self[name], Column)]
        text = [name for name in names if name not in known]
        odd = [name for name in text if self.odd(name)]
        for group in ([name for name in text if name not in odd], *([name] for name in odd)):
            with faults.gathered():
                if group:
                    raise self._holds_text(group)
        x = np.stack([self.numbers(name) for name in known], 1) if known else np.zeros((1, 0))
        if missing == "raise":
            with faults.gathered():
                self._check_empty(known, np.isnan(x))
        with faults.gathered():
            self._check_finite(known, np.isinf(x))
        faults.raise_all()
        return called(names), torch.from_numpy(x)

    def place(self, i: int) -> str:
        """Return the name of row i: its line in a file, or its number."""
        return f"row {i}" if self.lines is None else f"line {int(self.lines[i])}"

    def _check_empty(self, names: Sequence[str], empty: np.ndarray[Any, Any]) -> None:
        if not empty.any():
            return
        rows = np.asarray(empty.any(1))
        where = self._counted(names, empty)
        first = next(
            name for name, lost in zip(names, np.asarray(empty.any(0)), strict=True) if lost
        )
        column = self[first]
        whole = isinstance(column, Column) and column.whole
        given = f"[{first!r}]" if whole else repr(first)
        raise DataError(
            f"{int(rows.sum()):,} of {len(rows):,} samples of {self.what} have empty cells, "
            f"{where}; leave these samples out by missing='drop', make the column a condition, "
            f"which may be missing (condition={{{first!r}: {given}}}), or fill the cells in; a "
            "model of the complete samples can draw them (scoresde inpaint --image)"
        )

    def _check_finite(self, names: Sequence[str], infinite: np.ndarray[Any, Any]) -> None:
        if infinite.any():
            raise DataError(
                f"{self.what} has infinite numbers, {self._counted(names, infinite)}; correct "
                "them, or make these cells empty and leave the samples out by missing='drop'"
            )

    def _counted(self, names: Sequence[str], cells: np.ndarray[Any, Any]) -> str:
        """Describe marked cells by their first row and their number in each column."""
        counts = zip(names, cells.sum(0).tolist(), strict=True)
        listed = some(f"{name!r} ({count:,})" for name, count in counts if count)
        columns = f"column{'' if int(cells.any(0).sum()) == 1 else 's'} {listed}"
        rows = cells.any(1)
        place = self.place(int(rows.argmax()))
        if rows.sum() == 1:
            return f"in {place}, {columns}"
        return f"the first in {place}, in the {columns}"

    def numbers(self, name: str) -> np.ndarray[Any, Any]:
        """Return the numbers of a column, NaN where a cell is empty.

        Raises:
            InvalidTypeError: The column holds text.
        """
        column = self[name]
        if isinstance(column, Column):
            return column.numbers
        raise self._holds_text([name])

    def _holds_text(self, names: Sequence[str]) -> InvalidTypeError:
        if (odd := self.odd(names[0])) is not None:
            return InvalidTypeError(odd)
        rest = [name for name in self if name not in names and isinstance(self[name], Column)]
        one = len(names) == 1
        columns = f"{'column' if one else 'columns'} {some(map(repr, names))}"
        words = {name: self._words(name) for name in names}
        known = [name for name in names if words[name]]
        column = self[names[0]]
        assert isinstance(column, np.ndarray)
        first = next(cell for cell in column if cell is not None)
        said = f"the {columns} of {self.what} {'holds' if one else 'hold'} text, such as "
        said += f"{first[:50]!r}; "
        if len(known) < len(names) and rest:
            others = [name for name in names if name not in known]
            said += f"leave out {some(map(repr, others))}, nearly all of whose words differ, by "
            said += f"sample={rest}"
            if known:
                said += f"; {known[0]!r}, of {words[known[0]]} words, may be a condition of classes"
                said += f" too, condition={known[0]!r}"
            return InvalidTypeError(said)
        which = "it" if one else f"{(known or names)[0]!r}"
        some_of = f", or set the columns of samples in sample=, out of {some(rest)}" if rest else ""
        return InvalidTypeError(
            f"{said}make {which} a condition of classes, condition={(known or names)[0]!r}{some_of}"
        )

    def _words(self, name: str) -> int:
        """Return the number of different words in a column of text, 0 if nearly all differ."""
        column = self[name]
        assert isinstance(column, np.ndarray)
        cells = [cell for cell in column if cell is not None]
        count = len(set(cells))
        return count if 2 * count <= len(cells) or len(cells) < _FEW else 0

    def odd(self, name: str) -> str | None:
        """Return a sentence about the few cells of a text column that are not numbers, or None.

        The result is None if fewer than half of the cells are numbers.
        """
        column = self[name]
        assert isinstance(column, np.ndarray)
        cells = [(i, cell) for i, cell in enumerate(column) if cell is not None]
        odd = [(i, cell) for i, cell in cells if not is_number(cell)]
        commas = [cell for _, cell in odd if has_comma(cell)]
        if not odd:
            return (
                f"the column {name!r} of {self.what} holds numbers as text; convert it, for "
                f"example by df[{name!r}].astype(float)"
            )
        if len(commas) == len(odd):
            points = [cell for _, cell in cells if "." in cell and "," not in cell]
            if points:
                return (
                    f"the column {name!r} of {self.what} has numbers with commas, such as "
                    f"{commas[0]!r}, and others with points, such as {points[0]!r}; write all of "
                    "them with decimal points"
                )
            return (
                f"the column {name!r} of {self.what} has numbers with commas, such as "
                f"{commas[0]!r}, which may be decimal commas or separate thousands; write points "
                "for decimal commas, or leave out commas between thousands"
            )
        if 2 * len(odd) > len(cells):
            return None
        listed = some((f"{cell[:50]!r} in {self.place(i)}" for i, cell in odd), most=5)
        return (
            f"the column {name!r} of {self.what} holds numbers except for {listed}; correct these "
            "cells, or leave them empty if a number is missing"
        )

    def in_order(self, files: Sequence[str], column: str) -> Table:
        """Return the rows in the order of `files`, whose names are in `column`.

        Raises:
            DataError: A file has no row, or several rows.
        """
        place: dict[str, int] = {}
        for i, cell in enumerate(map(str, self[column])):
            if place.setdefault(cell, i) != i:
                raise DataError(f"{self.what} has several rows for the file {cell!r}; keep one row")
        lost = [name for name in files if name not in place]
        if lost:
            raise DataError(
                f"{self.what} has no row for {some(lost)}; add a row, with empty cells for missing "
                "conditions"
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

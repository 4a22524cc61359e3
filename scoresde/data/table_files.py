"""Read tables in `.csv` and `.parquet` files."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scoresde.data.array_file import check_file
from scoresde.data.classes import is_number
from scoresde.data.commas import grouped, has_comma, with_points
from scoresde.data.frames import frame
from scoresde.data.report import Faults, some
from scoresde.data.stores import narrow
from scoresde.data.tables import Column, Table
from scoresde.errors import DataError, MissingExtraError

__all__ = ["read_csv", "read_parquet"]

_WHOLE = re.compile(r"[+-]?\d+")
_WITH_POINT = re.compile(r"[+-]?\d*\.\d+")
_SEPARATORS = ",;\t"
_SEP = re.compile(r'"?sep=(.)"?')  # the first line of tables for Excel
_EMPTY = {"", "na", "n/a", "nan", "null", "none", "?"}  # the texts that stand for missing numbers


def read_csv(path: Path) -> Table:
    """Read the table in a text file, with columns separated by commas, semicolons, tabs or spaces.

    The first line has the names of the columns. If all cells of the first line are numbers, it is a
    sample, and the columns are called "0", "1", ... Lines before it that start with # are comments,
    unless the last of them has a name for each column, as numpy writes it; a line such as "sep=;"
    gives the separator, as Excel reads it. Commas in numbers are read by `with_points`. If a file
    has semicolons, no decimal points and no separated thousands, all commas in numbers are decimal
    commas.

    Raises:
        DataError: The file is missing, is not text, its lines have different numbers of cells, or
            points may be decimal or separate thousands.
    """
    check_file(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            above, separator = _above(file)
            file.seek(0)
            first = [file.readline() for _ in range(above + 1)][-1].lstrip()
            if first[:1] == "#" and first[1:].lstrip()[:1] != separator:
                first = first[1:]  # numpy writes # before a header
            spaces = separator == " "  # numpy.savetxt writes spaces
            reader = csv.reader(
                itertools.chain([first], file), delimiter=separator, skipinitialspace=spaces,
                strict=True,
            )  # fmt: skip
            # a row may span several lines; the number of its last line is taken
            known = [(above + reader.line_num, line) for line in reader]
            if spaces:  # spaces at the end of a line are not an empty cell
                known = [(i, [cell for cell in line if cell]) for i, line in known]
            known = [(i, line) for i, line in known if len(line) > 1 or "".join(line).strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path} as a table: {error}") from error
    except csv.Error as error:
        raise DataError(
            f"cannot read {path} as a table: {error}, in line {above + reader.line_num}"
        ) from error
    if not known:
        raise DataError(f"{path} is empty")
    numbers, lines = ([*parts] for parts in zip(*known, strict=True))
    names = [cell.strip() for cell in lines[0]]
    if all(map(_is_numeric, names)):
        numbered = [str(k) for k in range(len(names))]
        labels = len(names) == 1 and all(_WHOLE.fullmatch(cell.strip()) for (cell, *_) in lines)
        if names == numbered and not labels:
            raise DataError(
                f"the first line of {path}, {some(names)}, may be a sample, or the default names "
                "that pandas wrote; give the columns names, or, if it is a sample, write the file "
                "without names, by df.to_csv(path, header=False)"
            )
        names = numbered
    else:
        numbers, lines = numbers[1:], lines[1:]
    _check_header(path, names, dict(zip(numbers, lines, strict=True)))
    cells = [[cell.strip() for cell in column] for column in zip(*lines, strict=True)]
    read = [with_points(column) for column in cells]
    other = any(_WITH_POINT.fullmatch(cell) for column in cells for cell in column) or any(
        "," in old and not {",", "."} & {*new}  # "1,234,567"
        for pair in zip(cells, read, strict=True)
        for old, new in zip(*pair, strict=True)
    )
    if separator == ";" and not other:
        read = [with_points(column, decimal=True) for column in cells]
    columns = {
        name: _column(column, found) for name, column, found in zip(names, cells, read, strict=True)
    }
    commas = [
        name
        for name, column, found in zip(names, cells, read, strict=True)
        if any("," in old and "." in new for old, new in zip(column, found, strict=True))
    ]
    if commas:
        _check_points(path, commas[0], dict(zip(names, cells, strict=True)))
    return Table(str(path), columns, numbers, commas)


def _above(lines: Iterable[str]) -> tuple[int, str]:
    """Return the number of lines above the table, and the separator of its cells."""
    comment, above, given = "", 0, ""
    for i, line in enumerate(lines):
        text = line.strip()
        if text.startswith("#"):
            comment, above = text, i
        elif (found := _SEP.fullmatch(line.rstrip("\r\n"))) and not i:
            given = found[1]
        elif text:
            break
    else:
        text, i = comment, above
    separator = given or max(_SEPARATORS, key=text.count)
    if not given and ";" in text and all(map(_is_numeric, text.split(";"))):
        separator = ";"  # numbers with decimal commas, without a header
    if separator not in text:
        separator = " "
    cells, names = (_cells(one, separator) for one in (text, comment.removeprefix("#")))
    named = len(names) == len(cells) and not all(map(_is_numeric, names))
    return above if comment and named and any(map(_is_numeric, cells)) else i, separator


def _cells(line: str, separator: str) -> list[str]:
    return line.split() if separator == " " else line.split(separator)


def _check_points(path: Path, other: str, columns: Mapping[str, Sequence[str]]) -> None:
    """Raise DataError if points may separate thousands, since a column has decimal commas."""
    for name, cells in columns.items():
        if (cell := grouped(cells)) is not None:
            raise DataError(
                f"the column {name!r} of {path} has numbers with points, such as {cell!r}, which "
                f"may separate thousands, since the column {other!r} has decimal commas; leave "
                "out points between thousands, or write decimal points in all columns"
            )


def _is_numeric(cell: str) -> bool:
    return is_number(cell) or has_comma(cell.strip())


def _check_header(path: Path, names: Sequence[str], lines: Mapping[int, Sequence[str]]) -> None:
    """Check the names of columns, and that each line has a cell for each column."""
    faults = Faults()
    with faults.gathered():
        if "" in names:
            raise DataError(
                f"column {names.index('')} of {path} has no name; if it is an index that pandas "
                "wrote, leave it out by df.to_csv(path, index=False)"
            )
    with faults.gathered():
        if twice := sorted({name for name in names if name and names.count(name) > 1}):
            raise DataError(f"{path} has several columns called {some(twice)}; rename them")
    with faults.gathered():
        odd = [f"{len(line)} in line {i}" for i, line in lines.items() if len(line) != len(names)]
        if odd:
            raise DataError(
                f"{path} has {len(names)} columns, but some lines have another number of cells: "
                f"{some(odd)}; correct these lines"
            )
    with faults.gathered():
        if not lines:
            raise DataError(f"{path} has no rows")
    faults.raise_all()


def _column(stripped: Sequence[str], read: Sequence[str]) -> Column | np.ndarray[Any, Any]:
    try:
        known = ["nan" if cell.lower() in _EMPTY else cell for cell in read]
        if any("_" in cell for cell in known):  # numpy reads 1_2 as 12
            raise ValueError
        numbers = np.array(known, dtype=np.float64)
    except ValueError:
        return np.array([cell or None for cell in stripped], dtype=object)
    written = [cell for cell in read if cell.lower() not in _EMPTY]
    whole = bool(written) and all(map(_WHOLE.fullmatch, written))
    return Column(narrow(numbers, exact=whole), whole)


def read_parquet(path: Path) -> Table:
    """Read the table in a `.parquet` file by pandas.

    Raises:
        MissingExtraError: pandas or pyarrow is not installed.
        DataError: The file is missing or damaged.
    """
    check_file(path)
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError.of("pandas", "tables", f"reading {path}") from error
    try:
        found = pandas.read_parquet(path)
    except ImportError as error:
        raise MissingExtraError.of("pyarrow", "tables", f"reading {path}") from error
    except Exception as error:  # pyarrow raises errors of many types
        raise DataError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    return frame(found, str(path))

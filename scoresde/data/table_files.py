"""Tables in `.csv` and `.parquet` files."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scoresde import checkpoint
from scoresde.data.classes import is_number
from scoresde.data.frames import frame
from scoresde.data.report import some
from scoresde.data.stores import narrow
from scoresde.data.tables import Column, Table
from scoresde.errors import DataError, MissingExtraError

__all__ = ["read_csv", "read_parquet"]

_WHOLE = re.compile(r"[+-]?\d+")
_SEPARATORS = ",;\t"
_EMPTY = {"", "na", "n/a", "nan", "null", "none", "?"}  # what people write where there is no number


def read_csv(path: Path) -> Table:
    """Return the table in a text file, of columns between commas, semicolons or tabs.

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
    if all(map(is_number, names)):
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
        known = ["nan" if cell.lower() in _EMPTY else cell for cell in stripped]
        numbers = np.array(known, dtype=np.float64)
    except ValueError:
        return np.array([cell or None for cell in stripped], dtype=object)
    written = [cell for cell in stripped if cell.lower() not in _EMPTY]
    whole = bool(written) and all(map(_WHOLE.fullmatch, written))
    return Column(narrow(numbers, exact=whole), whole)


def read_parquet(path: Path) -> Table:
    """Return the table in a `.parquet` file, by pandas.

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

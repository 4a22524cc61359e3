"""Choose the samples and conditions of a data source, from its columns or from other files."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import check_name
from scoresde.data.array_file import load_npy
from scoresde.data.classes import Named, classes_of
from scoresde.data.conditions import Kind, check_free
from scoresde.data.layout import Laid
from scoresde.data.missing import in_levels, without_missing
from scoresde.data.report import Faults
from scoresde.data.samples import Data
from scoresde.data.stores import channels_first, narrow, plain, store_of
from scoresde.data.table_files import read_csv, read_parquet
from scoresde.data.tables import Column, Table, called
from scoresde.errors import DataError, InvalidTypeError, InvalidValueError
from scoresde.sde import Field
from scoresde.units import Transform

__all__ = ["TABLES", "Wanted"]

TABLES = {".csv": read_csv, ".tsv": read_csv, ".txt": read_csv, ".parquet": read_parquet}
"""The readers of tables, by the suffix of the file."""

_FILES = {".npy", *TABLES}
_FILE = "file"  # the name of the column with the samples' file names


@dataclass(frozen=True)
class Wanted:
    """Hold the choice of samples and conditions.

    Every reader of a source passes the samples and arrays that it read to `wanted.data(...)`, and
    returns the result.

    Args:
        condition: A mapping from the name of a condition to its rows, a file that holds them, or
            one or several columns of the source. If any condition is a column of the source, the
            default conditions of the source are not used.
        kinds: The kinds of conditions by name.
        sample: The name of the samples' array, or the names of the samples' columns; empty for the
            usual names.
        missing: "raise" raises an error for samples with a NaN, "drop" leaves them out.
        layout: The order of the axes of a sample, as in `scoresde.data.layout`, or None.
    """

    condition: Mapping[str, Any] = field(default_factory=dict)
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    sample: tuple[str, ...] = ()
    missing: Literal["raise", "drop"] = "raise"
    layout: str | None = None

    def data(
        self,
        x: Any,
        source: Mapping[str, Any] | None = None,
        *,
        unasked: Collection[str] | None = None,
        transform: Transform | None = None,
        files: Sequence[str] | None = None,
        columns: Sequence[str] = (),
        lines: Tensor | None = None,
    ) -> Data:
        """Make data of samples with the wanted conditions.

        Args:
            x: The samples, or a `Data` object, which may have conditions.
            source: The other arrays or `Column`s of the source, by name, with a row for each
                sample.
            unasked: The names in `source` that become conditions if the user names no column; by
                default all.
            transform: The transform of the samples to model units.
            files: The names of the samples' files.
            columns: The names of the entries of a sample.
            lines: The line numbers of the samples in a text file.

        Raises:
            DataError, InvalidTypeError, ShapeError, UnknownNameError: A condition cannot be used.
        """
        if isinstance(x, Data):
            source, unasked = x.conditions, ()
            x = x.only(()) if self.columns(source) else x
        x = self._laid(torch.from_numpy(x) if isinstance(x, np.ndarray) else x)
        source = {} if source is None else source
        taken = source if unasked is None else unasked
        given = (
            {}
            if self.columns(source)
            else {name: _one(source, name, self.kinds.get(name)) for name in taken}
        )
        for name in (*given, *self.condition):
            check_free(name)
        given |= self.given(source, files)
        options: dict[str, Any] = dict(transform=transform, columns=columns, kinds=self.kinds)

        def made(rows: Any) -> Data:
            data = Data(rows, **options, **given)
            data.lines = data.lines if lines is None else lines
            return data

        data = in_levels(without_missing(x, made) if self.missing == "drop" else made(x))
        if len(self.sample) == 1 and not data.columns:
            data.called = self.sample[0]
        return data

    def given(self, source: Mapping[str, Any], files: Sequence[str] | None) -> dict[str, Any]:
        """Return the rows of the wanted conditions, by name.

        Raises:
            ScoreSDEError: Some conditions cannot be used; the message names all of them.
        """
        found, faults = {}, Faults()
        for name, rows in self.condition.items():
            with faults.gathered():
                found[name] = self._rows(name, rows, source, files)
        faults.raise_all()
        return found

    def images(self, x: Any, source: Mapping[str, Any] | None = None, **options: Any) -> Data:
        """Make data of images with the wanted conditions, as `data` does.

        Raises:
            InvalidValueError: A layout is given, but images already have their channels first.
        """
        if self.layout is not None:
            raise InvalidValueError(
                f"layout={self.layout!r} is for arrays; images already have their channels first, "
                "so leave it out"
            )
        return self.data(x, source, **options)

    def check_no_names(self, what: str) -> None:
        """Raise InvalidValueError if `sample` is given for a source without names."""
        if self.sample:
            raise InvalidValueError(
                f"sample={self.sample[0]!r} is the name of an array or a column, but {what} has no "
                "names; leave it out"
            )

    def _laid(self, x: Any) -> Any:
        """Return the samples with their channels first."""
        if self.layout is None:
            return x
        if isinstance(x, Data):
            return x.kept(self._laid(x.raw))
        found = Laid(store_of(x), self.layout)
        return found.read(slice(None)) if isinstance(x, Tensor) else found

    def columns(self, source: Collection[str]) -> set[str]:
        """Return the columns of the source that are wanted as conditions.

        Raises:
            UnknownNameError: A wanted column is not in the source.
        """
        found: set[str] = set()
        faults = Faults()
        for given in self.condition.values() if source else ():
            file = isinstance(given, str) and Path(given).suffix in _FILES
            column = isinstance(given, str) and not (file and given not in source)
            names = [given] if column else given
            if _are_names(names):
                for name in names:
                    with faults.gathered():
                        check_name("column", name, source)
                found.update(names)
        faults.raise_all()
        return found

    def _rows(
        self, name: str, given: Any, source: Mapping[str, Any], files: Sequence[str] | None
    ) -> Any:
        kind = self.kinds.get(name)
        if isinstance(given, str) and given in source:
            return _one(source, given, kind)
        if source and _are_names(given):
            return Named(_several(source, given), called(given))
        if isinstance(given, str | os.PathLike):
            return _of_file(name, given, kind, files)
        return given


def _are_names(given: object) -> bool:
    return isinstance(given, list | tuple) and any(isinstance(name, str) for name in given)


def _one(source: Mapping[str, Any], name: str, kind: Kind | None) -> Any:
    """Convert a column of integers or text to labels, unless `kind` is a Field.

    Other columns are returned unchanged. Text for a Field is an error.
    """
    value = source[name]
    if isinstance(value, Column):
        if value.whole and not isinstance(kind, Field):
            return torch.from_numpy(np.nan_to_num(value.numbers.astype(np.float64), nan=-1)).long()
        return value.numbers
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        if isinstance(kind, Field):
            raise InvalidTypeError(
                f"the column {name!r} holds text, but the model takes numbers for this condition "
                f"({kind}); use decimal points, and leave cells of missing numbers empty"
            )
        try:
            return classes_of(value.tolist(), f"the column {name!r}")
        except InvalidTypeError as error:
            odd = source.odd(name) if isinstance(source, Table) else None
            raise (InvalidTypeError(odd) if odd else error) from None
    return value


def _several(source: Mapping[str, Any], names: Sequence[str]) -> np.ndarray[Any, Any]:
    """Join the numbers of several columns, `(N, columns)`."""
    parts = []
    for name in names:
        check_name("column", name, source)
        value = source.numbers(name) if isinstance(source, Table) else np.asarray(source[name])
        if value.dtype.kind not in "fiu" or value.ndim > 2:
            raise InvalidTypeError(
                f"the column {name!r} holds {value.dtype} of shape {value.shape}; only columns of "
                "numbers and vectors can be combined into one condition"
            )
        parts.append(value.astype(plain(value.dtype)) if value.dtype.kind == "f" else narrow(value))
    return np.column_stack(parts)


def _of_file(
    name: str,
    given: str | os.PathLike[str],
    kind: Kind | None,
    files: Sequence[str] | None,
) -> Any:
    """Read the rows in a `.npy` file or a table.

    The rows of a table with a column "file" are put in the order of the samples' files.
    """
    path = Path(given).expanduser()
    if path.suffix == ".npy":
        found = load_npy(path)
        if isinstance(found, np.ndarray) and found.dtype == np.uint8 and found.ndim > 2:
            return channels_first(found, path)
        return found
    if path.suffix in TABLES:
        table = TABLES[path.suffix](path)
        if files is not None and _FILE in table:
            table = table.in_order(files, _FILE)
        names = list(table)
        if len(names) == 1:
            return _one(table, names[0], kind)
        return Named(_several(table, names), called(names))
    raise DataError(
        f"condition {name!r} is {os.fspath(given)!r}, which is not a file of conditions; give a "
        f".npy or {' or '.join(TABLES)} file, or the values"
    )

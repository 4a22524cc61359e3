r"""Load data sets of Hugging Face's `datasets`, by name, from a saved folder, or as objects.

An object needs `column_names`, a length, and `[i]`, which returns a row as a dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scoresde.checks import check_name
from scoresde.data.classes import Named
from scoresde.data.frames import column_of, table_of
from scoresde.data.images import Size, keep, opened
from scoresde.data.keyed import key_of, units_of
from scoresde.data.samples import Data
from scoresde.data.stores import Rows
from scoresde.data.values import of_table
from scoresde.data.wanted import Wanted
from scoresde.errors import DataError, InvalidValueError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PREFIX", "from_hub", "from_table", "is_table"]

PREFIX = "hf:"


def from_hub(
    source: str, split: str | None, size: Size, wanted: Wanted, *, lazy: bool | None
) -> Data:
    """Return the data set `hf:name`, `hf:name:split` or `hf:name:split:column`.

    Args:
        source: `hf:` and the name of the data set on the hub, or a folder that `save_to_disk`
            wrote.
        split: The split, if `source` does not name one; by default "train".
        size: The size that images are resized to.
        wanted: The conditions.
        lazy: As for a folder of images.

    Raises:
        MissingExtraError: The package `datasets` is not installed.
        InvalidValueError: The name has a wrong form, or the split is given twice.
        DataError: The data set cannot be loaded.
    """
    name, *rest = source.removeprefix(PREFIX).split(":")
    if not name or len(rest) > 2 or (rest and split is not None):
        raise InvalidValueError(
            f"{source!r} with split={split!r} is not the name of a data set; write hf:name, "
            "hf:name:split or hf:name:split:column"
        )
    part, column = [*rest, None, None][:2] if rest else (split, None)
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError.of("datasets", "datasets", f"the data set {source!r}") from error
    try:
        if Path(name).is_dir() and any(Path(name).glob("*.json")):
            table = datasets.load_from_disk(name)
            table = table if is_table(table) and not part else table[part or "train"]
        else:
            table = datasets.load_dataset(name, split=part or "train")
    # the network, the hub and the file formats raise errors of many types
    except Exception as error:
        raise DataError(f"cannot load {source!r}: {' '.join(str(error).split())}") from error
    return from_table(table, column or None, size, wanted, lazy=lazy)


def is_table(source: object) -> bool:
    """Return True for an object with `column_names` and rows."""
    return isinstance(getattr(source, "column_names", None), list) and hasattr(
        source, "__getitem__"
    )


def from_table(
    table: Any, column: str | None, size: Size, wanted: Wanted, *, lazy: bool | None
) -> Data:
    """Return the samples in a column of a table, with the labels or the wanted conditions.

    A data set that has only numbers and text is read like a pandas table.

    Args:
        table: The data set.
        column: The column of the samples, which must be images, or arrays of the same shape. By
            default it is the first such column that is not wanted as a condition.
        size: The size that images are resized to.
        wanted: The conditions; by default the labels, if there are any.
        lazy: As for a folder of images.

    Raises:
        UnknownNameError: There is no such column.
        DataError: There are no rows, or there is no column of samples.
    """
    if len(table) == 0:
        raise DataError("the data set has no rows")
    row, stored = table[0], Columns(table)
    others = wanted.columns(stored)
    if wanted.sample and len(wanted.sample) == 1 and np.ndim(row.get(wanted.sample[0], 0)):
        column = key_of(list(stored), wanted, "the data set")
    names = [n for n in table.column_names if _is_image(row[n]) or np.ndim(row[n]) > 0]
    numbers = any(isinstance(_plain(value), int | float) for value in row.values())
    if not names and column is None and numbers:
        listed = {name: column_of(name, table[name]) for name in table.column_names}
        return of_table(table_of("the data set", listed), wanted)
    if column is None:
        column = next((n for n in names if n not in others), None)
    if column is None:
        raise DataError(
            f"no column of {', '.join(table.column_names)} holds images or arrays of numbers"
        )
    check_name("column", column, table.column_names)
    labelled = stored.label in row and column != stored.label and stored.are_labels
    unasked = ["label"] if labelled else []
    cells = Cells(table, column)
    if not _is_image(row[column]):
        rows = Rows(len(table), cells.get, f"the column {column!r}")
        return wanted.data(rows, stored, unasked=unasked, transform=units_of(rows.given))
    found = opened(cells, size)
    images = keep(found, lazy)
    return wanted.images(images, stored, unasked=unasked, transform=found.units)


class Columns(Mapping[str, Any]):
    """Read the columns of a table when they are needed; "label" also finds "labels"."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.label = "labels" if "label" not in table.column_names else "label"

    def __getitem__(self, name: str) -> Any:
        name = self.label if name == "label" else name
        values = [_plain(value) for value in self.table[name]]
        text = any(isinstance(value, str) for value in values)
        if name == self.label and self.are_labels and not text:
            values = [-1 if value is None else value for value in values]
        names = getattr(getattr(self.table, "features", {}).get(name), "names", None)
        if names and all(isinstance(value, int) for value in values):
            return Named(torch.tensor(values), tuple(names))
        return np.array(values, dtype=object) if text else np.asarray(values)

    @cached_property
    def are_labels(self) -> bool:
        """Return True if the labels are integers or text; some may be missing."""
        known = [_plain(value) for value in self.table[self.label] if value is not None]
        kinds = (int, str)
        return any(known != [] and all(isinstance(one, kind) for one in known) for kind in kinds)

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.column_names)

    def __len__(self) -> int:
        return len(self.table.column_names)


@dataclass(frozen=True)
class Cells:
    """Read the cells of one column of a table."""

    table: Any
    column: str

    def __len__(self) -> int:
        return len(self.table)

    def get(self, i: int) -> Any:
        """Return cell i, if possible without decoding the other columns of its row."""
        return self.table[i][self.column]

    def open(self, i: int) -> Image:
        """Return image i."""
        image: Image = self.get(i)
        return image

    def name(self, i: int) -> str:
        """Return the position of cell i, for errors."""
        return f"in row {i} of the column {self.column!r}"


def _plain(value: Any) -> Any:
    """Convert a scalar of torch or numpy to a Python number; return anything else unchanged."""
    return value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value


def _is_image(value: object) -> bool:
    return hasattr(value, "getexif")

r"""Data sets of Hugging Face's `datasets`: by name, from its `save_to_disk`, or as an object.

What an object must have is little: `column_names`, its length, and `[i]`, which gives a row as a
dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scoresde.checks import check_name
from scoresde.data.images import Size, joined, keep, look
from scoresde.data.samples import Data, labelled
from scoresde.data.stores import Rows, in_threads
from scoresde.errors import DataError, InvalidValueError, MissingExtraError
from scoresde.units import BYTES, Identity

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PREFIX", "from_hub", "from_table", "is_table"]

PREFIX = "hf:"


def from_hub(source: str, split: str | None, size: Size, *, lazy: bool | None) -> Data:
    """The data set `hf:name`, `hf:name:split` or `hf:name:split:column`.

    Args:
        source: Its name on the hub, or a folder that `save_to_disk` wrote.
        split: The split, where the name has none; "train" without either.
        size: What images are resized to.
        lazy: As for a folder of images.

    Raises:
        MissingExtraError: The package `datasets` is not installed.
        InvalidValueError: The name cannot be understood, or the split is given twice.
        DataError: It cannot be loaded.
    """
    name, *rest = source.removeprefix(PREFIX).split(":")
    if not name or len(rest) > 2 or (rest and split is not None):
        raise InvalidValueError(
            f"{source!r} with split={split!r} is no data set; write hf:name, hf:name:split or "
            "hf:name:split:column"
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
    except Exception as error:  # a network, a hub and a dozen formats fail in many ways
        raise DataError(f"cannot load {source!r}: {' '.join(str(error).split())}") from error
    return from_table(table, column or None, size, lazy=lazy)


def is_table(source: object) -> bool:
    """Whether this is a data set with rows and columns."""
    return isinstance(getattr(source, "column_names", None), list) and hasattr(
        source, "__getitem__"
    )


def from_table(table: Any, column: str | None, size: Size, *, lazy: bool | None) -> Data:
    """The samples of a column, and the labels beside it.

    Args:
        table: The data set.
        column: The samples: images, or arrays of one shape; by default the first such column.
        size: What images are resized to.
        lazy: As for a folder of images.

    Raises:
        UnknownNameError: There is no such column.
        DataError: There are no rows, or no column of samples.
    """
    if len(table) == 0:
        raise DataError("the data set has no rows")
    row = table[0]
    names = [n for n in table.column_names if _is_image(row[n]) or np.ndim(row[n]) > 0]
    if column is None and not names:
        raise DataError(
            f"no column of {', '.join(table.column_names)} holds images or arrays of numbers"
        )
    column = names[0] if column is None else column
    check_name("column", column, table.column_names)
    label, classes = _labels(table, row, column)
    cells = Cells(table, column)
    if not _is_image(row[column]):
        rows = Rows(len(table), cells.get, f"the column {column!r}")
        return labelled(rows, label, classes, BYTES if rows.bytes else Identity())
    looks = list(in_threads(partial(look, cells), range(len(table))))
    for i, found in enumerate(looks):
        if found.error:
            raise DataError(f"cannot read the image {cells.name(i)}: {found.error}")
    images = joined(cells, looks, size)
    return labelled(keep(images, lazy), label, classes)


@dataclass(frozen=True)
class Cells:
    """One column of a table."""

    table: Any
    column: str

    def __len__(self) -> int:
        return len(self.table)

    def get(self, i: int) -> Any:
        """Cell i; its row's other columns are not decoded where the table can leave them out."""
        return self.table[i][self.column]

    def open(self, i: int) -> Image:
        """Image i."""
        image: Image = self.get(i)
        return image

    def name(self, i: int) -> str:
        """The row and the column."""
        return f"in row {i} of the column {self.column!r}"


def _is_image(value: object) -> bool:
    return hasattr(value, "getexif")


def _labels(table: Any, row: dict[str, Any], column: str) -> tuple[torch.Tensor | None, int | None]:
    for name in ("label", "labels"):
        if name != column and isinstance(row.get(name), int):
            feature = getattr(table, "features", {}).get(name)
            return torch.tensor(list(table[name])), getattr(feature, "num_classes", None)
    return None, None

"""Split the items of a torch data set into a sample and its conditions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import check_dense, check_unmasked, quoted
from scoresde.data import stores
from scoresde.data.classes import Named
from scoresde.data.stores import Rows, channels_first, narrow
from scoresde.errors import DataError, InvalidTypeError
from scoresde.locks import ThreadLock

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "SAMPLE",
    "SAMPLES",
    "Columns",
    "Items",
    "Pictures",
    "as_array",
    "is_image",
    "nbytes",
    "split_item",
]

SAMPLE = ""  # the key of the sample, which cannot be the name of a condition
SAMPLES = ("x", "images", "image")
"""The usual names of the sample in a dictionary."""
_LABELS = ("y", "labels")
_ALONE = ThreadLock()  # a data set may not be thread-safe


class Items:
    """Read the items of a data set, each as a dictionary of a sample and its conditions.

    Args:
        source: The data set, with a length and `[i]`.
        what: The name of the data set, for errors.
        sample: The key of the sample in dictionaries, if it is not a usual name.
        as_is: Keep the order of axes of bytes; otherwise images become `(C, H, W)`.

    Raises:
        DataError: The data set has no length, or no items.
    """

    def __init__(
        self, source: Any, what: str, sample: Sequence[str] = (), *, as_is: bool = False
    ) -> None:
        self.source, self.what = source, what
        self._called, self._as_is = tuple(sample) or SAMPLES, as_is
        self._places: dict[int, tuple[str, int]] = {}
        try:
            self._n = len(source)
        except Exception as error:  # code of the user may raise any error
            raise DataError(f"{what} has no length: {error}; give it a method __len__") from error
        if self._n == 0:
            raise DataError(f"{what} has no samples")

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return item i.

        Raises:
            DataError: The item cannot be read, or has no sample; the message names it.
        """
        try:
            with _ALONE():
                item = self.source[i]
        except Exception as error:  # code of the user may raise any error
            raise self._unreadable(i, error) from error
        found = split_item(item, self.name(i), self._called)
        self._check_places(item, found, i)
        if found[SAMPLE] is None:
            raise DataError(f"{self.name(i)} is None; leave it out of the data set")
        for image in filter(is_image, found.values()):
            try:
                image.load()
            except Exception as error:  # Pillow's decoders may raise any error
                image.close()
                raise self._unreadable(i, error) from error
        return found

    def _check_places(self, item: Any, found: Mapping[str, Any], i: int) -> None:
        """Raise an error if an entry of tuples is a label in some items and floats in others."""
        if not isinstance(item, tuple | list):
            return
        for k, value in enumerate(item[1:], 1):
            name = next((name for name, part in found.items() if part is value), None)
            if name is None or value is None:
                continue
            first, j = self._places.setdefault(k, (name, i))
            if first != name and {first, name} == {"label", "y"}:
                one, other = (i, j) if name == "label" else (j, i)
                raise DataError(
                    f"entry {k} of {self.name(one)} is a label, but entry {k} of sample {other} "
                    "holds floats; make the entries of all samples integers, or all floats"
                )

    def _unreadable(self, i: int, error: Exception) -> DataError:
        reason = " ".join(str(error).split()) or type(error).__name__
        return DataError(f"cannot read {self.name(i)}: {reason}")

    def name(self, i: int) -> str:
        """Return the name of item i, for errors."""
        return f"sample {i} of {self.what}"

    def value(self, name: str, example: np.ndarray[Any, Any], i: int) -> np.ndarray[Any, Any]:
        """Return a value of item i; a missing value becomes NaN in the shape of the example."""
        value = self[i].get(name)
        return np.full(example.shape, np.nan, example.dtype) if value is None else as_array(value)

    def sample(self, i: int) -> np.ndarray[Any, Any]:
        """Return the sample of item i, with channels first for an image of bytes."""
        x = as_array(self[i][SAMPLE])[None]
        first: np.ndarray[Any, Any] = channels_first(x, self.what, as_is=self._as_is)[0]
        return first


class Pictures:
    """Open the images of a data set for `images.joined`; some may be in memory already."""

    def __init__(self, items: Items) -> None:
        self.items = items
        self.held: dict[int, Image] = {}

    def __len__(self) -> int:
        return len(self.items)

    def open(self, i: int) -> Image:
        """Return image i."""
        image: Image = self.held[i] if i in self.held else self.items[i][SAMPLE]
        return image

    def name(self, i: int) -> str:
        """Return the name of image i, for errors."""
        return self.items.name(i)


class Columns(Mapping[str, Any]):
    """Collect the conditions of a data set item by item, each in one array.

    A condition of more than 256 MiB is not collected, but read from the items when it is needed.

    Args:
        items: The items.
        names: The names of the classes of the label, if known.
        asked: The conditions besides the label whose text becomes classes.
    """

    def __init__(
        self, items: Items, names: tuple[str, ...] = (), asked: Collection[str] = ()
    ) -> None:
        self._items, self._names, self._text = items, names, {"label", *asked}
        self._values: dict[str, list[Any]] = {}
        self._large: set[str] = set()

    def add(self, i: int, item: Mapping[str, Any]) -> None:
        """Add the conditions of item i; items come in order."""
        for name, value in item.items():
            column = self._values.setdefault(name, [])
            if name in self._large:
                continue
            column += [None] * (i - len(column))
            column.append(value)
            if value is not None and _nbytes(value) * (i + 1) > stores.IN_MEMORY:
                self._large.add(name)
                del column[:-1]

    def __getitem__(self, name: str) -> np.ndarray[Any, Any] | Rows | Named:
        column, n = self._values[name], len(self._items)
        if name in self._large:
            example = as_array(column[0])
            return Rows(n, partial(self._items.value, name, example), f"the condition {name!r}")
        cells = column + [None] * (n - len(column))
        if name in self._text and all(cell is None or isinstance(cell, str) for cell in cells):
            return np.array(cells, dtype=object)
        rows = stacked(name, cells, self._items.what)
        known = name == "label" and rows.dtype.kind in "iu" and rows.ndim == 1
        if known and rows.max(initial=-1) < len(self._names):
            return Named(torch.from_numpy(rows.astype(np.int64)), self._names)
        return rows

    def __iter__(self) -> Iterator[str]:
        return (name for name, column in self._values.items() if any(v is not None for v in column))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def split_item(item: Any, name: str, called: Sequence[str] = SAMPLES) -> dict[str, Any]:
    """Return a dictionary of an item's sample, under `SAMPLE`, and its conditions.

    Args:
        item: The item.
        name: The name of the item, for errors.
        called: The keys that the sample may have.

    Raises:
        DataError: The item has no sample, or two values would have the same name.
    """
    if isinstance(item, tuple) and hasattr(item, "_asdict"):
        fields = item._asdict()
        item = fields if set(called) & fields.keys() else tuple(item)
    if isinstance(item, Mapping):
        key = next((key for key in called if key in item), None)
        if key is None:
            keys = [str(key) for key in item]
            raise DataError(
                f"{name} is a dictionary of {', '.join(keys) or 'nothing'}; call the sample 'x', "
                f"or give its key, such as sample={next(iter(keys), 'x')!r}"
            )
        rest = {k: v for k, v in item.items() if k != key}
        labels = [k for k, v in rest.items() if k in _LABELS and _is_label(v)]
        called = [*labels, *({"label"} & rest.keys())]
        if labels and len(called) > 1:
            raise DataError(
                f"{name} has labels called {' and '.join(map(repr, called))}; keep one of them"
            )
        known = {"label" if k in labels else str(k): v for k, v in rest.items()}
        return {SAMPLE: item[key], **known}
    if not isinstance(item, tuple | list) or not item:
        return {SAMPLE: item}
    if isinstance(item[0], int | float):
        if isinstance(item, tuple):
            raise DataError(
                f"{name} is a tuple of numbers, which may be a vector or a pair; return an array, "
                "or a pair of an array and a condition"
            )
        return {SAMPLE: item}
    found: dict[str, Any] = {SAMPLE: item[0]}
    for value in item[1:]:
        if value is None:
            continue
        named = (
            value if isinstance(value, Mapping) else {"label" if _is_label(value) else "y": value}
        )
        twice = found.keys() & named.keys()
        if twice:
            raise DataError(
                f"{name} has several values that would be called {min(twice)!r}; return a "
                "dictionary, {'x': sample, 'name': value, ...}"
            )
        found |= named
    return found


def _is_label(value: Any) -> bool:
    if isinstance(value, str):
        return True
    return not is_image(value) and as_array(value).dtype.kind in "biuUO" and np.ndim(value) < 2


def is_image(value: Any) -> bool:
    """Return True for a Pillow image."""
    return hasattr(value, "getexif")


def nbytes(item: Mapping[str, Any]) -> int:
    """Return the number of bytes of an item's values."""
    return sum(_nbytes(value) for value in item.values() if value is not None)


def _nbytes(value: Any) -> int:
    if is_image(value):
        return int(len(value.getbands()) * value.width * value.height)
    return as_array(value).nbytes


def as_array(value: Any) -> np.ndarray[Any, Any]:
    """Convert a value to an array, and a Pillow image to its pixels `(C, H, W)`."""
    if isinstance(value, Tensor):
        check_dense("a value of a data set", value)
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if is_image(value):
        pixels = np.array(value)
        return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)
    check_unmasked("a value of a data set", value)
    return np.asarray(value)


def stacked(name: str, values: Sequence[Any], what: str) -> np.ndarray[Any, Any]:
    """Stack samples, or the values of a condition, into one array; None is a missing value.

    Raises:
        DataError: The values have different shapes.
        InvalidTypeError: A value is not a number.
    """
    known = [(i, as_array(value)) for i, value in enumerate(values) if value is not None]
    first = known[0][1]
    for i, value in known:
        if value.dtype.kind not in "fiubc":
            raise InvalidTypeError(
                f"{name!r} of sample {i} of {what} is {quoted(values[i])}, which is not numbers; "
                "return the number of its class, or an embedding, or make it a label, "
                f"condition={{'label': {name!r}}}"
            )
        if value.shape != first.shape:
            raise DataError(
                f"{name!r} of sample {i} of {what} has shape {value.shape}, but {name!r} of sample "
                f"{known[0][0]} has {first.shape}; all must have the same shape"
            )
    if len(known) == len(values):
        rows = np.stack([value for _, value in known])
    else:
        integers = all(value.dtype.kind in "iu" and value.ndim == 0 for _, value in known)
        rows = np.full((len(values), *first.shape), -1 if integers else np.nan)
        wide = np.result_type(np.float32, *{value.dtype for _, value in known})
        rows = rows.astype(np.int64 if integers else wide)
        for i, value in known:
            rows[i] = value
    listed = rows.dtype == np.float64 and not hasattr(values[known[0][0]], "dtype")
    return narrow(rows) if listed else rows

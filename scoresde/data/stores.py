r"""Read samples from memory, from a file, or from objects that decode them.

A store has a shape `(N, *event)` and reads rows of bytes or floats, in the user's units. Only
stores know how samples are stored.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from scoresde.errors import DataError
from scoresde.progress import showing

__all__ = [
    "IN_MEMORY",
    "PACKED",
    "PIECE",
    "InMemory",
    "Part",
    "Rows",
    "Store",
    "channels_first",
    "in_threads",
    "is_random",
    "narrow",
    "numbers",
    "parts_of",
    "pieces",
    "plain",
    "store_of",
]

IN_MEMORY = 2**28
"""The largest size of a `.npy` file or torch data set that is read into memory, 256 MiB."""
PACKED = 100
"""The largest compression ratio of real data; a larger ratio is treated as an attack."""
PIECE = 2**24
"""The largest size of one piece of float32 samples, 16 MiB."""
_THREADS = min(8, os.cpu_count() or 1)

A = TypeVar("A")
B = TypeVar("B")


@runtime_checkable
class Store(Protocol):
    """Define how raw samples are read by index."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(N, *event)`."""

    def read(self, index: Tensor | slice) -> Tensor:
        """Return the samples of an index, `(B, *event)`, uint8, float32 or float64."""


class InMemory:
    """Store samples in memory."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(N, *event)`."""
        return tuple(self.x.shape)

    def read(self, index: Tensor | slice) -> Tensor:
        """Return rows of the tensor, which for a slice are a view."""
        return self.x[index]


def store_of(rows: Tensor | Store) -> Store:
    """Make a store of a tensor; return a store unchanged."""
    return InMemory(rows) if isinstance(rows, Tensor) else rows


class Rows:
    """Read samples one at a time from a function, as arrays of the same shape.

    Args:
        n: The number of samples.
        get: A function that maps an index to a sample, an object that numpy can convert.
        what: The name of the source, for errors.
        random: True if reading the same row again gives a different sample.

    Raises:
        DataError: The samples are neither floats nor unsigned integers of 8 or 16 bits.
    """

    def __init__(
        self, n: int, get: Callable[[int], object], what: str, *, random: bool = False
    ) -> None:
        given = get(0)
        first = np.asarray(given)
        if first.dtype.kind != "f" and first.dtype not in (np.uint8, np.uint16):
            raise DataError(f"{what} holds {first.dtype}, but samples must be floats or bytes")
        self.shape = (n, *first.shape)
        self._dtype, self._get, self._what = plain(first.dtype), get, what
        self.random = random
        if self._dtype == np.float64 and not hasattr(given, "dtype"):
            # Python floats become float32 if this is exact for the first sample
            with np.errstate(over="ignore"):
                small = first.astype(np.float32)
            self._dtype = small.dtype if np.array_equal(small, first) else self._dtype
        self.given = first.dtype

    def read(self, index: Tensor | slice) -> Tensor:
        """Return these samples, stacked."""
        rows = []
        for i in numbers(self.shape[0], index):
            row = np.asarray(self._get(i), dtype=self._dtype)
            if row.shape != self.shape[1:]:
                raise DataError(
                    f"sample {i} of {self._what} has shape {row.shape}, but sample 0 has "
                    f"{self.shape[1:]}; all samples must have the same shape"
                )
            rows.append(row)
        empty = np.empty((0, *self.shape[1:]), self._dtype)
        return torch.from_numpy(np.stack(rows) if rows else empty)


class Part:
    """Store a part of another store, in a given order."""

    store: Store
    index: Tensor

    def __init__(self, store: Store, index: Tensor) -> None:
        if isinstance(store, Part):
            index = store.index[index]
            store = store.store
        self.store, self.index = store, index

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(N, *event)`."""
        return (len(self.index), *self.store.shape[1:])

    @property
    def random(self) -> bool:
        """Return True if reading the same row again gives a different sample."""
        return is_random(self.store)

    def read(self, index: Tensor | slice) -> Tensor:
        """Return rows of the part."""
        return self.store.read(self.index[index])


def is_random(store: Store) -> bool:
    """Return True if reading the same row of a store again gives a different sample."""
    return bool(getattr(store, "random", False))


def numbers(n: int, index: Tensor | slice) -> Sequence[int]:
    """Convert an index to a sequence of integers."""
    found: Sequence[int] = range(n)[index] if isinstance(index, slice) else index.tolist()
    return found


def parts_of(shape: Sequence[int]) -> list[slice]:
    """Return consecutive slices of the rows of samples `(N, *event)`.

    A slice of float32 samples has at most 16 MiB, or is one sample.
    """
    n, size = shape[0], 4 * math.prod(shape[1:])
    rows = max(1, min(PIECE // max(1, size), -(-n // _THREADS)))
    return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]


def pieces(store: Store) -> Iterator[tuple[slice, Tensor]]:
    """Yield all samples in order, as (rows, samples) for the slices of `parts_of`.

    Several threads read at the same time; progress is shown after two seconds.
    """
    n, parts = store.shape[0], parts_of(store.shape)
    with showing(n, "reading", unit="sample", delay=2) as bar:
        for part, samples in zip(parts, in_threads(store.read, parts), strict=True):
            yield part, samples
            bar.update(part.stop - part.start)


def in_threads(function: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
    """Yield `function(item)` for all items in order, computed by several threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for i in range(0, len(items), 2 * _THREADS):
            yield from pool.map(function, items[i : i + 2 * _THREADS])


def channels_first(
    x: np.ndarray[Any, Any], path: Path | str, *, as_is: bool = False
) -> np.ndarray[Any, Any]:
    """Move the channels of 8- and 16-bit integers first, `(N, C, H, W)`; keep other arrays.

    Args:
        x: The array.
        path: The name of the source, for errors.
        as_is: Return x unchanged, since a layout gives the order of its axes.

    Raises:
        DataError: Bytes do not have the shape of images.
    """
    if as_is or x.dtype not in (np.uint8, np.uint16):
        return x
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3, 4) and x.shape[3] in (1, 3, 4):
        return x.transpose(0, 3, 1, 2)
    if x.ndim == 4:
        return x
    raise DataError(
        f"the bytes in {path} have shape {x.shape}; images are (N, H, W), (N, C, H, W) or "
        "(N, H, W, C); convert other data by x.float(), or give the order of the axes, such as "
        "layout='DHW' for volumes"
    )


def plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which numbers are stored: float32, or float64 for wider floats.

    float64 is kept, since float32 is too coarse for times in seconds since 1970, for example.
    Unsigned 16-bit integers become float32, and other integers keep their dtype.
    """
    if dtype == np.uint16:
        return np.dtype(np.float32)
    if dtype.kind != "f":
        return dtype
    return np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)


def narrow(x: np.ndarray[Any, Any], *, exact: bool = False) -> np.ndarray[Any, Any]:
    """Convert numbers `(N, *)` to float32 if this is precise enough, else to float64.

    float32 is precise enough if no number changes by more than 1e-5 of the range of its column, or,
    with `exact`, if no number changes at all. In a column of equal numbers any change is small
    enough, unless a number overflows.
    """
    wide = x.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        small = wide.astype(np.float32)
        moved = np.abs(small - wide)
        known = ~np.isnan(wide)
        low = np.min(wide, axis=0, where=known, initial=np.inf)
        high = np.max(wide, axis=0, where=known, initial=-np.inf)
        spread = np.where(high > low, high - low, np.inf)
        near = (moved <= 1e-5 * spread) & (not exact)
        enough = np.all(near | ~known | (small == wide)) and not np.any(
            np.isinf(small) & np.isfinite(wide)
        )
    return small if enough else wide

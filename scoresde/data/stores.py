r"""Where samples lie: in memory, in a file, or behind something that decodes them.

A store has a shape `(N, *event)` and reads rows of raw numbers, bytes or floats, in the units that
the user has them in. Nothing else of the package knows where samples lie.
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
    "Memory",
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
"""Bytes of a `.npy` file, or of a data set of torch's, that are read into memory: 256 MiB."""
PACKED = 100
"""How many times less room real data may take in a file."""
PIECE = 2**24
"""The bytes of one piece of samples, at most."""
_THREADS = min(8, os.cpu_count() or 1)

A = TypeVar("A")
B = TypeVar("B")


@runtime_checkable
class Store(Protocol):
    """Raw samples that are read by their numbers."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(N, *event)`."""

    def read(self, index: Tensor | slice) -> Tensor:
        """Return the samples of these numbers, `(B, *event)`, uint8, float32 or float64."""


class Memory:
    """Samples in memory."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    @property
    def shape(self) -> tuple[int, ...]:
        """Return `(N, *event)`."""
        return tuple(self.x.shape)

    def read(self, index: Tensor | slice) -> Tensor:
        """Return rows of the tensor; a view for a slice."""
        return self.x[index]


def store_of(rows: Tensor | Store) -> Store:
    """Return a store of a tensor; a store as it is."""
    return Memory(rows) if isinstance(rows, Tensor) else rows


class Rows:
    """Samples that a sequence hands out one at a time, as arrays of one shape.

    Args:
        n: How many there are.
        get: The sample of a number, anything that numpy makes an array of.
        what: What they are, for errors.
        random: Whether they are others whenever they are read.
    """

    def __init__(
        self, n: int, get: Callable[[int], object], what: str, *, random: bool = False
    ) -> None:
        given = get(0)
        first = np.asarray(given)
        if first.dtype.kind != "f" and first.dtype not in (np.uint8, np.uint16):
            raise DataError(f"{what} holds {first.dtype}; samples are floats or bytes")
        self.shape = (n, *first.shape)
        self._dtype, self._get, self._what = plain(first.dtype), get, what
        self.random = random
        if self._dtype == np.float64 and not hasattr(given, "dtype"):
            # as a list's numbers are, however wide they were before
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
                    f"sample {i} of {self._what} has shape {row.shape}, sample 0 "
                    f"{self.shape[1:]}; samples have one shape"
                )
            rows.append(row)
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, *self.shape[1:])


class Part:
    """Some samples of a store, in some order."""

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
        """Return whether they are others whenever they are read."""
        return is_random(self.store)

    def read(self, index: Tensor | slice) -> Tensor:
        """Return rows of the part."""
        return self.store.read(self.index[index])


def is_random(store: Store) -> bool:
    """Return whether the samples of a store are drawn anew whenever they are read."""
    return bool(getattr(store, "random", False))


def numbers(n: int, index: Tensor | slice) -> Sequence[int]:
    """Return an index as whole numbers."""
    found: Sequence[int] = range(n)[index] if isinstance(index, slice) else index.tolist()
    return found


def parts_of(shape: Sequence[int]) -> list[slice]:
    """Return the rows of samples of a shape `(N, *event)` in their order, a few megabytes each."""
    n, size = shape[0], 4 * math.prod(shape[1:])
    rows = max(1, min(PIECE // max(1, size), -(-n // _THREADS)))
    return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]


def pieces(store: Store) -> Iterator[tuple[slice, Tensor]]:
    """Yield all samples in their order, as (rows, samples) of a few megabytes each.

    Several threads read at once, and progress is shown where that takes long.
    """
    n, parts = store.shape[0], parts_of(store.shape)
    with showing(n, "reading", unit="sample", delay=2) as bar:
        for part, samples in zip(parts, in_threads(store.read, parts), strict=True):
            yield part, samples
            bar.update(part.stop - part.start)


def in_threads(function: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
    """`map`, with several threads, of which none runs far ahead of the reader."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for i in range(0, len(items), 2 * _THREADS):
            yield from pool.map(function, items[i : i + 2 * _THREADS])


def channels_first(
    x: np.ndarray[Any, Any], path: Path | str, *, as_is: bool = False
) -> np.ndarray[Any, Any]:
    """Whole numbers of 8 or 16 bits as images `(N, C, H, W)`; other arrays as they are.

    Args:
        x: The array.
        path: What it is called in errors.
        as_is: Whether another will say which axis is which.

    Raises:
        DataError: Bytes have a shape that images do not have.
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
        "(N, H, W, C); make floats of other data, x.float(), or say which axis is which, as by "
        "layout='DHW' of volumes"
    )


def plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Bytes as they are, else the floats that hold all numbers of a dtype, as far as torch can.

    Times in seconds since 1970, say, differ by less than float32 can tell.
    """
    if dtype == np.uint16:
        return np.dtype(np.float32)
    if dtype.kind != "f":
        return dtype
    return np.dtype(np.float32 if dtype.itemsize <= 4 else np.float64)


def narrow(x: np.ndarray[Any, Any], *, exact: bool = False) -> np.ndarray[Any, Any]:
    """Return numbers that have no width of their own, `(N, *)`, as float32 where that is enough.

    It is where no number moves by more than a hundred thousandth of the spread of its column, or
    none at all where they are to be exact, as labels are.
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

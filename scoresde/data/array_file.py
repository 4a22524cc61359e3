r"""Read arrays in `.npy` files, completely or, for large files, only the rows that are needed.

A file is read by the system call `pread` and not mapped into memory. If a mapped file is truncated,
reading the missing part kills the process without a message.
"""

from __future__ import annotations

import math
import os
import weakref
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from scoresde import checkpoint
from scoresde.data import stores
from scoresde.data.stores import channels_first, numbers, plain
from scoresde.errors import DataError, MemoryLimitError
from scoresde.locks import ThreadLock

__all__ = ["ArrayFile", "Header", "check_file", "load_npy", "read_array"]

_LARGEST = 2**31  # the largest number of entries of a sample
_ALONE = ThreadLock()


@dataclass(frozen=True)
class Header:
    """Hold the header of a `.npy` file.

    Attributes:
        dtype: The type of the numbers.
        shape: `(N, *event)`.
        columns: True for Fortran order, in which the first axis varies fastest.
        start: The byte at which the numbers begin.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    columns: bool
    start: int

    @classmethod
    def of(cls, file: IO[bytes], name: str, size: int) -> Header:
        """Read the header at the start of a file of `size` bytes.

        Raises:
            DataError: The header is not valid, the array holds Python objects, or the file has a
                wrong size.
        """
        try:
            version = npy.read_magic(file)
            read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            if version not in read:
                raise ValueError(f"its version is {version}")
            shape, columns, dtype = read[version](file)
            if min(shape, default=0) < 0:
                raise ValueError(f"its shape is {shape}")
        except Exception as error:  # numpy's parser raises errors of many types
            raise DataError(
                f"{name} is not an array that numpy wrote, or its header is damaged; save it again "
                "with np.save"
            ) from error
        if dtype.hasobject:
            raise DataError(
                f"{name} holds Python objects, which can run any code when they are loaded; save "
                "numbers instead, np.save(path, np.stack(arrays).astype(np.float32))"
            )
        start = file.tell()
        expected = start + math.prod(shape) * dtype.itemsize
        if size != expected:
            raise DataError(
                f"{name} has {size:,} bytes, but its header declares {expected:,}: it was "
                "truncated or damaged; copy it again, or save it again with np.save"
            )
        return cls(dtype, tuple(shape), columns, start)


def read_array(file: IO[bytes], name: str, size: int) -> np.ndarray[Any, Any]:
    """Read the array of a `.npy` file of `size` bytes into memory.

    Raises:
        DataError: The file is damaged, or holds Python objects.
    """
    header = Header.of(file, name, size)
    content = bytearray(size - header.start)
    if file.readinto(content) != len(content):  # type: ignore[attr-defined]
        raise DataError(f"{name} is shorter than its header declares; copy it again")
    flat = np.frombuffer(content, header.dtype)
    return flat.reshape(header.shape, order="F" if header.columns else "C")


def load_npy(path: Path, *, as_is: bool = False) -> np.ndarray[Any, Any] | ArrayFile:
    """Return the array in a `.npy` file, in memory or, above 256 MiB, as an `ArrayFile`.

    Args:
        path: The file.
        as_is: Keep the order of the axes of an `ArrayFile` of bytes; otherwise it becomes images
            `(N, C, H, W)`.

    Raises:
        DataError: The file is missing or damaged, or holds Python objects.
    """
    check_file(path)
    with checkpoint.open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        small = size <= stores.IN_MEMORY
        return read_array(file, str(path), size) if small else ArrayFile(path, as_is=as_is)


def check_file(path: Path) -> None:
    """Raise DataError unless a path is a regular file that can be opened; a pipe would block."""
    try:
        checkpoint.open_file(path).close()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist{checkpoint.did_you_mean(path)}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


class ArrayFile:
    """Store samples in a `.npy` file, and read them when they are needed.

    If the object is pickled to another process, it opens the file again in that process.

    Args:
        path: The file.
        stamp: The required size and modification time of the file, if known.
        as_is: Keep the order of the axes of bytes; otherwise bytes become images `(N, C, H, W)`.

    Raises:
        DataError: The file is damaged, holds Python objects, or is in Fortran order.
        MemoryLimitError: A single sample does not fit into memory.
    """

    def __init__(
        self, path: Path, stamp: tuple[int, int] | None = None, *, as_is: bool = False
    ) -> None:
        self._as_is = as_is
        self.path = path.absolute()
        self._file = checkpoint.open_file(self.path)
        weakref.finalize(self, self._file.close)
        self._stamp = self._now() if stamp is None else stamp
        self._check()
        self._header = Header.of(self._file, str(path), self._stamp[0])
        if self._header.columns and len(self._header.shape) > 1:
            raise DataError(
                f"the samples in {path} are stored in Fortran order, and the file is too large for "
                "memory; save it with np.save(path, np.ascontiguousarray(x))"
            )
        self.dtype = self._header.dtype
        # an array without entries needs no memory
        outline = np.broadcast_to(np.zeros((), self.dtype), self._header.shape)
        self.shape = tuple(channels_first(outline, path, as_is=as_is).shape)
        try:
            if math.prod(self.shape[1:]) > _LARGEST:
                raise MemoryError
            torch.empty(self.shape[1:], dtype=torch.float64)  # the mean sample must fit into memory
        except (MemoryError, RuntimeError) as error:
            raise MemoryLimitError(
                f"one sample in {path} has the shape {self.shape[1:]}, which does not fit into "
                "memory; divide the samples into smaller ones"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(ArrayFile, as_is=self._as_is), (self.path, self._stamp)

    def read(self, index: Tensor | slice) -> Tensor:
        """Return a copy of these rows; dtypes that torch lacks become float32 or float64.

        Raises:
            DataError: The file has changed since it was opened.
        """
        chosen = numbers(self.shape[0], index)
        rows = np.empty((len(chosen), *self._header.shape[1:]), self.dtype)
        if isinstance(chosen, range) and chosen.step == 1:
            self._fill(rows, chosen.start)
        else:
            for k, i in enumerate(chosen):
                self._fill(rows[k : k + 1], i)
        self._check()
        x = channels_first(rows, self.path, as_is=self._as_is)
        return torch.from_numpy(np.array(x, dtype=plain(x.dtype), order="C"))

    def _fill(self, rows: np.ndarray[Any, Any], first: int) -> None:
        first = first + self.shape[0] if first < 0 else first
        if not 0 <= first <= self.shape[0] - len(rows):
            raise IndexError(f"there is no sample {first}")
        left = memoryview(rows.view(np.uint8).reshape(-1))  # type: ignore[arg-type]
        place = self._header.start + first * (len(left) // max(len(rows), 1))
        while left:
            count = _read_at(self._file, left, place)
            if not count:
                self._check()
                raise DataError(f"{self.path} ends before its sample {first}")
            left, place = left[count:], place + count

    def _now(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def _check(self) -> None:
        now = self._now()
        if now != self._stamp:
            raise DataError(
                f"{self.path} has changed since it was loaded: it had {self._stamp[0]:,} bytes and "
                f"now has {now[0]:,}, or its modification time differs; restore the old data to "
                "continue"
            )


def _read_at(file: IO[bytes], into: memoryview, place: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [into], place)
    with _ALONE():  # macOS before 11, and Windows
        file.seek(place)
        return file.readinto(into)  # type: ignore[attr-defined,no-any-return]

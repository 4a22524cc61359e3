"""Read data from files: `.npy`, `.npz`, `.pt`, and tables."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde import checkpoint
from scoresde.data import stores
from scoresde.data.array_file import ArrayFile, Header, load_npy, read_array
from scoresde.data.keyed import check_numbers, from_arrays, key_of, units_of
from scoresde.data.samples import Data
from scoresde.data.stores import InMemory, channels_first, plain
from scoresde.data.values import from_file, of_table
from scoresde.data.wanted import TABLES, Wanted
from scoresde.errors import DataError, ScoreSDEError

__all__ = ["READERS", "array_file"]


def array_file(path: Path, wanted: Wanted) -> Data:
    """Return the samples in a file, read by the reader in `READERS` for its suffix.

    Raises:
        DataError: The file is missing, damaged or pickled; or no name of an array is given, and
            none of its arrays is called 'x' or 'images', the usual names of samples.
        ShapeError: The samples have no event dimension.
        InvalidTypeError: The samples are not floats, bytes or unsigned 16-bit integers.
    """
    reader = READERS.get(path.suffix)
    if reader is None:
        what = "has a suffix that cannot be read" if path.exists() else "does not exist"
        if not path.exists() and (near := checkpoint.did_you_mean(path)):
            raise DataError(f"{path} {what}{near}")
        raise DataError(f"{path} {what}; pass a {', '.join(READERS)} file, or a folder of images")
    try:
        return reader(path, wanted)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist{checkpoint.did_you_mean(path)}") from error
    except ScoreSDEError:
        raise
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is not a .npz archive, or it is truncated or damaged ({error}); "
            "copy it again, or save it again with np.savez"
        ) from error
    except Exception as error:  # numpy and zipfile raise errors of many types for damaged files
        raise DataError(f"cannot read {path}: {error}") from error


def npy(path: Path, wanted: Wanted) -> Data:
    """Return the samples in a `.npy` file.

    A file above 256 MiB is not loaded; its samples are read when they are needed.
    """
    x = load_npy(path, as_is=wanted.layout is not None)
    check_numbers(str(path), x.dtype)
    store = x if isinstance(x, ArrayFile) else InMemory(_tensor(path, x, wanted))
    return wanted.data(store, transform=units_of(x.dtype))


def npz(path: Path, wanted: Wanted) -> Data:
    """Return the samples in a `.npz` file, with the conditions that `from_arrays` finds in it."""
    with checkpoint.open_file(path) as file, zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        key = key_of(list(members), wanted, str(path))
        x = _member(path, archive, members.pop(key))
        assert x is not None
        others = {name: _member(path, archive, info, len(x)) for name, info in members.items()}
    found = {name: rows for name, rows in others.items() if rows is not None}
    return from_arrays(str(path), {key: x, **found}, wanted, names=members)


def _member(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, n: int | None = None
) -> np.ndarray[Any, Any] | None:
    """Return an array of an archive.

    If n is given, return None unless the array holds n rows of numbers or text.
    """
    what = f"{info.filename.removesuffix('.npy')!r} in {path}"
    if n is not None:
        with archive.open(info) as file:
            try:
                header = Header.of(file, what, info.file_size)
            except DataError:
                return None
        if header.shape[:1] != (n,) or header.dtype.kind not in "fiubcU":
            return None
    if info.file_size > max(stores.IN_MEMORY, stores.PACKED * info.compress_size):
        # refuse zip bombs, archives that unpack to far more than their size
        raise DataError(
            f"{what} would unpack from {info.compress_size:,} to {info.file_size:,} bytes, which "
            "real data never do; if you trust the file, save it again with np.savez, which does "
            "not compress"
        )
    with archive.open(info) as file:
        return read_array(file, what, info.file_size)


def csv(path: Path, wanted: Wanted) -> Data:
    """Return the samples and the conditions in the columns of a table."""
    return of_table(TABLES[path.suffix](path), wanted)


READERS: Mapping[str, Callable[[Path, Wanted], Data]] = MappingProxyType(
    {".npy": npy, ".npz": npz, ".pt": from_file, ".pth": from_file, **dict.fromkeys(TABLES, csv)}
)
"""The readers of data files, by suffix."""


def _tensor(path: Path, x: np.ndarray[Any, Any], wanted: Wanted) -> Tensor:
    rows = channels_first(x, path, as_is=wanted.layout is not None)
    return torch.from_numpy(rows.astype(plain(x.dtype), copy=False))

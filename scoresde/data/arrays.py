"""Files of arrays: `.npy`, which stay where they are if they are large, `.npz`, and tables."""

from __future__ import annotations

import warnings
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
from scoresde.data.samples import Data
from scoresde.data.stores import Memory, channels_first, plain
from scoresde.data.wanted import TABLES, Wanted
from scoresde.errors import DataError, InvalidTypeError, ScoreSDEError
from scoresde.units import BYTES, Identity, Transform

__all__ = ["READERS", "array_file"]

_PACKED = 100  # how many times less room real data may take in a file
_SAMPLES, _LABELS = ("x", "images"), ("y", "labels")


def array_file(path: Path, wanted: Wanted) -> Data:
    """Return the samples in a file, by the reader of its suffix in `READERS`.

    Raises:
        DataError: The file is missing, broken or pickled, or does not say which array is meant.
        ShapeError: The samples have no event dimension.
        InvalidTypeError: It holds anything but floats or bytes.
    """
    reader = READERS.get(path.suffix)
    if reader is None:
        what = "has a suffix that is not read" if path.exists() else "does not exist"
        what += checkpoint.near(path) if not path.exists() else ""
        raise DataError(f"{path} {what}; pass a {', '.join(READERS)} file, or a folder of images")
    try:
        return reader(path, wanted)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist{checkpoint.near(path)}") from error
    except ScoreSDEError:
        raise
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path} is no archive that numpy wrote, or it was cut off or damaged ({error}); copy "
            "it again, or save it again with np.savez"
        ) from error
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a broken file
        raise DataError(f"cannot read {path}: {error}") from error


def npy(path: Path, wanted: Wanted) -> Data:
    """Return the array in a `.npy` file, of which one of more than 256 MiB stays where it is."""
    x = load_npy(path)
    _check(path, x.dtype)
    store = x if isinstance(x, ArrayFile) else Memory(_tensor(path, x))
    return wanted.data(store, transform=_transform(x.dtype))


def npz(path: Path, wanted: Wanted) -> Data:
    """Return the samples in a `.npz` file; its other arrays of as many rows are the conditions.

    Integers called "y" or "labels" are the label.
    """
    with checkpoint.open_file(path) as file, zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        key = next((name for name in _SAMPLES if name in members), None)
        if key is None:
            raise DataError(
                f"{path} has the keys {', '.join(members) or '(none)'}; name the samples 'x' or "
                "'images', and the labels, if any, 'y' or 'labels'"
            )
        x = _member(path, archive, members.pop(key))
        assert x is not None
        others = {name: _member(path, archive, info, len(x)) for name, info in members.items()}
    _check(path, x.dtype)
    found = {name: rows for name, rows in others.items() if rows is not None}
    labels = [k for k, v in found.items() if k in _LABELS and v.dtype.kind in "iu"]
    called = [*labels, *({"label"} & found.keys())]
    if labels and len(called) > 1:
        raise DataError(
            f"{path} has labels called {' and '.join(map(repr, called))}; keep one of them"
        )
    own: dict[str, Any] = {}
    for name, rows in found.items():
        images = rows.dtype == np.uint8 and rows.ndim > 2
        own["label" if name in labels else name] = channels_first(rows, path) if images else rows
    usable = [name for name, rows in own.items() if _usable(rows)]
    for name in [*_LABELS, "label"] if not wanted.condition else ():
        if name in members and not {name, "label" if name in labels else name} & {*usable}:
            warnings.warn(
                f"{path} has {name!r}, which is left out: labels are integers of shape ({len(x)},)"
                ", as y[:, 0] is, and vectors are floats",
                UserWarning,
                stacklevel=6,
            )
    return wanted.data(_tensor(path, x), own, unasked=usable, transform=_transform(x.dtype))


def _member(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, n: int | None = None
) -> np.ndarray[Any, Any] | None:
    """Read an array of an archive; None where it is no numbers or text of n rows."""
    what = f"{info.filename.removesuffix('.npy')!r} in {path}"
    if n is not None:
        with archive.open(info) as file:
            try:
                header = Header.of(file, what, info.file_size)
            except DataError:
                return None
        if header.shape[:1] != (n,) or header.dtype.kind not in "fiubcU":
            return None
    if info.file_size > max(stores.IN_MEMORY, _PACKED * info.compress_size):
        raise DataError(  # a small file that would fill the memory
            f"{what} has {info.file_size:,} bytes in {info.compress_size:,}, which no real "
            "data have; if it is yours, save it with np.savez, which does not compress"
        )
    with archive.open(info) as file:
        return read_array(file, what, info.file_size)


def csv(path: Path, wanted: Wanted) -> Data:
    """Return the columns of a table: those that are wanted as conditions, and the samples."""
    table = TABLES[path.suffix](path)
    return wanted.data(table.samples(wanted.columns(table)), table, unasked=())


READERS: Mapping[str, Callable[[Path, Wanted], Data]] = MappingProxyType(
    {".npy": npy, ".npz": npz, **dict.fromkeys(TABLES, csv)}
)
"""What reads a file of data, by its suffix."""


def _usable(rows: np.ndarray[Any, Any]) -> bool:
    """Whether an array can be a condition as it is: labels, names, floats or images."""
    kind, axes = rows.dtype.kind, rows.ndim
    return kind == "f" or (kind in "iuU" and axes == 1) or (rows.dtype == np.uint8 and axes > 2)


def _transform(dtype: np.dtype[Any]) -> Transform:
    return BYTES if dtype == np.uint8 else Identity()


def _tensor(path: Path, x: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(channels_first(x, path).astype(plain(x.dtype), copy=False))


def _check(path: Path, dtype: np.dtype[Any]) -> None:
    """Refuse, by name, numbers that are none or that mean nothing for certain."""
    if dtype.kind not in "fuib":
        raise InvalidTypeError(f"the samples in {path} are {dtype}; they must be numbers")
    if dtype.kind != "f" and dtype != np.uint8:
        raise InvalidTypeError(
            f"the samples in {path} are {dtype}, which do not say what they range over; convert "
            "them to floats, or to bytes"
        )

r"""Array files: `.npy`, which stay where they are if they are large, and `.npz`, which are read."""

from __future__ import annotations

import os
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
from scoresde.data.array_file import ArrayFile, read_array
from scoresde.data.samples import Data
from scoresde.data.stores import Memory, channels_first, plain
from scoresde.errors import DataError, InvalidTypeError, ScoreSDEError
from scoresde.units import BYTES, Identity

__all__ = ["READERS", "array_file"]

_PACKED = 100  # how many times less room real data may take in a file
_SAMPLES, _LABELS = ("x", "images"), ("y", "labels")


def array_file(path: Path) -> Data:
    """Return the samples in a file, by the reader of its suffix in `READERS`.

    Raises:
        DataError: The file is missing, broken or pickled, or does not say which array is meant.
        ShapeError: The samples have no event dimension.
        InvalidTypeError: It holds anything but floats or bytes, or labels that are no integers.
    """
    reader = READERS.get(path.suffix)
    if reader is None:
        what = "has a suffix that is not read" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}; pass a {' or '.join(READERS)} file, or a folder of images")
    try:
        return reader(path)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except ScoreSDEError:
        raise
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a broken file
        raise DataError(f"cannot read {path}: {error}") from error


def npy(path: Path) -> Data:
    """Return the array in a `.npy` file, of which one of more than 256 MiB stays where it is."""
    with checkpoint.open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        x = read_array(file, str(path), size) if size <= stores.IN_MEMORY else ArrayFile(path)
    _check(path, "samples", x.dtype)
    store = x if isinstance(x, ArrayFile) else Memory(_tensor(path, x))
    return Data(store, transform=BYTES if x.dtype == np.uint8 else Identity())


def npz(path: Path) -> Data:
    """Return the samples and labels in a `.npz` file, which is read as a whole."""
    arrays = {}
    with checkpoint.open_file(path) as file, zipfile.ZipFile(file) as archive:
        sizes = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for name in _SAMPLES + _LABELS:
            if name in sizes:
                what = f"{name!r} in {path}"
                _check_packing(sizes[name], what)
                with archive.open(sizes[name]) as member:
                    arrays[name] = read_array(member, what, sizes[name].file_size)
    return _data(path, arrays or dict.fromkeys(sizes))


def _check_packing(member: zipfile.ZipInfo, what: str) -> None:
    """Refuse a small file that would fill the memory."""
    if member.file_size > max(stores.IN_MEMORY, _PACKED * member.compress_size):
        raise DataError(
            f"{what} has {member.file_size:,} bytes in {member.compress_size:,}, which no real "
            "data have; if it is yours, save it with np.savez, which does not compress"
        )


READERS: Mapping[str, Callable[[Path], Data]] = MappingProxyType({".npy": npy, ".npz": npz})
"""What reads a file of data, by its suffix."""


def _data(path: Path, arrays: Mapping[str, np.ndarray[Any, Any] | None]) -> Data:
    x = next((arrays[k] for k in _SAMPLES if k in arrays), None)
    y = next((arrays[k] for k in _LABELS if k in arrays), None)
    if x is None:
        raise DataError(
            f"{path} has the keys {', '.join(arrays) or '(none)'}; name the samples 'x' or "
            "'images', and the labels, if any, 'y' or 'labels'"
        )
    _check(path, "samples", x.dtype)
    if y is not None:
        _check(path, "labels", y.dtype)
    return Data(_tensor(path, x), transform=BYTES if x.dtype == np.uint8 else Identity(), label=y)


def _tensor(path: Path, x: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(channels_first(x, path).astype(plain(x.dtype), copy=False))


def _check(path: Path, what: str, dtype: np.dtype[Any]) -> None:
    """Refuse, by name, numbers that are none or that mean nothing for certain."""
    if what == "labels":
        if dtype.kind not in "ui":
            raise InvalidTypeError(f"the labels in {path} are {dtype}; they must be integers")
    elif dtype.kind not in "fuib":
        raise InvalidTypeError(f"the samples in {path} are {dtype}; they must be numbers")
    elif dtype.kind != "f" and dtype != np.uint8:
        raise InvalidTypeError(
            f"the samples in {path} are {dtype}, which do not say what they range over; convert "
            "them to floats, or to bytes"
        )

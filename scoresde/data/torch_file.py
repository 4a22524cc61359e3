"""Read the tensors in a file that `torch.save` wrote, without running code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from scoresde import checkpoint
from scoresde.data import stores
from scoresde.errors import DataError

__all__ = ["read_torch"]


def read_torch(path: Path) -> Any:
    """Read a file of torch: CPU tensors in dictionaries, lists and tuples.

    Only tensors are read, and no code is run (`weights_only=True`).

    Raises:
        DataError: The file is damaged, would fill the memory, or holds something other than
            tensors.
        OSError, ValueError: The file is missing, or is not a regular file.
    """
    # raises an error for a pipe, for which torch.load would wait
    checkpoint.open_file(path).close()
    _check_packed(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 (a user's)
    except FileNotFoundError:
        raise
    except Exception as error:  # pickle and torch raise errors of many types, some with bad advice
        raise DataError(
            f"cannot read {path}: it is damaged, or holds objects other than tensors, which could "
            "run any code; save a tensor, or a dictionary of tensors, by torch.save(x, path)"
        ) from error


def _check_packed(path: Path) -> None:
    """Raise DataError for a compressed file that would fill the memory; torch does not compress."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.file_size > max(stores.IN_MEMORY, stores.PACKED * info.compress_size):
                raise DataError(
                    f"a tensor in {path} would unpack from {info.compress_size:,} to "
                    f"{info.file_size:,} bytes, which real data never do; if you trust the file, "
                    "save it with torch.save again"
                )

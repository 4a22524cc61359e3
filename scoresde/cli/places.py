"""Check, before the work, the places that a command writes to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from scoresde import checkpoint
from scoresde.cli.look import PICTURES
from scoresde.errors import CheckpointError, InvalidValueError

__all__ = ["ARRAYS", "FILMS", "check_folder", "check_out", "check_replaced"]

FILMS = (".gif", ".html")
ARRAYS = (".npy", ".npz", ".csv", ".safetensors")
SUFFIXES = (*PICTURES, *FILMS, *ARRAYS)


def check_out(
    path: Path, suffixes: tuple[str, ...] = SUFFIXES, *, read: Iterable[str | Path] = ()
) -> None:
    """Raise InvalidValueError, before the work, if the output cannot be written to this path.

    It must not replace a file that the command reads, named in `read` as FILE or NAME=FILE.
    """
    if path.suffix not in suffixes:
        raise InvalidValueError(f"out must end in {', '.join(suffixes)}; got {str(path)!r}")
    if os.path.isdir(path):  # not path.is_dir(), which raises for a name that is too long
        raise InvalidValueError(f"{str(path)!r} is a folder; name a file")
    for word in map(str, read):
        for name in (word, word.partition("=")[2]):
            if os.path.isfile(name) and os.path.exists(path) and os.path.samefile(name, path):
                raise InvalidValueError(f"{path} is read by this command; write to another file")
    check_folder(path.parent)


def check_folder(path: Path) -> None:
    """Raise InvalidValueError, before the work, if a path cannot be a folder."""
    above = (path, *path.parents)
    taken = next((p for p in above if os.path.exists(p) and not os.path.isdir(p)), None)
    if taken is not None:
        raise InvalidValueError(f"{str(taken)!r} is a file; name a folder")


def check_replaced(path: Path) -> None:
    """Raise InvalidValueError if a .safetensors file to be replaced is a model or a checkpoint."""
    if path.suffix != ".safetensors" or not os.path.isfile(path):
        return
    try:
        samples = checkpoint.load_tensors(path)[0].keys() <= {"x", "y"}
    except CheckpointError:
        samples = False  # of a newer scoresde, damaged or foreign: do not replace it
    if not samples:
        raise InvalidValueError(f"{path} holds something else than samples; take another file")

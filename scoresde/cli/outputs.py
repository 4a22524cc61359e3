"""Check that a command may write to its output path, before it computes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from scoresde import checkpoint
from scoresde.cli.held_out import run_of
from scoresde.cli.sample_picture import PICTURES
from scoresde.errors import CheckpointError, InvalidValueError

__all__ = ["ARRAYS", "FILMS", "check_folder", "check_out", "check_replaced"]

FILMS = (".gif", ".html")
ARRAYS = (".npy", ".npz", ".csv", ".safetensors")
_SUFFIXES = (*PICTURES, *FILMS, *ARRAYS)


def check_out(
    path: Path,
    suffixes: tuple[str, ...] = _SUFFIXES,
    *,
    read: Iterable[str | Path] = (),
    of: str = "",
) -> None:
    """Raise InvalidValueError if the output cannot be written to this path.

    The output must not replace a file that the command reads, nor a file in a folder that the
    command reads.

    Args:
        path: The output.
        suffixes: The allowed suffixes.
        read: The files and folders that the command reads, each as PATH or NAME=PATH.
        of: A model; the data of its run are read too.
    """
    if path.suffix not in suffixes:
        lower = path.with_suffix(path.suffix.lower())
        hint = f", so write {lower}" if lower.suffix in suffixes else ""
        raise InvalidValueError(f"out must end in {', '.join(suffixes)}; got {str(path)!r}{hint}")
    if os.path.isdir(path):  # not path.is_dir(), which raises for a name that is too long
        raise InvalidValueError(f"{str(path)!r} is a folder; name a file")
    run = run_of(of) if of else None
    of_run = () if run is None else (run.data.source, *run.data.condition)
    for word in map(str, (*read, *of_run)) if os.path.exists(path) else ():
        if any(_holds(name, path) for name in (word, word.partition("=")[2])):
            raise InvalidValueError(
                f"{path} is read by this command, or belongs to the data of the model; write to "
                "another file"
            )
    _check_no_file(path.parent)


def _holds(name: str, path: Path) -> bool:
    """Return True if a name is a path of this file, or of a folder that contains it."""
    if os.path.isdir(name):
        return Path(os.path.realpath(name)) in Path(os.path.realpath(path)).parents
    return os.path.isfile(name) and os.path.samefile(name, path)


def check_folder(path: Path) -> None:
    """Raise InvalidValueError if a path cannot be a folder, or has the suffix of a file."""
    if path.suffix in _SUFFIXES and not os.path.exists(path):
        raise InvalidValueError(
            f"this command writes a folder; got {str(path)!r}, so write "
            f"{str(path.with_suffix(''))!r}"
        )
    _check_no_file(path)


def _check_no_file(path: Path) -> None:
    """Raise InvalidValueError if a path or a folder above it is a file."""
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
        samples = False  # a file of a newer scoresde, damaged or foreign: do not replace it
    if not samples:
        raise InvalidValueError(f"{path} does not hold samples; write to another file")

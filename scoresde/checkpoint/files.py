"""Files that are written whole or not at all, and JSON that is read strictly."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError

__all__ = ["clean", "dump", "parse", "read_bytes", "read_json", "write_bytes", "write_json"]

# what a file system over a network says when it was away for a moment
_TRANSIENT = {errno.EAGAIN, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically; its folder is made if need be.

    Raises:
        CheckpointError: the file cannot be written; an older file is untouched.
    """
    path = Path(path)
    for again in (False, True):
        try:
            _replace(path, data)
            return
        except OSError as error:
            if again or error.errno not in _TRANSIENT:
                raise CheckpointError(
                    f"cannot write {path}: {error.strerror or error}; what was there before is "
                    "untouched"
                ) from error


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, path.stat().st_mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself must reach the disk; Windows has no such call
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        except OSError as error:
            # some file systems cannot flush a folder, and say so
            if error.errno not in (errno.EINVAL, errno.EBADF):
                raise
        finally:
            os.close(folder)


def read_bytes(path: Path) -> bytes:
    """The whole of a file.

    Raises:
        CheckpointError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot read {path}: {reason}") from error


def clean(folder: str | os.PathLike[str]) -> None:
    """Remove what a killed writer left behind in `folder`, as far as that is allowed."""
    for stale in Path(folder).glob(".*.tmp"):
        with contextlib.suppress(OSError):
            stale.unlink()


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically; NaN and infinities are refused.

    Raises:
        CheckpointError: the file cannot be written; an older file is untouched.
        InvalidTypeError, InvalidValueError: `value` is no JSON.
    """
    write_bytes(path, (dump(value, indent=2) + "\n").encode())


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing, or holds anything but one JSON object.
    """
    path = Path(path)
    try:
        value = parse(read_bytes(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value


def dump(value: Mapping[str, Any], indent: int | None = None) -> str:
    """JSON that `parse` reads back.

    Raises:
        InvalidTypeError, InvalidValueError: `value` is no JSON.
    """
    if not isinstance(value, Mapping):
        raise InvalidTypeError(f"expected a JSON object, got {reprlib.repr(value)}")
    try:
        text = json.dumps(value, allow_nan=False, indent=indent, default=_plain)
        parse(text)  # keys such as 1 and "1" are two here and one there
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(
            f"cannot be stored as JSON: {error} in {reprlib.repr(value)}"
        ) from error
    return text


def parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or it holds a key twice, a number that is not finite, or more
            levels than Python can follow.
    """
    try:
        return json.loads(
            text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_unique
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise InvalidTypeError(
        f"cannot store {value!r} ({type(value).__name__}) as JSON; use numbers, strings, lists "
        "and dictionaries"
    )


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no JSON number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError(f"a key occurs twice among {[key for key, _ in pairs][:20]}")
    return value

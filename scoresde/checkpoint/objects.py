"""Write JSON objects, and read back equal objects."""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scoresde.checkpoint.files import read_bytes, write_bytes
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError

__all__ = ["LARGEST", "dump", "parse", "read_json", "write_json"]

LARGEST = 2**24
"""The size in bytes of the largest JSON file that is read; a huge file would take minutes."""


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically.

    Raises:
        CheckpointError: The file cannot be written; an older file is unchanged.
        InvalidTypeError, InvalidValueError: `value` is not JSON, or has a NaN or an infinity.
    """
    write_bytes(path, (dump(value, indent=2) + "\n").encode())


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is missing, or is not one JSON object.
    """
    path = Path(path)
    try:
        value = parse(read_bytes(path, most=LARGEST))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value


def dump(value: Mapping[str, Any], indent: int | None = None) -> str:
    """Return the JSON text of an object, which `parse` reads back.

    Raises:
        InvalidTypeError, InvalidValueError: `value` is not JSON.
    """
    if not isinstance(value, Mapping):
        raise InvalidTypeError(f"expected a JSON object, got {reprlib.repr(value)}")
    try:
        text = json.dumps(value, allow_nan=False, indent=indent, default=_plain)
        parse(text)  # raises an error for keys such as 1 and "1", which are equal in JSON
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(
            f"cannot be stored as JSON: {error} in {reprlib.repr(value)}"
        ) from error
    return text


def parse(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: The text is not JSON, has a repeated key or a number that is not finite, or is
            nested too deeply.
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
        raise ValueError(f"{text} is not a JSON number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError(f"a key occurs twice among {[key for key, _ in pairs][:20]}")
    return value

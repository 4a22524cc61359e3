"""TOML of which no file can make the parser run for long."""

from __future__ import annotations

import tomllib
from typing import Any

__all__ = ["parse_toml"]

_LONGEST = 2**18  # characters
_DEEPEST = 16  # names in a key, whose square is the time that the parser takes


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises:
        ValueError: it is none, or longer than any configuration, or nested too deeply.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"it has more than {_LONGEST:,} characters")
    for line in text.split("\n"):
        keys = [part.rpartition(",")[2] for part in line.split("=")[:-1]]
        if line.lstrip().startswith("[") and "," not in line:
            keys.append(line)
        if any(key.count(".") > _DEEPEST for key in keys):
            raise ValueError("it is nested too deeply")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None

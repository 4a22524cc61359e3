"""Parse TOML in a bounded time, even if the file is malicious."""

from __future__ import annotations

import tomllib
from typing import Any

__all__ = ["parse_toml"]

_LONGEST = 2**18  # characters
_DEEPEST = 16  # the largest number of dots in a key; the parser's time grows with its square


def parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML text.

    Raises:
        ValueError: The text is not TOML, or too long, or nested too deeply.
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

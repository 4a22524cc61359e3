"""Remove local paths from a configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from scoresde import checkpoint
from scoresde.errors import CheckpointError

__all__ = ["config_toml", "without_paths"]

_OF_THE_HUB = re.compile(r"hf:\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+){0,2}")


def config_toml(folder: Path) -> str | None:
    """Return the text of a folder's `config.toml` with paths reduced to names, or None.

    Comments are removed, since they may be private. A link is not followed, since it may point to
    any file.
    """
    path = folder / "config.toml"
    if path.is_symlink() or not path.is_file():
        return None
    try:
        tree = checkpoint.parse_toml(checkpoint.read_bytes(path).decode())
    except (CheckpointError, ValueError):
        return None
    head = "# again: scoresde train --config config.toml --out FOLDER"
    return f"{head}\n\n{tomli_w.dumps(without_paths(tree))}"


def without_paths(value: Any) -> Any:
    """Return nested tables, lists and strings with each path reduced to its last name."""
    if isinstance(value, Mapping):
        return {name: without_paths(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_condition(part) for part in value]
    if not isinstance(value, str):
        return value
    if _OF_THE_HUB.fullmatch(value) and not os.path.exists(value.removeprefix("hf:")):
        return value
    kept = "hf:" if value.startswith("hf:") else ""
    return kept + re.split(r"[/\\]", value.removeprefix("hf:").rstrip("/\\"))[-1]


def _condition(value: Any) -> Any:
    """Return an entry of a list with its path reduced to the last name; a prefix `NAME=` stays."""
    found = re.match(r"\w+=", value) if isinstance(value, str) else None
    return without_paths(value) if found is None else found[0] + without_paths(value[found.end() :])

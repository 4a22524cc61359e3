"""The log of a run: one JSON object a line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["append", "trim"]


def append(path: Path, row: Mapping[str, float]) -> None:
    """Add one line; where the disk has no room for it, the run goes on without."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a") as file:
            file.write(json.dumps(row) + "\n")


def trim(path: Path, step: int) -> None:
    """Drop the lines after `step`, which will be written again, and one that was cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    path.write_text("".join(kept))

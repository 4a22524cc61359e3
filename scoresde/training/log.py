"""Log a run to a file with one JSON object per line, and keep the log in memory."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scoresde import checkpoint
from scoresde.errors import CheckpointError
from scoresde.training.callbacks import Callback
from scoresde.training.config import TrainConfig

__all__ = ["History", "JSONLines", "rows"]


class JSONLines(Callback):
    """Append every row to a file; skip a row that cannot be written, as on a full disk.

    Args:
        path: The file. When a run is resumed, rows of steps that it will repeat are removed, and so
            are incomplete and damaged lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Remove the rows of steps after `step`."""
        kept = [json.dumps(row) + "\n" for row in rows(self.path) if row["step"] <= step]
        text = "".join(kept).encode()
        if os.path.lexists(self.path) and not _holds(self.path, text):
            checkpoint.write_bytes(self.path, text)

    def on_log(self, row: Mapping[str, float]) -> None:
        """Append one line."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            checkpoint.append(self.path, (json.dumps(dict(row)) + "\n").encode())


class History(Callback):
    """Keep the rows of the log in memory.

    Args:
        path: The log file of a run, which is read at the start, or None.

    Attributes:
        rows: All rows so far.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rows: list[Mapping[str, float]] = []

    def __repr__(self) -> str:
        return f"History({len(self.rows)} rows of the log)"

    @property
    def latest(self) -> dict[str, float]:
        """Return the last `loss` and the last `held_out` that were logged, by name."""
        names = ("loss", "held_out")
        found = {name: [row[name] for row in self.rows if name in row] for name in names}
        return {name: values[-1] for name, values in found.items() if values}

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Keep the rows up to `step`."""
        known: Iterable[Mapping[str, float]] = self.rows
        if self.path is not None:
            # the file cannot be read, so keep the rows in memory
            with contextlib.suppress(CheckpointError):
                known = list(rows(self.path))
        self.rows = [row for row in known if row["step"] <= step]

    def on_log(self, row: Mapping[str, float]) -> None:
        """Append one row."""
        self.rows.append(row)


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a log file; skip incomplete lines; yield nothing without a file."""
    text = checkpoint.read_bytes(path) if path.exists() else b""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            row = checkpoint.parse(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                yield row


def _holds(path: Path, text: bytes) -> bool:
    """Return True if a path is a regular file with this content and a single hard link."""
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and path.read_bytes() == text

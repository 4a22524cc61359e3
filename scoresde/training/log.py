"""The log of a run: one JSON object a line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from scoresde.training.callbacks import Callback
from scoresde.training.config import TrainConfig

__all__ = ["JSONLines"]


class JSONLines(Callback):
    """Appends every row to a file; where the disk has no room for it, the run goes on without.

    Args:
        path: The file. What stands there after the step of a resumed run is written again, and so
            is dropped at the start, as is a line that was cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Drop the lines after `step`."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        self.path.write_text("".join(kept))

    def on_log(self, row: Mapping[str, float]) -> None:
        """Add one line."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as file:
                file.write(json.dumps(dict(row)) + "\n")

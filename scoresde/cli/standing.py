"""Find the progress of a model's run: the step of its weights, and which of its weights to use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoresde import checkpoint
from scoresde.cli.terminal import tell
from scoresde.errors import CheckpointError
from scoresde.pretrained.store import count_text, entry_of, locate, read
from scoresde.score import ScoreModel
from scoresde.training import log

__all__ = ["Standing", "better_of", "model_of"]

# The last held-out loss is not clearly above the lowest one if it is higher by at most this share.
_HARDLY = 0.02


@dataclass(frozen=True)
class Standing:
    """Hold the progress of a run.

    Attributes:
        done: The step of the model's weights, if known.
        steps: The number of steps of the whole run.
        who: A description of the process that is training in the folder, or an empty string.
        at: The last step of the log, or None.
    """

    done: Any
    steps: Any
    who: str = ""
    at: int | None = None

    @classmethod
    def of(cls, path: Path, config: Mapping[str, Any]) -> Standing:
        """Return the progress of the run of a model's file with this description."""
        # a model saved at the end of its training has no `done`
        done, steps = (entry_of(config, "training", name) for name in ("done", "steps"))
        folder = path.parent
        at = None
        if (folder / "log.jsonl").exists():
            try:
                at = max((row["step"] for row in log.rows(folder / "log.jsonl")), default=None)
            except CheckpointError:
                at = None
        return cls(steps if done is None else done, steps, checkpoint.holder(folder), at)

    @property
    def unfinished(self) -> bool:
        """Return True if the run has steps left."""
        whole = isinstance(self.done, int) and isinstance(self.steps, int)
        return whole and self.done < self.steps

    def __str__(self) -> str:
        return f"{count_text(self.done)} of {count_text(self.steps)} steps"


def better_of(folder: Path) -> Path:
    """Return the folder of the better weights of a run: RUN/best if its loss is clearly lower.

    The held-out losses are those of the log. If the last one is at most 2 % above the lowest one,
    or by no more than chance explains, or if there is no RUN/best, the folder of the run itself is
    returned.
    """
    best = folder / "best"
    try:
        rows = log.rows(folder / "log.jsonl")
        found = [row for row in rows if "held_out" in row]
    except CheckpointError:
        return folder
    if not found or not (best / "model.safetensors").is_file():
        return folder
    lowest, last = min(row["held_out"] for row in found), found[-1]
    hardly = last["held_out"] - lowest <= _HARDLY * abs(lowest)
    return folder if hardly or last.get("held_out_excess", math.inf) <= 0 else best


def model_of(source: str) -> ScoreModel:
    """Return a model, and print the step of its weights if its run has not ended.

    Raises:
        CheckpointError: There is no such model.
    """
    model = ScoreModel.from_pretrained(source)
    path = locate(source)
    if (path.parent / "config.toml").exists():
        standing = Standing.of(path, read(path)[1])
        if standing.who:
            tell(f"model: the weights after {standing}; the run continues ({standing.who})")
        elif standing.unfinished:
            tell(f"model: the weights after {standing}, of a run that has not ended")
    return model

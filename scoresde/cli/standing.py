"""Find the progress of a model's run: the step of its weights, and whether it is still training."""

from __future__ import annotations

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

__all__ = ["Standing", "model_of"]


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

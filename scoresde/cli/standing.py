"""How far the run of a model is: which weights a command takes, and whether it is still trained."""

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
    """Say how far a run is.

    Attributes:
        done: The steps after which the model's weights were written, if that is known.
        steps: Those of the whole run.
        who: Who trains in the folder at the moment, or nothing.
        at: The last step of the log.
    """

    done: Any
    steps: Any
    who: str = ""
    at: int | None = None

    @classmethod
    def of(cls, path: Path, config: Mapping[str, Any]) -> Standing:
        """Return that of a model's file, which is described so."""
        # a model that was saved at the end of its training counts no further
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
        """Return whether the run has steps left."""
        whole = isinstance(self.done, int) and isinstance(self.steps, int)
        return whole and self.done < self.steps

    def __str__(self) -> str:
        return f"{count_text(self.done)} of {count_text(self.steps)} steps"


def model_of(source: str) -> ScoreModel:
    """Return a model, and tell where it is of a run that is not at its end.

    Raises:
        CheckpointError: There is no such model.
    """
    model = ScoreModel.from_pretrained(source)
    path = locate(source)
    if (path.parent / "config.toml").exists():
        standing = Standing.of(path, read(path)[1])
        if standing.who:
            tell(f"model: the weights after {standing}; the run goes on ({standing.who})")
        elif standing.unfinished:
            tell(f"model: the weights after {standing}, of a run that has not ended")
    return model

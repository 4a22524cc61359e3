"""What may look at a run while it goes: loggers, pictures, and whatever a user adds.

A callback sees numbers and the averaged model; the run itself depends on none of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from scoresde.score import ScoreModel
from scoresde.training.config import TrainConfig

__all__ = ["Callback"]


class Callback:
    """Inherit, and override what is of interest: here every method does nothing."""

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Training is about to make update number `step`, counted from 0."""

    def on_log(self, row: Mapping[str, float]) -> None:
        """A look at the loss: `step`, `loss`, `grad_norm`, `lr` and `seconds`."""

    def on_checkpoint(self, step: int, model: ScoreModel) -> None:
        """A checkpoint was written after `step` updates; `model` has the averaged weights."""

    def on_end(self, step: int) -> None:
        """Training ends after `step` updates, whatever the reason."""

"""Keep the pilot that was measured of a model in a file beside the model's own."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scoresde import checkpoint, distributed
from scoresde.errors import ScoreSDEError
from scoresde.pretrained.store import net_config
from scoresde.score.stored import pilot_of

if TYPE_CHECKING:
    from scoresde.score.model import ScoreModel

__all__ = ["WORTH", "PilotFile", "weights_of"]

WORTH = 2.0
"""Seconds from which on a measurement is kept, and worth a word."""
# what the file of a pilot says
_KEYS = {"weights", "pilot"}


@dataclass(frozen=True)
class PilotFile:
    """Keep a pilot in a file, with the checksum of the weights that it was measured with.

    Args:
        path: The file.
    """

    path: Path

    @classmethod
    def beside(cls, model: Path) -> PilotFile:
        """Return that beside the file of a model."""
        return cls(model.absolute().with_name(f"{model.stem}.pilot.safetensors"))

    def recall(self, model: ScoreModel) -> None:
        """Give a model without a pilot that of the file, if it has the same weights."""
        if model.pilot is None and self.path.is_file():
            with contextlib.suppress(ScoreSDEError):  # a damaged file, or that of another version
                tensors, known = checkpoint.load_tensors(self.path)
                if known.get("weights") == weights_of(model):
                    model.recall_pilot(pilot_of(tensors, known.get("pilot", {}), model.event_shape))

    def __call__(self, model: ScoreModel) -> None:
        """Write the pilot of a model, unless it took no time or the folder cannot be written.

        A file of that name that holds anything else, or is damaged, is left alone.
        """
        if model.pilot is None or model.pilot_seconds < WORTH or not distributed.is_main():
            return
        known = {"weights": weights_of(model), "pilot": model.pilot.numbers()}
        with contextlib.suppress(ScoreSDEError):
            if os.path.lexists(self.path) and checkpoint.load_tensors(self.path)[1].keys() != _KEYS:
                return
            checkpoint.save_tensors(self.path, model.pilot.tensors(), known)


def weights_of(model: ScoreModel) -> str:
    """Return a checksum of a model's weights and description, without its pilot."""
    parts = (model.sde, model.predicts, model.steps, model.transform, net_config(model.net))
    tensors = {name: value.cpu() for name, value in model.state_dict().items()}
    return checkpoint.digest(tensors, repr(parts), checkpoint.SCHEMA)[:16]

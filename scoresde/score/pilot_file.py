"""Keep the measured pilot of a model in a file beside the model's file."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from scoresde import checkpoint, distributed
from scoresde.errors import ScoreSDEError
from scoresde.pretrained.store import net_config
from scoresde.score.stored import pilot_of

if TYPE_CHECKING:
    from scoresde.score.saved import Saved

__all__ = ["SLOW_PILOT", "PilotFile", "weights_of"]

SLOW_PILOT = 2.0
"""The commands announce a measurement that takes more seconds; its pilot is kept in a file."""
# the keys in a pilot's file
_KEYS = {"weights", "pilot"}
_SUFFIX = ".pilot.safetensors"


@dataclass(frozen=True)
class PilotFile:
    """Keep a pilot in a file, with the checksum of the weights for which it was measured.

    Args:
        path: The file.
    """

    path: Path

    @classmethod
    def beside(cls, model: Path) -> PilotFile:
        """Return the pilot file that belongs to the file of a model."""
        return cls(model.absolute().with_name(f"{model.stem}{_SUFFIX}"))

    def recall(self, model: Saved) -> None:
        """Give the pilot in the file to a model without a pilot, if the weights are the same."""
        if model.pilot is None and self.path.is_file():
            with contextlib.suppress(ScoreSDEError):  # the file is damaged, or from another version
                tensors, known = checkpoint.load_tensors(self.path)
                if known.get("weights") == weights_of(model):
                    model.recall_pilot(pilot_of(tensors, known.get("pilot", {}), model.event_shape))

    def __call__(self, model: Saved) -> None:
        """Write the pilot of a model, unless the measurement was fast or the folder is read-only.

        Nothing is written if the weights differ from the weights in the model's file, as after
        training. A file of this name that is damaged or not the file of a pilot is not replaced.
        """
        if model.pilot is None or model.pilot_seconds < SLOW_PILOT or not distributed.is_main():
            return
        known = {"weights": weights_of(model), "pilot": model.pilot.numbers()}
        with contextlib.suppress(ScoreSDEError):
            if not self._has_weights_of(model):
                return
            if os.path.lexists(self.path) and checkpoint.load_tensors(self.path)[1].keys() != _KEYS:
                return
            checkpoint.save_tensors(self.path, model.pilot.tensors(), known)

    def _has_weights_of(self, model: Saved) -> bool:
        """Return True if the model's file, beside this one, has the weights of the model."""
        stem = self.path.name.removesuffix(_SUFFIX)
        stored, _ = checkpoint.load_tensors(self.path.with_name(f"{stem}.safetensors"))
        return all(
            name in stored
            and stored[name].dtype == value.dtype
            and torch.equal(stored[name], value.cpu())
            for name, value in model.state_dict().items()
        )


def weights_of(model: Saved) -> str:
    """Return a checksum of a model's weights and description, without its pilot."""
    parts = (
        model.sde, model.predicts, model.steps, model.transform, net_config(model.net),
        getattr(model, "time", None),
    )  # fmt: skip
    tensors = {name: value.cpu() for name, value in model.state_dict().items()}
    return checkpoint.digest(tensors, repr(parts), checkpoint.SCHEMA)[:16]

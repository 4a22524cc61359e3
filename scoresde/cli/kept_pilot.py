"""Keep the pilot that a command measures beside the model's file, for the next command."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from scoresde import checkpoint, distributed
from scoresde.cli.terminal import tell
from scoresde.errors import ScoreSDEError
from scoresde.pretrained.store import net_config
from scoresde.sampling import SAMPLERS
from scoresde.score import ScoreModel, device_of
from scoresde.score.stored import pilot_of

__all__ = ["WORTH", "PilotFile", "foretell", "weights_of"]

WORTH = 2.0
"""Seconds from which on a measurement is kept, and worth a word."""
# States that a pilot takes, and these at once.
_PILOT, _ROWS = 64 * 32, 32
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
        return cls(model.with_name(f"{model.stem}.pilot.safetensors"))

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


def foretell(model: ScoreModel, n: int, steps: int | None) -> None:
    """Name what avoids the pilot of a model if it takes longer than n samples, and some seconds."""
    if n * (steps or model.steps or SAMPLERS["fast"].steps) >= _PILOT:
        return
    start = time.perf_counter()
    with torch.no_grad():
        model(torch.zeros(_ROWS, *model.event_shape, device=device_of(model)), model.sde.T / 2)
    if (spent := (time.perf_counter() - start) * _PILOT / _ROWS) > WORTH:
        tell(
            f'the sampler "fast" first measures this model once, in about {spent:.0f} s, which is '
            "longer than these samples take; --sampler ddim draws without"
        )

"""Define `scoresde ema`: make a model of another average of a run's weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from scoresde import checkpoint
from scoresde.cli.terminal import show, tell, then
from scoresde.ema import Exponential, Power, Profile, reconstruct
from scoresde.errors import CheckpointError, InvalidValueError
from scoresde.pretrained.store import entry_of, locate
from scoresde.score import ScoreModel

__all__ = ["Ema"]

_NONE = tyro.conf.arg(metavar="FLOAT", help_behavior_hint="(default: none)")


@dataclass(frozen=True)
class Ema:
    """Make a model from another average of a run's weights.

    It is computed from the snapshots that `train --ema-sigma` keeps.
    """

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The folder of the run."""
    out: Path
    """The folder to which the model is written."""
    sigma: Annotated[float | None, _NONE] = None
    """The relative width of a power-function average, from 1e-4 to 0.288; a larger width averages
    over more steps."""
    decay: Annotated[float | None, _NONE] = None
    """The decay of an exponential average, at least 0 and below 1, in place of --sigma."""
    at: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the last snapshot)")
    ] = None
    """The number of training steps after which the average ends, at least 1."""

    def run(self) -> None:
        """Reconstruct and write."""
        profile = self._profile()
        if self.out.resolve() == self.folder.resolve() or checkpoint.steps_in(self.out):
            raise CheckpointError(
                f"{self.out} holds a run, whose model would be replaced; take another folder"
            )
        _check_replaced(self.out)
        path = locate(self.folder)
        model = ScoreModel.from_pretrained(path)
        _, config = checkpoint.load_tensors(path)
        found = reconstruct(self.folder, profile, at=self.at)
        checkpoint.load_state(model, found.state, source=f"the snapshots in {self.folder}")
        model.pilot = None  # it was measured with other weights
        average = {"profile": str(profile), "error": found.error}
        training = {**(entry_of(config, "training") or {}), "done": found.at}
        model.save_pretrained(self.out, training=training, average=average)
        tell(f"{profile} at step {found.at:,}, from {len(found.weights)} snapshots: {self.out}")
        show(f"expected error {found.error:.2g} of the distance from the average to the weights")
        then("see its samples", "sample", self.out, "--out", "samples.png")

    def _profile(self) -> Profile:
        if self.sigma is not None and self.decay is None:
            return Power(self.sigma)
        if self.decay is not None and self.sigma is None:
            return Exponential(self.decay)
        raise InvalidValueError("give --sigma or --decay, and not both")


def _check_replaced(folder: Path) -> None:
    """Raise CheckpointError if the folder holds a model that this command did not make."""
    path = folder / "model.safetensors"
    if path.exists() and entry_of(checkpoint.load_tensors(path)[1], "average", "error") is None:
        raise CheckpointError(
            f"{folder} holds a model that `scoresde ema` did not make; take another folder"
        )

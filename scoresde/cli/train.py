"""`scoresde train`: a model of any data, in a folder that can be taken up again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import nn

from scoresde import checkpoint
from scoresde import sde as sdes
from scoresde.data import Data, load
from scoresde.errors import CheckpointError
from scoresde.nn import MLP, UNet
from scoresde.score import ScoreModel
from scoresde.sde import Moments
from scoresde.training import TrainConfig, Trainer

__all__ = ["Train"]


@dataclass(frozen=True)
class Train:
    """Train a score model. The same command again resumes, or says that the run is finished."""

    data: str
    """digits, a name of torchvision's (mnist, cifar10 ...), a .npy or .npz, a folder of images."""
    out: Path
    """The folder of the run: checkpoints, log.jsonl and the model."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    sde: Literal["VESDE", "VPSDE", "SubVPSDE", "CosineSDE", "EDMSDE", "FlowSDE"] = "VESDE"
    """The SDE, with its default parameters."""
    channels: Annotated[
        tuple[int, ...],
        tyro.conf.arg(
            metavar="INT [INT ...]", help_behavior_hint="(default: 32 64, or 128 128 128 in an MLP)"
        ),
    ] = ()
    """Widths of the levels of a U-Net (for images), or of the hidden layers of an MLP."""
    split: Annotated[
        str | None, tyro.conf.arg(metavar="{train,test}", help_behavior_hint="(default: train)")
    ] = None
    """The part of a data set of torchvision."""
    size: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: as they are)")
    ] = None
    """Crop images to squares and resize them to this many pixels a side, at least 1."""
    on_bad_image: Literal["raise", "skip"] = "raise"
    """Whether to pass over images that cannot be read, up to a tenth of a folder."""

    def run(self) -> None:
        """Train to the end."""
        data = load(self.data, split=self.split, size=self.size, on_bad_image=self.on_bad_image)
        model = self._model(data)
        parameters = sum(p.numel() for p in model.net.parameters())
        classes = f", {data.classes} classes" if data.classes else ""
        _say(f"data: {self.data}, {len(data):,} samples of shape {data.event_shape}{classes}")
        _say(f"model: {type(model.net).__name__}, {parameters:,} parameters, {model.sde}")
        _check_folder(self.out)
        trainer = Trainer(model, data, self.config, folder=self.out)
        steps = f"{self.config.steps:,}"
        if trainer.finished:
            trainer.train(progress=False)
            _say(f"finished: all {steps} steps are done; a larger --steps goes on")
            return
        _say(f"{'resuming' if trainer.step else 'starting'} at step {trainer.step:,} of {steps}")
        first, start = trainer.step, time.perf_counter()
        try:
            trainer.train()
        except SystemExit:
            _say(f"stopped by SIGTERM at step {trainer.step:,}; the same command resumes")
            raise
        seconds = time.perf_counter() - start
        suffix = ".png" if len(data.event_shape) == 3 else ".npy"
        _say(
            f"done: {steps} steps, the last {trainer.step - first:,} in {seconds:.1f} s; "
            f"see the result with `scoresde sample {self.out} --out samples{suffix}`"
        )

    def _model(self, data: Data) -> ScoreModel:
        """An untrained model for the data, its weights a function of the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.config.seed)
            net = _network(data, self.channels)
        sde = getattr(sdes, self.sde)()
        return ScoreModel(net, sde, data.event_shape, data=Moments(*data.moments()))


def _network(data: Data, channels: tuple[int, ...]) -> nn.Module:
    shape = data.event_shape
    if len(shape) != 3:
        return MLP(shape, hidden=channels or (128, 128, 128), num_classes=data.classes)
    patch = 2 if min(shape[1:]) >= 16 else 1
    widths = channels or (32, 64)
    return UNet(shape[0], channels=widths, blocks=1, patch=patch, num_classes=data.classes)


def _check_folder(folder: Path) -> None:
    """Refuse, before the work, a folder that cannot be written or holds another's model."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot make the folder {folder}: {error.strerror}") from error
    if (folder / "model.safetensors").exists() and not checkpoint.steps_in(folder):
        raise CheckpointError(
            f"{folder} holds a model, but no checkpoint from which its training could go on; "
            "take another folder"
        )


def _say(line: str) -> None:
    print(line, flush=True)

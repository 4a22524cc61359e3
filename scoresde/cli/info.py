"""`scoresde info`: what a model is, without running it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import Tensor

from scoresde import checkpoint
from scoresde import nn as networks
from scoresde import sde as sdes
from scoresde.errors import CheckpointError
from scoresde.score import ScoreModel, locate
from scoresde.score.store import spelt

__all__ = ["Info"]


@dataclass(frozen=True)
class Info:
    """Say what a model is, and verify the checksums of its files."""

    checkpoint: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CHECKPOINT")]
    """The folder of a run or a model, its model.safetensors, or a packaged name such as mnist."""

    def run(self) -> None:
        """Print a table."""
        path = locate(self.checkpoint)
        tensors, config = checkpoint.load_tensors(path)
        if not {"sde", "net", "event_shape", "parameterization"} <= config.keys():
            raise CheckpointError(f"{path} is no model of scoresde; give the folder of one")
        rows = [*_model(path, tensors, config), *_files(path)]
        for name, value in rows:
            print(f"{name:18}{value}")
        damaged = [value for _, value in rows if value.endswith("DAMAGED")]
        if damaged:
            raise CheckpointError(f"{len(damaged)} file(s) of {path.parent} are damaged")


def _model(
    path: Path, tensors: dict[str, Tensor], config: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    shape = tuple(config["event_shape"])
    kind, options = config["net"]["type"], config["net"].get("config") or {}
    stored = [v for k, v in tensors.items() if k.startswith("net.")]
    dtypes = ", ".join(sorted({str(v.dtype).removeprefix("torch.") for v in stored}))
    numbers = sum(v.numel() for v in stored)
    if hasattr(networks, kind) and hasattr(sdes, config["sde"]["type"]):
        model = ScoreModel.from_pretrained(path)
        numbers = sum(p.numel() for p in model.net.parameters())
    mean, var = (tensors[name].double() for name in ("data_mean", "data_var"))
    yield "SDE", spelt(config["sde"])
    yield "parameterization", config["parameterization"]
    yield "event shape", f"{shape}, {math.prod(shape):,} dimensions"
    yield "network", spelt({"type": kind, **options})
    yield "parameters", f"{numbers:,}, stored as {dtypes}"
    yield "data", f"mean {float(mean.mean()):.4g}, std {math.sqrt(float(var.mean())):.4g}"
    yield "sampling steps", str(config.get("steps") or "the sampler's default")
    training = config.get("training")
    if training is not None:
        # a model that was saved at the end of its training counts no further
        done = training.get("done", training["steps"])
        yield "trained", f"{done:,} of {training['steps']:,} steps"
    if "average" in config:
        yield "average", config["average"]["profile"]


def _files(path: Path) -> Iterator[tuple[str, str]]:
    """The model's file, and what training left beside it."""
    yield "model", f"{path}, {_size(path)}, checksum verified"
    for step, file in checkpoint.steps_in(path.parent):
        try:
            checkpoint.load_tensors(file)
            state = "checksum verified"
        except CheckpointError:
            state = "DAMAGED"
        yield f"step {step:,}", f"{file}, {_size(file)}, {state}"


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"

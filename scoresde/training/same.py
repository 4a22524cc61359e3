"""Compare a checkpoint with the run that is to continue from it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scoresde import distributed
from scoresde.checks import outside
from scoresde.errors import CheckpointError, InvalidValueError
from scoresde.training.config import TrainConfig

__all__ = ["check_description", "check_same"]

_DATA = "data set"


def check_same(
    meta: Mapping[str, Any], config: TrainConfig, identity: Mapping[str, str], source: str
) -> None:
    """Raise unless a checkpoint is of the same run; warn if it does not continue exactly.

    Args:
        meta: The description in the checkpoint.
        config: The configuration of the run.
        identity: The other properties of the run that must not change, by name.
        source: The name of the checkpoint, for messages.

    Raises:
        InvalidValueError: The checkpoint is of another configuration, model or data set.

    Warns:
        RuntimeWarning: The learning rate jumps, since the run now has more steps; or the number of
            threads or processes is another one.
    """
    # compare the data first, since other data also change options that are chosen for the data
    _check_entries(meta, {_DATA: identity[_DATA]}, source)
    config.check_continues(meta["config"], source)
    _check_entries(meta, {"augment": None, "set of frozen weights": None, **identity}, source)
    planned, done, rate = meta["config"]["steps"], meta["step"], config.optimiser
    steps = config.steps
    if planned != steps and any(
        rate.lr_at(k, planned) != rate.lr_at(k, steps) for k in range(done)
    ):
        before, after = rate.lr_at(done - 1, planned), rate.lr_at(done, steps)
        warnings.warn(
            f"{source} is from a run of {planned} steps, which now has {steps}: its learning "
            f"rate was chosen for {planned} steps (decay={rate.decay!r}), so it jumps from "
            f"{before:.3g} to {after:.3g} here; rather start a new run in another folder from "
            "the model of this one",
            RuntimeWarning,
            stacklevel=outside(),
        )
    for name, now in (
        ("threads", torch.get_num_threads()),
        ("processes", distributed.size()),
    ):
        before = meta.get(name, 1)
        if before != now:
            warnings.warn(
                f"{source} was written with {before} {name} and continues with {now}: the "
                "weights will differ by rounding from the weights of an uninterrupted run",
                RuntimeWarning,
                stacklevel=outside(),
            )


def _check_entries(meta: Mapping[str, Any], now: Mapping[str, str | None], source: str) -> None:
    """Raise InvalidValueError unless a checkpoint has the same properties as this run."""
    for name, value in now.items():
        if meta.get(name) != value:
            raise InvalidValueError(
                f"{source} belongs to another {name}: it was {meta.get(name)} and is now {value}; "
                f"take the old {name}, or another folder"
            )


def check_description(meta: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError if a file is not a checkpoint of a run, or was renamed."""
    step, config = meta.get("step"), meta.get("config")
    planned = config.get("steps") if isinstance(config, Mapping) else None
    if type(step) is not int or type(planned) is not int or step > planned:
        raise CheckpointError(f"{path} is not a checkpoint of a run; take another folder")
    if path.stem != f"step-{step:08d}":
        raise CheckpointError(f"{path} holds step {step}; give it its old name, or remove it")

"""Reconstruct any average of a run's weights after training, from stored averages."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import door, outside
from scoresde.ema.fitting import fit
from scoresde.ema.profile import Profile
from scoresde.ema.snapshots import Snapshot, snapshots_in
from scoresde.errors import CheckpointError

__all__ = ["Reconstruction", "reconstruct"]

# A warning is given if the expected error is larger than this.
_POOR = 0.1
# Snapshots at all steps are read up to this number of steps.
_MAX_STEPS = 128
# The relative rounding error of the averages during training.
_PRECISION = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Reconstruction:
    """Hold an average that was not tracked during training.

    Attributes:
        state: The state dict of the model with the averaged weights.
        profile: The profile of the average.
        at: The number of training updates after which the average is taken.
        weights: The weight of each snapshot in the sum; the weights add up to 1. Snapshots at more
            than 128 steps are not all used: about 70 to 110 of the steps are selected, dense near
            `at` and sparse far from it.
        error: The expected error divided by the expected distance between the average and the
            model's weights at that step; see `Fit`.
    """

    state: dict[str, Tensor]
    profile: Profile
    at: int
    weights: dict[Snapshot, float]
    error: float


@door
def reconstruct(folder: str | Path, profile: Profile, *, at: int | None = None) -> Reconstruction:
    """Compute the average that `profile` would have given during a run, from the run's snapshots.

    Args:
        folder: The folder of a run that was trained with `ema_sigma`.
        profile: The wanted average: `Power(0.12)` or `Exponential(0.999)`, for example.
        at: The number of training updates; by default the number at the last snapshot.

    Returns:
        The weights, for `model.load_state_dict(found.state)`, and their expected error.

    Raises:
        CheckpointError: There are no snapshots, or one is damaged, or from another run or model.
        InvalidValueError: `at` is below 1, or larger than the step of the last snapshot.

    Warns:
        RuntimeWarning: There are too few snapshots: `error` is above 0.1.
    """
    found = snapshots_in(folder)
    if not found:
        raise CheckpointError(
            f"{folder} holds no snapshots of averages; train with ema_sigma=(0.05, 0.1), or on the "
            "command line with --ema-sigma 0.05 0.1"
        )
    at = max(s.step for s in found) if at is None else at
    found = _snapshots_to_read(found, at)
    nearest = min((s for s in found if s.step >= at), key=lambda s: s.step, default=found[-1])
    sample, copied, run = nearest.read_with_run()
    epsilon = max([_PRECISION, *(torch.finfo(value.dtype).eps for value in sample.values())])
    best = fit([(s.profile, s.step) for s in found], profile, at, epsilon=epsilon)
    if best.error > _POOR:
        warnings.warn(
            f"there are too few snapshots for {profile} at step {at}: the expected error is "
            f"{best.error:.0%} of the distance between the average and the last weights; take a "
            "wider average or the step of a snapshot, or store more snapshots",
            RuntimeWarning,
            stacklevel=outside(),
        )
    weights = dict(zip(found, best.weights.tolist(), strict=True))
    return Reconstruction(_total(weights, run) | copied, profile, at, weights, best.error)


def _snapshots_to_read(found: Sequence[Snapshot], at: int) -> list[Snapshot]:
    """Select the snapshots to read: if there are many, fewer at larger distances from `at`.

    Far from `at`, the averages at neighbouring steps differ little. So the steps are ranked by
    their distance, and a geometric sequence of ranks is selected.
    """
    steps = sorted({s.step for s in found}, key=lambda step: abs(step - at))
    if len(steps) > _MAX_STEPS:
        ranks = np.geomspace(1, len(steps), _MAX_STEPS).round().astype(int) - 1
        steps = [steps[rank] for rank in ranks]
    chosen = set(steps)
    return [s for s in found if s.step in chosen]


def _total(weights: Mapping[Snapshot, float], run: str | None) -> dict[str, Tensor]:
    """Sum the snapshots of one run with their weights, reading one at a time."""
    total: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    for snapshot, weight in weights.items():
        averaged, _, of_run = snapshot.read_with_run()
        if of_run != run:
            raise CheckpointError(
                f"{snapshot.path} is from another run than the other snapshots; remove it, or take "
                "the snapshots of one run"
            )
        shapes = {name: value.shape for name, value in averaged.items()}
        if total and shapes != {name: value.shape for name, value in total.items()}:
            raise CheckpointError(
                f"{snapshot.path} is from another model than the other snapshots; remove it"
            )
        for name, value in averaged.items():
            part = weight * value.double()
            total[name] = total[name].add_(part) if name in total else part
            dtypes[name] = torch.promote_types(value.dtype, torch.float32)
    return {name: value.to(dtypes[name]) for name, value in total.items()}

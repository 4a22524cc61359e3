"""Any average of a run's weights, made after the training."""

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

# A miss of more than a tenth of what the average is for is told without being asked.
_POOR = 0.1
# Of so many steps all snapshots are read.
_MOST = 128
# Averages are tracked in this precision, or a lower one.
_PRECISION = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Reconstruction:
    """An average that nobody tracked.

    Attributes:
        state: The state dict of the model with the averaged weights.
        profile: Which average it is.
        at: After how many updates.
        weights: How much each snapshot counts; their sum is 1. Of those of more than 128 steps only
            some count, ever fewer with the distance from `at`.
        error: The expected miss relative to the distance between the average and the weights it
            follows; see `Fit`.
    """

    state: dict[str, Tensor]
    profile: Profile
    at: int
    weights: dict[Snapshot, float]
    error: float


@door
def reconstruct(folder: str | Path, profile: Profile, *, at: int | None = None) -> Reconstruction:
    """Return the average of a run's weights that `profile` would have given, from its snapshots.

    Args:
        folder: Of a run that was trained with `ema_sigma`.
        profile: The wanted average: `Power(0.12)` or `Exponential(0.999)`, for example.
        at: After how many updates; by default those of the last snapshot.

    Returns:
        The weights, as `model.load_state_dict(found.state)` takes them, and how good they are.

    Raises:
        CheckpointError: There are no snapshots, or one is damaged.
        InvalidValueError: `at` is not within the snapshots.

    Warns:
        RuntimeWarning: The snapshots do not suffice: the expected miss is more than a tenth of the
            distance between the average and the weights it follows.
    """
    found = snapshots_in(folder)
    if not found:
        raise CheckpointError(
            f"{folder} holds no snapshots of averages; train with ema_sigma=(0.05, 0.1), or on the "
            "command line with --ema-sigma 0.05 0.1"
        )
    at = max(s.step for s in found) if at is None else at
    found = _of_use(found, at)
    nearest = min((s for s in found if s.step >= at), key=lambda s: s.step, default=found[-1])
    sample, copied, run = nearest.of_run()
    epsilon = max([_PRECISION, *(torch.finfo(value.dtype).eps for value in sample.values())])
    best = fit([(s.profile, s.step) for s in found], profile, at, epsilon=epsilon)
    if best.error > _POOR:
        warnings.warn(
            f"the snapshots do not suffice for {profile} at step {at}: the expected miss is "
            f"{best.error:.0%} of the average's distance from the weights; a wider average or a "
            "step of a snapshot does better, and so do more snapshots",
            RuntimeWarning,
            stacklevel=outside(),
        )
    weights = dict(zip(found, best.weights.tolist(), strict=True))
    return Reconstruction(_total(weights, run) | copied, profile, at, weights, best.error)


def _of_use(found: Sequence[Snapshot], at: int) -> list[Snapshot]:
    """The snapshots that are worth reading: of very many, ever fewer with the distance from `at`.

    A power profile varies on the scale of that distance, so the ranks are geometric.
    """
    steps = sorted({s.step for s in found}, key=lambda step: abs(step - at))
    if len(steps) > _MOST:
        ranks = np.geomspace(1, len(steps), _MOST).round().astype(int) - 1
        steps = [steps[rank] for rank in ranks]
    chosen = set(steps)
    return [s for s in found if s.step in chosen]


def _total(weights: Mapping[Snapshot, float], run: str | None) -> dict[str, Tensor]:
    """Return the weighted sum of snapshots of one run, one in memory at a time."""
    total: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    for snapshot, weight in weights.items():
        averaged, _, own = snapshot.of_run()
        if own != run:
            raise CheckpointError(
                f"{snapshot.path} is a snapshot of another run than the others; remove it, or take "
                "those of one run"
            )
        shapes = {name: value.shape for name, value in averaged.items()}
        if total and shapes != {name: value.shape for name, value in total.items()}:
            raise CheckpointError(f"{snapshot.path} is a snapshot of another model than the others")
        for name, value in averaged.items():
            part = weight * value.double()
            total[name] = total[name].add_(part) if name in total else part
            dtypes[name] = torch.promote_types(value.dtype, torch.float32)
    return {name: value.to(dtypes[name]) for name, value in total.items()}

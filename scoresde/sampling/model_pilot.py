"""Measure the pilot of a model in a run that depends only on the model."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.checks import outside
from scoresde.noise import Noise
from scoresde.samplers.multistep.fast import SETTINGS
from scoresde.sampling.audition import audition, few
from scoresde.sampling.learn import SAMPLES, STEPS, pilot_run
from scoresde.score import Pilot, device_of
from scoresde.sde import Classes, Condition, facts

if TYPE_CHECKING:
    from scoresde.score import ScoreModel

__all__ = ["evaluations_of", "lacks_setting", "pilot_of_model", "samples_of", "with_setting"]

# The largest number of entries of initial and final states that are stored with a model; larger
# states are computed again when they are needed.
_KEPT = 2**25
# If a sample has at least this many entries, a quarter of the samples is enough.
_LARGE = 512


def pilot_of_model(
    model: ScoreModel, progress: bool | None = None
) -> tuple[Pilot | None, Tensor | None]:
    """Return the pilot of a model, and the initial and final states of its run `(2, n, *)`.

    The numbers are rounded as in a model's file, so that a saved model draws the same samples.

    Args:
        model: The model.
        progress: Show a bar, as for `sample`.

    Returns:
        The pilot; None if the SDE has fewer than 6 levels, or, with a warning, if the run fails.
    """
    if model.sde.levels is not None and model.sde.levels < 6:
        return None, None
    try:
        with torch.autocast(device_of(model).type, enabled=False):
            n, condition = samples_of(model), _typical(model)
            found, ends = pilot_run(model, n=n, condition=condition, progress=progress)
    except Exception as error:  # a network may raise any error, for example if it needs a condition
        warnings.warn(
            f'no pilot could be measured for "fast", which runs without one: {error}; '
            "pilot=False skips the measurement",
            UserWarning,
            stacklevel=outside(),
        )
        return None, None
    return Pilot.of(found.tensors(), found.numbers()), ends


def lacks_setting(pilot: Pilot, steps: int | None) -> bool:
    """Return True if the setting for this number of steps should still be chosen."""
    return steps is not None and few(steps) and steps not in pilot.choices


def samples_of(model: ScoreModel) -> int:
    """Return the number of samples of a pilot run: 32, or 8 from 512 entries of a sample on."""
    return SAMPLES if math.prod(model.event_shape) < _LARGE else SAMPLES // 4


def evaluations_of(model: ScoreModel, steps: int) -> int:
    """Return the evaluations of one sample that a pilot, and a choice for `steps`, take."""
    return samples_of(model) * (STEPS + 1 + (len(SETTINGS) * steps if few(steps) else 0))


def with_setting(
    model: ScoreModel, pilot: Pilot, ends: Tensor | None, steps: int, progress: bool | None
) -> tuple[Pilot, Tensor | None]:
    """Return the pilot with the setting for `steps`, and initial and final states of its run.

    Args:
        model: The model.
        pilot: The pilot of the model.
        ends: The initial and final states of the pilot run, `(2, n, *)`; None repeats the run.
        steps: The number of steps.
        progress: Show a bar, as for `sample`.
    """
    if ends is None:
        ends = pilot_of_model(model, progress)[1]
    if ends is None:
        return pilot, None
    device, condition = device_of(model), _typical(model)
    with torch.autocast(device.type, enabled=False):
        found = audition(
            model, model.sde, pilot, ends.to(device), steps, progress=progress,
            condition=Condition(condition) if condition else None,
        )  # fmt: skip
    return found, ends if ends.numel() <= _KEPT else None


def _typical(model: ScoreModel) -> dict[str, Tensor] | None:
    """Return conditions for a pilot run: classes in turn, and numbers with the known moments."""
    kinds, found, n = facts(model).conditions or {}, dict[str, Tensor](), samples_of(model)
    known = model.condition_units.moments()
    for k, (name, kind) in enumerate(kinds.items()):
        if isinstance(kind, Classes):
            found[name] = torch.arange(n) % kind.n
        else:
            mean, std = known.get(name, (torch.tensor(0.0), torch.tensor(1.0)))
            z = Noise.of(0, n).fork(k).normal(torch.empty(n, *kind.shape), 0.0)
            found[name] = mean.cpu() + std.cpu() * z
    return found or None

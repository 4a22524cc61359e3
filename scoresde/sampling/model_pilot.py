"""Measure the pilot of a model in a run that depends only on the model."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.checks import outside
from scoresde.errors import ScoreSDEError
from scoresde.noise import Noise
from scoresde.sampling.audition import audition, few, runs_of
from scoresde.sampling.learn import KEPT, SAMPLES, STEPS, PilotRun
from scoresde.score import Pilot, Wrapped, device_of
from scoresde.sde import Classes, Condition, facts

if TYPE_CHECKING:
    from scoresde.score import ScoreModel

__all__ = ["evaluations_of", "lacks_setting", "pilot_of_model", "with_setting"]


class _Asked(Wrapped):
    """Keep the error of a model, which may be any error, for example if it needs a condition."""

    error: Exception | None = None

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        try:
            return self.ask(self.score, x, t, condition)
        except Exception as error:
            self.error = error
            raise


def pilot_of_model(
    model: ScoreModel, progress: bool | None = None
) -> tuple[Pilot | None, Tensor | None]:
    """Return the pilot of a model, and the states of its run, `(K, n, *)` or `(2, n, *)`.

    The numbers of the pilot are rounded as in a model's file, so that the model draws the same
    samples before and after it is saved.

    Args:
        model: The model.
        progress: Show a bar, as for `sample`.

    Returns:
        The pilot; None if the SDE has fewer than 6 levels, or, with a warning, if the model raises
        an error or its run ends in a ScoreSDEError.
    """
    if model.sde.levels is not None and model.sde.levels < 6:
        return None, None
    asked = _Asked(model)
    try:
        with torch.autocast(device_of(model).type, enabled=False):
            run = PilotRun(asked, model.sde, condition=_typical(model), progress=progress)
            found, states = run.measure()
    except Exception as error:
        if not isinstance(error, ScoreSDEError) and error is not asked.error:
            raise
        warnings.warn(
            f'no pilot could be measured, so "fast" runs without a pilot: {error}; '
            "pilot=False skips the measurement",
            UserWarning,
            stacklevel=outside(),
        )
        return None, None
    return Pilot.of(found.tensors(), found.numbers()), states


def lacks_setting(pilot: Pilot, steps: int | None) -> bool:
    """Return True if the setting for this number of steps should still be chosen."""
    return steps is not None and few(steps) and steps not in pilot.choices


def evaluations_of(steps: int) -> int:
    """Return the evaluations, summed over samples, for a pilot and the choice of its setting."""
    return SAMPLES * (STEPS + 1 + steps * runs_of(steps))


def with_setting(
    model: ScoreModel, pilot: Pilot, states: Tensor | None, steps: int, progress: bool | None
) -> tuple[Pilot, Tensor | None]:
    """Return the pilot with the setting for `steps`, and the states of its run unless too large.

    Args:
        model: The model.
        pilot: The pilot of the model.
        states: The states of the pilot run, as `pilot_of_model` returns them; None repeats the run.
        steps: The number of steps.
        progress: Show a bar, as for `sample`.
    """
    if states is None:
        states = pilot_of_model(model, progress)[1]
    if states is None:
        return pilot, None
    device = device_of(model)
    with torch.autocast(device.type, enabled=False):
        found = audition(
            model, model.sde, pilot, states.to(device), steps, progress=progress,
            condition=_typical(model),
        )  # fmt: skip
    # states with many entries are not kept, but computed again when they are needed
    return found, states if states.numel() <= KEPT else None


def _typical(model: ScoreModel) -> Condition | None:
    """Return conditions for a pilot run: all classes in turn, and draws for other conditions."""
    kinds, found = facts(model).conditions or {}, dict[str, Tensor]()
    known = model.condition_units.moments()
    for k, (name, kind) in enumerate(kinds.items()):
        if isinstance(kind, Classes):
            found[name] = torch.arange(SAMPLES) % kind.n
        else:
            mean, std = known.get(name, (torch.tensor(0.0), torch.tensor(1.0)))
            z = Noise.of(0, SAMPLES).fork(k).normal(torch.empty(SAMPLES, *kind.shape), 0.0)
            found[name] = mean.cpu() + std.cpu() * z
    return Condition(found) if found else None

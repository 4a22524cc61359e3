r"""Measure the pilot of a model, and choose the settings of the fast sampler for it by audition.

The errors that a pilot foretells for a grid take each evaluation as if it were made at the exact
state; in few steps it is not. So for few steps every setting of `SETTINGS` is run from the starts
of the pilot run, and that which ends nearest to its ends, without the worst tenth of the samples,
is taken. All of this is a function of the model alone.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.checks import outside
from scoresde.errors import ScoreSDEError
from scoresde.noise import Noise
from scoresde.progress import showing
from scoresde.samplers.multistep.fast import SETTINGS, Fast
from scoresde.sampling.learn import SAMPLES, pilot_run
from scoresde.sampling.run import Run
from scoresde.score import Pilot, Setting, device_of
from scoresde.sde import Classes, facts

if TYPE_CHECKING:
    from scoresde.score import ScoreModel

__all__ = ["chosen", "missing", "pilot_of_model"]

# The most evaluations of an audition, and the fewest settings that are worth one.
_EVALUATIONS, _FEWEST = 192, 4
# Another setting than the first must be so much nearer; and the share of samples left out.
_MARGIN, _LEFT_OUT = 0.9, 0.1


def pilot_of_model(
    model: ScoreModel, progress: bool | None = None
) -> tuple[Pilot | None, Tensor | None]:
    """Return the pilot of a model, and starts and ends of its run `(2, n, *)`.

    The numbers are rounded as they are in the file of a model, so that a saved model draws the
    same samples.

    Args:
        model: The model.
        progress: Show a bar, as for `sample`.

    Returns:
        The pilot, or None if its SDE has fewer than 6 levels, or the run fails, with a warning.
    """
    if model.sde.levels is not None and model.sde.levels < 6:
        return None, None
    try:
        with torch.autocast(device_of(model).type, enabled=False):
            found, ends = pilot_run(model, condition=_typical(model), progress=progress)
    except ScoreSDEError as error:
        warnings.warn(
            f'no pilot could be measured for "fast", which goes on without: {error}; '
            "pilot=False does not try",
            UserWarning,
            stacklevel=outside(),
        )
        return None, None
    return Pilot.of(found.tensors(), found.numbers()), ends


def missing(pilot: Pilot, steps: int | None) -> bool:
    """Return True if a setting for this number of steps is to be chosen, and is not yet."""
    few = steps is not None and 1 < steps <= _EVALUATIONS // _FEWEST
    return few and steps not in pilot.choices


def chosen(
    model: ScoreModel, pilot: Pilot, ends: Tensor | None, steps: int, progress: bool | None
) -> tuple[Pilot, Tensor | None]:
    """Return a pilot with the setting for a number of steps, and starts and ends of its run.

    Args:
        model: The model.
        pilot: Its pilot.
        ends: Starts and ends of the pilot run, `(2, n, *)`; None repeats it.
        steps: The number of steps.
        progress: Show a bar, as for `sample`.
    """
    if ends is None:
        ends = pilot_of_model(model, progress)[1]
    if ends is None:
        return pilot, None
    settings = SETTINGS[: _EVALUATIONS // steps]
    errors: dict[Setting, float] = {}
    with (
        showing(
            len(settings), f'choosing the setting of "fast" for {steps} steps', unit="setting",
            show=progress, delay=1.0,
        ) as bar,
        torch.autocast(device_of(model).type, enabled=False),
    ):  # fmt: skip
        for setting in settings:
            errors[setting] = _error(model, pilot, ends, steps, setting)
            bar.update()
    usual, best = SETTINGS[0], min(settings, key=lambda one: errors[one])
    choice = best if errors[best] < _MARGIN * errors[usual] else usual
    return replace(pilot, choices={**pilot.choices, steps: choice}), ends


def _error(model: ScoreModel, pilot: Pilot, ends: Tensor, steps: int, setting: Setting) -> float:
    """Return the distance of a setting from the ends of the pilot run, of all but the worst."""
    method = Fast(pilot=replace(pilot, choices={steps: setting}))
    start, end = ends
    try:
        x = Run.of(
            model, sampler=method, x=start.to(device_of(model)), steps=steps, seed=0,
            denoise=False, pilot=False, condition=_typical(model), progress=False,
        ).draw().x  # fmt: skip
    except ScoreSDEError:
        return math.inf
    squares = (x.cpu() - end).double().flatten(1).square().mean(1).sort().values
    return float(squares[: max(round((1 - _LEFT_OUT) * len(squares)), 1)].mean().sqrt())


def _typical(model: ScoreModel) -> dict[str, Tensor] | None:
    """Return conditions for a pilot: classes in turn, numbers with the moments that are known."""
    kinds, found = facts(model).conditions or {}, dict[str, Tensor]()
    known = model.condition_units.moments()
    for k, (name, kind) in enumerate(kinds.items()):
        if isinstance(kind, Classes):
            found[name] = torch.arange(SAMPLES) % kind.n
        else:
            mean, std = known.get(name, (torch.tensor(0.0), torch.tensor(1.0)))
            z = Noise.of(0, SAMPLES).fork(k).normal(torch.empty(SAMPLES, *kind.shape), 0.0)
            found[name] = mean.cpu() + std.cpu() * z
    return found or None

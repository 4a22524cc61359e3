r"""Choose the setting of the fast sampler by trying all settings from a pilot run's initial states.

A pilot predicts the errors of a grid for scores evaluated on the exact trajectory. With few steps
the states are far from it. So for few steps every setting in `SETTINGS` is run from the initial
states of the pilot run. The setting whose samples are nearest to the pilot run's final states is
chosen; the worst tenth of the samples is ignored.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from scoresde.errors import ScoreSDEError
from scoresde.progress import showing
from scoresde.samplers.multistep.fast import SETTINGS, Fast, usual_setting
from scoresde.sampling.run import Run
from scoresde.score import Pilot, Setting
from scoresde.sde import SDE, Condition, Score

__all__ = ["audition", "few"]

# The largest number of evaluations for all settings together. With more steps, the same setting was
# best on nearly all problems.
_EVALUATIONS = 192
# The usual setting is replaced only by a setting with an error below this fraction of the usual
# setting's.
_MARGIN = 0.9
# The share of the worst samples, which the error ignores.
_LEFT_OUT = 0.1
# The largest number of entries of states that are evaluated at once.
_NUMBERS = 2**20


def few(steps: int) -> bool:
    """Return True if settings are tried for this number of steps."""
    return 1 < steps <= _EVALUATIONS // len(SETTINGS)


def audition(
    score: Score,
    sde: SDE,
    pilot: Pilot,
    ends: Tensor,
    steps: int,
    *,
    condition: Condition | None = None,
    progress: bool | None = None,
    device: torch.device | str | None = None,
) -> Pilot:
    """Return the pilot with the best setting for few steps; for many steps return it unchanged.

    Args:
        score: The score.
        sde: The process.
        pilot: The pilot.
        ends: The initial and final states of the pilot run, `(2, n, *)`.
        steps: The number of steps.
        condition: The conditions of the run.
        progress: Show a progress bar, as `sample` does.
        device: The device; by default that of the score's networks.
    """
    if not few(steps):
        return pilot
    errors: dict[Setting, float] = {}
    doing, (start, end) = f'choosing the setting of "fast" for {steps} steps', ends
    part = max(1, min(len(start), _NUMBERS // max(start[0].numel(), 1)))
    with showing(len(SETTINGS), doing, unit="setting", show=progress, delay=1.0) as bar:
        for setting in SETTINGS:
            method = Fast(pilot=replace(pilot, choices={steps: setting}))
            try:
                x = Run.of(
                    score, sde, method, x=start, steps=steps, seed=0, denoise=False, pilot=False,
                    condition=condition, progress=False, device=device,
                ).draw(part).x  # fmt: skip
                errors[setting] = _error(x.cpu(), end.cpu())
            except ScoreSDEError:
                errors[setting] = math.inf
            bar.update()
    usual, best = usual_setting(steps), min(SETTINGS, key=lambda one: errors[one])
    choice = best if errors[best] < _MARGIN * errors[usual] else usual
    return replace(pilot, choices={**pilot.choices, steps: choice})


def _error(x: Tensor, end: Tensor) -> float:
    """Return the root-mean-square distance from the exact final states, without the worst tenth."""
    squares = (x - end).double().flatten(1).square().mean(1).sort().values
    return float(squares[: max(round((1 - _LEFT_OUT) * len(squares)), 1)].mean().sqrt())

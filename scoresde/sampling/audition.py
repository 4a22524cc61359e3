r"""Choose the setting of the fast sampler by trying all settings from a pilot run's initial states.

A pilot predicts the errors of a grid for scores evaluated on the exact trajectory. With few steps
the states are far from this trajectory. So for few steps every setting in `SETTINGS` is run from
the initial states of the pilot run. The setting whose samples are nearest to the final states of
the pilot run, without the worst tenth of the samples, replaces the usual setting if its error is
clearly smaller. Then corrections of the weights are fitted for the best settings
(`scoresde.sampling.fit`). They are taken if they clearly reduce the errors for initial states that
the fit did not use.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from scoresde.errors import ScoreSDEError
from scoresde.progress import showing
from scoresde.samplers import Sampler
from scoresde.samplers.multistep.fast import SETTINGS, Fast, usual_setting
from scoresde.sampling.fit import Fitting, Updated, fitted_on, nearest, states_at
from scoresde.sampling.run import Run
from scoresde.score import Fit, Pilot, Setting
from scoresde.sde import SDE, Condition, Score

__all__ = ["audition", "few", "runs_of"]

# The largest number of evaluations of all runs together, three times as many as a pilot takes. For
# more steps than these allow, the same setting was best on nearly all problems.
_EVALUATIONS = 192
# A setting, or a fit, is taken only if its error is below this fraction of the error without it.
_MARGIN = 0.9
# Weights are fitted for this number of settings, the best ones.
_FITS = 4
# The smallest number of trajectories from which a fit is made.
_FEWEST = 16
# The largest number of entries of states that are evaluated at once. If the states of a pilot run
# have more entries, nothing is fitted, since a fit needs all states at once.
_NUMBERS = 2**20


def few(steps: int) -> bool:
    """Return True if settings are tried for this number of steps."""
    return 1 < steps <= _EVALUATIONS // len(SETTINGS)


def runs_of(steps: int) -> int:
    """Return the number of runs for a number of steps: one for each setting and each fit."""
    return min(len(SETTINGS) + _FITS, _EVALUATIONS // steps) if few(steps) else 0


def audition(
    score: Score,
    sde: SDE,
    pilot: Pilot,
    states: Tensor,
    steps: int,
    *,
    condition: Condition | None = None,
    progress: bool | None = None,
    device: torch.device | str | None = None,
) -> Pilot:
    """Return the pilot with the setting for few steps, and with a fit if it is clearly better.

    For many steps the pilot is returned unchanged.

    Args:
        score: The score.
        sde: The process.
        pilot: The pilot.
        states: The states of the pilot run, `(K, n, *)`; or only the initial and the final states,
            `(2, n, *)`, and then nothing is fitted.
        steps: The number of steps.
        condition: The conditions of the run.
        progress: Show a progress bar, as `sample` does.
        device: The device; by default the device of the score's networks.
    """
    if not few(steps):
        return pilot
    start, end = states[0], states[-1].cpu()
    part = max(1, min(len(start), _NUMBERS // max(start[0].numel(), 1)))
    fits = runs_of(steps) - len(SETTINGS)
    if len(states) != len(pilot.ell) or part < len(start) or len(start) < _FEWEST:
        fits = 0

    def ends(method: Sampler) -> Tensor:
        """Return the squared errors of the samples of a method; infinite if the method fails."""
        try:
            x = Run.of(
                score, sde, method, x=start, steps=steps, seed=0, denoise=False, pilot=False,
                condition=condition, progress=False, device=device,
            ).draw(part).x  # fmt: skip
        except ScoreSDEError:
            return torch.full((len(start),), math.inf)
        return (x.cpu() - end).double().flatten(1).square().mean(1)

    doing = f'choosing the setting of "fast" for {steps} steps'
    with showing(len(SETTINGS) + fits, doing, unit="setting", show=progress, delay=1.0) as bar:
        plain, fitted = dict[Setting, Tensor](), dict[Fit, Tensor]()
        for setting in SETTINGS:
            plain[setting] = ends(Fast(pilot=replace(pilot, choices={steps: setting}, fits={})))
            bar.update()
        best = sorted(SETTINGS, key=lambda one: _error(plain[one]))
        usual = usual_setting(steps)
        chosen = best[0] if _error(plain[best[0]]) < _MARGIN * _error(plain[usual]) else usual
        for setting in best[:fits]:
            method = Fast(pilot=replace(pilot, choices={steps: setting}, fits={}))
            fitting = Fitting(states_at(pilot, states, sde, method.times(sde, steps)))
            squares = ends(Updated(method, fitting))
            if squares.isfinite().all():
                fitted[Fit(setting, tuple(fitting.rows))] = squares
            bar.update()
    pilot = replace(pilot, choices={**pilot.choices, steps: chosen})
    held = slice(fitted_on(len(start)), None)
    least = min(fitted, key=lambda one: _error(fitted[one][held]), default=None)
    if least and _error(fitted[least][held]) < _MARGIN * _error(plain[chosen][held]):
        return replace(pilot, fits={**pilot.fits, steps: least})
    return pilot


def _error(squares: Tensor) -> float:
    """Return the root mean square of errors from their squares `(n,)`, without the worst tenth."""
    return float(squares[nearest(squares)].mean().sqrt())

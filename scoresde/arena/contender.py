"""Define contenders, which turn draws of p_T into samples within a budget of evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from scoresde.checks import check_name
from scoresde.errors import ConvergenceError, InvalidTypeError
from scoresde.samplers import Fast, Sampler
from scoresde.sampling import SAMPLERS, trajectory
from scoresde.sampling.audition import audition
from scoresde.sampling.learn import STEPS, PilotRun
from scoresde.score import Pilot, device_of
from scoresde.sde import Facts, Moments

if TYPE_CHECKING:
    from scoresde.arena.problem import Problem

__all__ = ["FAST", "Contender", "Informed", "Own", "contenders"]

Contender = Callable[["Problem", Tensor, int, int], tuple[Tensor, int] | None]
r"""A function `(problem, x, budget, seed)` of draws `x` `(B, *)` of $p_T$.

It returns the final denoised samples $E[x_0 | x_\epsilon]$, `(B, *)`, and the number of evaluations
of the score for each sample, including the evaluation of the denoiser. It returns None if the
budget is too small: for one step or, for an adaptive method, for the run.
"""


@dataclass(frozen=True)
class Own:
    """Run a sampler of this package by `scoresde.trajectory`."""

    sampler: Sampler

    @torch.no_grad()
    def __call__(
        self, problem: Problem, x: Tensor, budget: int, seed: int
    ) -> tuple[Tensor, int] | None:
        """Return the samples and their evaluations, or None if the budget is too small."""
        return _run(self.sampler, problem, problem.score, problem.moments, x, budget, seed)


def _run(
    sampler: Sampler, problem: Problem, score: Any, moments: Moments | None,
    x: Tensor, budget: int, seed: int,
) -> tuple[Tensor, int] | None:  # fmt: skip
    if sampler.steps_for(budget - 1) < 1:
        return None
    states = trajectory(
        score, problem.sde, sampler, x=x, nfe=budget, seed=seed, moments=moments, progress=False
    )
    try:
        *_, last = states
    except ConvergenceError:  # the budget is too small for an adaptive method
        return None
    assert last.denoised is not None
    return last.denoised, last.nfe


@dataclass(frozen=True)
class Informed:
    """Run the fast sampler with limited knowledge of the data.

    Args:
        sampler: The sampler.
        facts: What the sampler is told about the data: "nothing"; "variance", the mean and one
            variance for all dimensions; or "covariance", the mean and the full covariance.
        pilot: Make a pilot run.
        choose: Choose the sampler's settings for each budget by runs from the pilot's initial
            states, and fit its weights. This has no effect without a pilot run, with noise, for a
            sampler whose order or corrector is given, or for more than 24 steps.
    """

    sampler: Fast
    facts: Literal["nothing", "variance", "covariance"]
    pilot: bool
    choose: bool = True

    @property
    def pilot_nfe(self) -> int:
        """Return the evaluations per sample of the pilot run, without the choice of settings."""
        return STEPS + 1 if self.pilot else 0

    @torch.no_grad()
    def __call__(
        self, problem: Problem, x: Tensor, budget: int, seed: int
    ) -> tuple[Tensor, int] | None:
        """Return the samples and their evaluations, or None if the budget is too small."""
        moments = _known_moments(problem, self.facts)
        sampler = self.sampler
        if self.pilot:
            steps = sampler.steps_for(budget - 1) if self.choose and sampler.auditioned else 0
            sampler = replace(sampler, pilot=_pilot(problem, moments, steps))
        return _run(sampler, problem, _NoFacts(problem.score), moments, x, budget, seed)


class _NoFacts:
    """Wrap a score, and hide the facts that it declares about the data."""

    def __init__(self, score: Any) -> None:
        self._score = score
        self.facts = Facts()

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        score: Tensor = self._score(x, t)
        return score


# Problems and moments compare by identity, so there is one pilot run for each set of facts.
@lru_cache(maxsize=256)
def _known_moments(problem: Problem, facts: str) -> Moments | None:
    if facts == "nothing":
        return None
    if facts == "covariance":
        return problem.moments
    return Moments(problem.moments.mean, var=problem.moments.mean_variance())


@lru_cache(maxsize=8)  # few, since each holds the states of a run
def _measured(problem: Problem, moments: Moments | None) -> tuple[Pilot, Tensor]:
    """Return the pilot of a problem, and the states of its run."""
    return PilotRun(
        _NoFacts(problem.score), problem.sde, problem.shape, moments, dtype=problem.dtype,
        progress=False,
    ).measure()  # fmt: skip


@lru_cache(maxsize=256)
def _pilot(problem: Problem, moments: Moments | None, steps: int) -> Pilot:
    """Return the pilot of a problem, with the settings chosen for `steps` if these are few."""
    pilot, states = _measured(problem, moments)
    score = _NoFacts(problem.score)
    states = states.to(device_of(score))
    return audition(score, problem.sde, pilot, states, steps, progress=False)


def contenders(
    samplers: Mapping[str, Sampler | str | Contender] | Sequence[str],
) -> dict[str, Contender]:
    """Return contenders by their names, from samplers, names of samplers and functions.

    Raises:
        UnknownNameError: A sampler's name is unknown.
        InvalidTypeError: A value is neither a sampler nor a name nor a function.
    """
    if isinstance(samplers, str):
        samplers = [samplers]
    if not isinstance(samplers, Mapping):
        samplers = {name: name for name in samplers}
    found: dict[str, Contender] = {}
    for name, sampler in samplers.items():
        if isinstance(sampler, str):
            check_name("sampler", sampler, SAMPLERS)
            sampler = SAMPLERS[sampler]
        if isinstance(sampler, Sampler):
            found[name] = Own(sampler)
        elif callable(sampler):
            found[name] = sampler
        else:
            raise InvalidTypeError(
                f"{name!r} must be a sampler, its name, or a function (problem, x, budget, seed) "
                f"-> (samples, evaluations), got {sampler!r}"
            )
    return found


FAST: dict[str, Contender] = {
    "fast": Informed(Fast(), "variance", pilot=True),
    "fast, covariance": Informed(Fast(), "covariance", pilot=True),
    "fast, no choice": Informed(Fast(), "variance", pilot=True, choose=False),
    "fast, no fit": Informed(Fast(fit=False), "variance", pilot=True),
    "fast, no pilot": Informed(Fast(), "variance", pilot=False),
    "fast, no facts": Informed(Fast(), "nothing", pilot=False),
    "fast_sde": Informed(Fast(tau=0.3), "variance", pilot=True),
}
"""The fast sampler with different knowledge of the data; "fast" knows the mean and one variance."""

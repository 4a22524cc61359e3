"""Who competes: anything that turns draws of p_T into samples on a budget of evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.errors import ConvergenceError, InvalidTypeError, UnknownNameError
from scoresde.samplers import Sampler
from scoresde.sampling import SAMPLERS, trajectory

if TYPE_CHECKING:
    from scoresde.arena.problems import Problem

__all__ = ["Contender", "Own", "contenders"]

Contender = Callable[["Problem", Tensor, int, int], tuple[Tensor, int] | None]
r"""A function `(problem, x, budget, seed)` of draws `x` `(B, *)` of $p_T$.

It returns $E[x_0 | x_\epsilon]$ at the $x_\epsilon$ that it comes to, `(B, *)`, and the evaluations
of the score that each sample received, the last one included; or None, where the budget does not
pay for a step, or for all that an adaptive method needs.
"""


@dataclass(frozen=True)
class Own:
    """A sampler of this package, run as `scoresde.trajectory` runs it."""

    sampler: Sampler

    @torch.no_grad()
    def __call__(
        self, problem: Problem, x: Tensor, budget: int, seed: int
    ) -> tuple[Tensor, int] | None:
        """The samples and what they cost; `None` where the budget does not pay for them."""
        if self.sampler.steps_for(budget - 1) < 1:
            return None
        states = trajectory(
            problem.score, problem.sde, self.sampler,
            x=x, nfe=budget, seed=seed, data=problem.data, progress=False,
        )  # fmt: skip
        try:
            *_, last = states
        except ConvergenceError:  # an adaptive method stops there
            return None
        assert last.denoised is not None
        return last.denoised, last.nfe


def contenders(
    samplers: Mapping[str, Sampler | str | Contender] | Sequence[str],
) -> dict[str, Contender]:
    """Contenders by their names, from samplers, names of samplers and functions.

    Raises:
        UnknownNameError: A sampler's name is unknown.
        InvalidTypeError: A value is none of these.
    """
    if isinstance(samplers, str):
        samplers = [samplers]
    if not isinstance(samplers, Mapping):
        samplers = {name: name for name in samplers}
    found: dict[str, Contender] = {}
    for name, sampler in samplers.items():
        if isinstance(sampler, str):
            if sampler not in SAMPLERS:
                raise UnknownNameError.of("sampler", sampler, SAMPLERS)
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

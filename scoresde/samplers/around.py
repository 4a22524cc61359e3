"""Define the base class of samplers that run another sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from torch import Tensor

from scoresde.samplers.sampler import NoiseLike, Sampler
from scoresde.sde import SDE, Condition, Facts, Field, Moments, ReverseSDE

__all__ = ["Around"]


def _inner(name: str) -> Any:
    """Return a property that has the value of this attribute of the inner sampler."""
    return property(lambda self: getattr(self.sampler, name))


@dataclass(frozen=True)
class Around(Sampler):
    """Define the base class of samplers that run an inner sampler, and have its attributes.

    Args:
        sampler: The inner sampler.
    """

    sampler: Sampler

    nfe_per_step = _inner("nfe_per_step")
    order = _inner("order")
    stochastic = _inner("stochastic")
    conditional = _inner("conditional")
    adaptive = _inner("adaptive")
    coupled = _inner("coupled")
    between = _inner("between")
    takes_start = _inner("takes_start")
    uses_pilot = _inner("uses_pilot")
    auditioned = _inner("auditioned")
    conditions = _inner("conditions")

    def declared(self, event: tuple[int, ...]) -> Mapping[str, Field]:
        """Return the kinds of the inner sampler's conditions."""
        return self.sampler.declared(event)

    def checked(self, condition: Condition) -> Condition:
        """Return the inner sampler's conditions, after checking them."""
        return self.sampler.checked(condition)

    def states(self, steps: int) -> int:
        """Return the number of states of the inner sampler."""
        return self.sampler.states(steps)

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> Self:
        """Return this sampler with the inner one set up for a score."""
        return replace(self, sampler=self.sampler.prepared(facts, sde))

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return the inner sampler's grid."""
        return self.sampler.times(sde, steps, moments)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return the inner sampler's step."""
        return self.sampler.step(rsde, x, t, s, noise)

    def finish(self, rsde: ReverseSDE, x: Tensor, t: Tensor, noise: NoiseLike) -> Tensor:
        """Return the inner sampler's final states."""
        return self.sampler.finish(rsde, x, t, noise)

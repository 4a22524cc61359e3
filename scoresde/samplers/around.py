"""Define the base class of samplers that run another sampler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from scoresde.samplers.sampler import NoiseLike, Sampler
from scoresde.sde import SDE, Condition, Facts, Field, Moments, ReverseSDE

__all__ = ["Around"]


@dataclass(frozen=True)
class Around(Sampler):
    """Define the base class of samplers that run an inner sampler, and have its attributes.

    Args:
        sampler: The inner sampler.
    """

    sampler: Sampler

    @property
    def nfe_per_step(self) -> int:
        """Return the attribute of the inner sampler."""
        return self.sampler.nfe_per_step

    @property
    def order(self) -> int | None:
        """Return the attribute of the inner sampler."""
        return self.sampler.order

    @property
    def stochastic(self) -> bool:
        """Return the attribute of the inner sampler."""
        return self.sampler.stochastic

    @property
    def conditional(self) -> bool:
        """Return the attribute of the inner sampler."""
        return self.sampler.conditional

    @property
    def adaptive(self) -> bool:
        """Return the attribute of the inner sampler."""
        return self.sampler.adaptive

    @property
    def coupled(self) -> bool:
        """Return the attribute of the inner sampler."""
        return self.sampler.coupled

    @property
    def between(self) -> bool:
        """Return the attribute of the inner sampler."""
        return self.sampler.between

    @property
    def takes_start(self) -> bool:
        """Return the attribute of the inner sampler."""
        return self.sampler.takes_start

    @property
    def uses_pilot(self) -> bool:
        """Return the attribute of the inner sampler."""
        return self.sampler.uses_pilot

    @property
    def auditioned(self) -> bool:
        """Return the attribute of the inner sampler."""
        return self.sampler.auditioned

    @property
    def conditions(self) -> tuple[str, ...]:
        """Return the attribute of the inner sampler."""
        return self.sampler.conditions

    def declared(self, event: tuple[int, ...]) -> Mapping[str, Field]:
        """Return the kinds of the inner sampler's conditions."""
        return self.sampler.declared(event)

    def checked(self, condition: Condition) -> Condition:
        """Return the inner sampler's conditions, after checking them."""
        return self.sampler.checked(condition)

    def states(self, steps: int) -> int:
        """Return the states of the inner sampler."""
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

"""Run another sampler in a new way."""

from __future__ import annotations

from dataclasses import dataclass

from scoresde.samplers.sampler import Sampler

__all__ = ["Around"]


@dataclass(frozen=True)
class Around(Sampler):
    """Base of the samplers that run another one, and are adaptive, coupled and so on where it is.

    Args:
        sampler: The sampler that is run.
    """

    sampler: Sampler

    @property
    def conditional(self) -> bool:
        """Return the attribute of the sampler."""
        return self.sampler.conditional

    @property
    def adaptive(self) -> bool:
        """Return the attribute of the sampler."""
        return self.sampler.adaptive

    @property
    def coupled(self) -> bool:
        """Return the attribute of the sampler."""
        return self.sampler.coupled

    @property
    def between(self) -> bool:
        """Return the attribute of the sampler."""
        return self.sampler.between

    @property
    def takes_start(self) -> bool:
        """Return the attribute of the sampler."""
        return self.sampler.takes_start

    @property
    def uses_pilot(self) -> bool:
        """Return the attribute of the sampler."""
        return self.sampler.uses_pilot

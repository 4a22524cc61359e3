"""The samplers that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from scoresde.samplers import (
    PC,
    Ancestral,
    AnnealedLangevin,
    EulerMaruyama,
    ReverseDiffusion,
    Sampler,
)

__all__ = ["SAMPLERS"]

SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "pc": PC(),
        "em": EulerMaruyama(),
        "reverse_diffusion": ReverseDiffusion(),
        "ancestral": Ancestral(),
        "ald": AnnealedLangevin(),
    }
)
"""The names that `sampler=` accepts."""

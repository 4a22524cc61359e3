"""The samplers that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from scoresde.samplers import (
    DDIM,
    DPM2,
    IPNDM,
    LMS,
    PC,
    AdaptiveSDE,
    Ancestral,
    AnnealedLangevin,
    ConsistentAnnealed,
    EulerMaruyama,
    Heun,
    ProbabilityFlow,
    Restart,
    ReverseDiffusion,
    Sampler,
    Scipy,
    TorchSDE,
)

__all__ = ["SAMPLERS"]

SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        "pc": PC(),
        "em": EulerMaruyama(),
        "reverse_diffusion": ReverseDiffusion(),
        "ancestral": Ancestral(),
        "ald": AnnealedLangevin(),
        "cas": ConsistentAnnealed(),
        "ddim": DDIM(),
        "euler": DDIM(),
        "heun": Heun(),
        "dpm2": DPM2(),
        "lms": LMS(),
        "ipndm": IPNDM(),
        "restart": Restart(),
        "dopri5": ProbabilityFlow("dopri5"),
        "tsit5": ProbabilityFlow("tsit5"),
        "scipy": Scipy(),
        "adaptive": AdaptiveSDE(),
        "torchsde": TorchSDE(),
    }
)
"""The names that `sampler=` accepts; "euler" is Euler's method on the flow, which is DDIM."""

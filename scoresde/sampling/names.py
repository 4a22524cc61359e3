"""List the samplers by name.

Examples:
    >>> from scoresde import SAMPLERS
    >>> print(len(SAMPLERS), SAMPLERS["dpmpp_2m"].order, SAMPLERS["pc"].cost(steps=100))
    32 2 200
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from scoresde.samplers import (
    DDIM,
    DEIS,
    DPM2,
    ERSDE,
    IPNDM,
    LMS,
    PC,
    AdaptiveSDE,
    Ancestral,
    AnnealedLangevin,
    ConsistentAnnealed,
    DPMSolverPP,
    EulerMaruyama,
    Fast,
    Heun,
    ProbabilityFlow,
    Restart,
    ReverseDiffusion,
    Sampler,
    SASolver,
    Scipy,
    TorchSDE,
    TwoStage,
    UniPC,
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
        "dpmpp_2s": TwoStage(),
        "dpmpp_2m": DPMSolverPP(),
        "dpmpp_3m": DPMSolverPP(order=3),
        "dpmpp_sde": TwoStage(tau=1.0),
        "dpmpp_1s_sde": DPMSolverPP(order=1, tau=1.0),
        "dpmpp_2m_sde": DPMSolverPP(tau=1.0),
        "dpmpp_3m_sde": DPMSolverPP(order=3, tau=1.0),
        "unipc": UniPC(),
        "deis": DEIS(),
        "sa_solver": SASolver(),
        "er_sde": ERSDE(),
        "seeds_2": TwoStage(tau=1.0),
        "fast": Fast(),
        "fast_sde": Fast(tau=0.3),
    }
)
"""The samplers by the names that `sampler=` accepts.

"euler" is DDIM, which is Euler's method for the flow. "dpmpp_sde", a name of k-diffusion, is
SEEDS-2.
"""

"""Train, sample and evaluate score-based generative models through SDEs (Song et al. 2021)."""

from importlib import import_module
from types import ModuleType

from scoresde import nn, samplers, targets
from scoresde.errors import ScoreSDEError
from scoresde.likelihood import bits_per_dim, decode, encode, log_prob
from scoresde.noise import Noise
from scoresde.objectives import dsm_loss, fd_ssm_loss, ism_loss, ssm_loss
from scoresde.samplers import State
from scoresde.sampling import SAMPLERS, Run, pilot, sample, trajectory
from scoresde.score import (
    EnergyScore,
    Pilot,
    Rescheduled,
    ScoreModel,
    Wrapped,
    from_denoiser,
    load,
)
from scoresde.sde import (
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    BetaLadder,
    Classes,
    Condition,
    CosineSDE,
    Facts,
    Field,
    FlowSDE,
    ItoSDE,
    Moments,
    NCSNLadder,
    ReverseSDE,
    Score,
    SubVPSDE,
    facts,
)
from scoresde.suggestion import suggest

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Return a documented module, imported at its first use."""
    if name not in _MODULES:
        raise AttributeError(f"module 'scoresde' has no attribute {name!r}")
    return import_module(f"scoresde.{name}")


def __dir__() -> list[str]:
    """Return the public names and the documented modules, for completion."""
    return sorted({*__all__, *_MODULES, "__version__"})


_MODULES = frozenset(
    {
        "arena", "audit", "checkpoint", "data", "distributed", "divergence", "ema", "errors",
        "guidance", "likelihood", "metrics", "noise", "objectives", "ode", "plot", "result",
        "sampling", "score", "sde", "suggestion", "training", "units",
    }
)  # fmt: skip

__all__ = [
    "EDMSDE",
    "SAMPLERS",
    "SDE",
    "VESDE",
    "VPSDE",
    "BetaLadder",
    "Classes",
    "Condition",
    "CosineSDE",
    "EnergyScore",
    "Facts",
    "Field",
    "FlowSDE",
    "ItoSDE",
    "Moments",
    "NCSNLadder",
    "Noise",
    "Pilot",
    "Rescheduled",
    "ReverseSDE",
    "Run",
    "Score",
    "ScoreModel",
    "ScoreSDEError",
    "State",
    "SubVPSDE",
    "Wrapped",
    "bits_per_dim",
    "decode",
    "dsm_loss",
    "encode",
    "facts",
    "fd_ssm_loss",
    "from_denoiser",
    "ism_loss",
    "load",
    "log_prob",
    "nn",
    "pilot",
    "sample",
    "samplers",
    "ssm_loss",
    "suggest",
    "targets",
    "trajectory",
]

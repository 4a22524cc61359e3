"""Train, sample and evaluate score-based generative models through SDEs (Song et al. 2021)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoresde import nn, samplers, targets
    from scoresde.errors import ScoreSDEError
    from scoresde.likelihood import bits_per_dim, decode, encode, log_prob
    from scoresde.noise import Noise
    from scoresde.objectives import dsm_loss, fd_ssm_loss, ism_loss, ssm_loss
    from scoresde.samplers import State
    from scoresde.sampling import SAMPLERS, Run, pilot, sample, trajectory
    from scoresde.score import (
        EnergyScore,
        Latent,
        Pilot,
        Rescheduled,
        ScoreModel,
        Wrapped,
        from_denoiser,
        from_network,
        load,
    )
    from scoresde.sde import (
        EDMSDE,
        SDE,
        VESDE,
        VPSDE,
        BetaLadder,
        BrownianBridgeSDE,
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


def __getattr__(name: str) -> Any:
    """Import a public name or a documented module when it is first used."""
    if name in _MODULES:
        return import_module(f"scoresde.{name}")
    for home in _HOMES if name in __all__ else ():
        module = import_module(f"scoresde.{home}")
        if name in module.__all__:
            return globals().setdefault(name, getattr(module, name))
    raise AttributeError(f"module 'scoresde' has no attribute {name!r}{_elsewhere(name)}")


def _elsewhere(name: str) -> str:
    """Return a hint if a module of the package has this public name, else ""."""
    modules = sorted(_MODULES) if not name.startswith("_") else ()
    homes = [m for m in modules if name in getattr(import_module(f"scoresde.{m}"), "__all__", ())]
    return f"; it is scoresde.{homes[0]}.{name}" if homes else ""


def __dir__() -> list[str]:
    """Return the public names and the documented modules, for tab completion."""
    return sorted({*__all__, *_MODULES, "__version__"})


# the modules of the public names; `import scoresde` imports neither them nor torch
_HOMES = (
    "errors", "noise", "sde", "score", "samplers", "objectives", "sampling", "likelihood",
    "suggestion",
)  # fmt: skip
_MODULES = frozenset(
    {
        "arena", "audit", "checkpoint", "data", "distributed", "divergence", "ema", "errors",
        "guidance", "interop", "likelihood", "metrics", "nn", "noise", "objectives", "ode", "plot",
        "result", "samplers", "sampling", "score", "sde", "suggestion", "targets", "training",
        "units",
    }
)  # fmt: skip

__all__ = [
    "EDMSDE",
    "SAMPLERS",
    "SDE",
    "VESDE",
    "VPSDE",
    "BetaLadder",
    "BrownianBridgeSDE",
    "Classes",
    "Condition",
    "CosineSDE",
    "EnergyScore",
    "Facts",
    "Field",
    "FlowSDE",
    "ItoSDE",
    "Latent",
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
    "from_network",
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

"""scoresde: score-based generative models through stochastic differential equations."""

from scoresde import nn, samplers, targets
from scoresde.errors import ScoreSDEError
from scoresde.likelihood import bits_per_dim, decode, encode, log_prob
from scoresde.noise import Noise
from scoresde.objectives import dsm_loss, fd_ssm_loss, ism_loss, ssm_loss
from scoresde.samplers import State
from scoresde.sampling import SAMPLERS, pilot, sample, trajectory
from scoresde.score import (
    Bridge,
    EnergyScore,
    PerLevelScore,
    Pilot,
    ScoreModel,
    from_denoiser,
    load,
)
from scoresde.sde import (
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    CosineSDE,
    FlowSDE,
    Moments,
    NCSNLadder,
    ReverseSDE,
    SubVPSDE,
)
from scoresde.suggestion import suggest

__version__ = "0.1.0"

__all__ = [
    "EDMSDE",
    "SAMPLERS",
    "SDE",
    "VESDE",
    "VPSDE",
    "Bridge",
    "CosineSDE",
    "EnergyScore",
    "FlowSDE",
    "Moments",
    "NCSNLadder",
    "Noise",
    "PerLevelScore",
    "Pilot",
    "ReverseSDE",
    "ScoreModel",
    "ScoreSDEError",
    "State",
    "SubVPSDE",
    "bits_per_dim",
    "decode",
    "dsm_loss",
    "encode",
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

"""scoresde: score-based generative models through stochastic differential equations."""

from scoresde import nn, samplers, targets
from scoresde.errors import ScoreSDEError
from scoresde.noise import Noise
from scoresde.objectives import dsm_loss
from scoresde.samplers import State
from scoresde.sampling import SAMPLERS, sample, trajectory
from scoresde.score import Bridge, ScoreModel, from_denoiser, load
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

__version__ = "0.1.0"

__all__ = [
    "EDMSDE",
    "SAMPLERS",
    "SDE",
    "VESDE",
    "VPSDE",
    "Bridge",
    "CosineSDE",
    "FlowSDE",
    "Moments",
    "NCSNLadder",
    "Noise",
    "ReverseSDE",
    "ScoreModel",
    "ScoreSDEError",
    "State",
    "SubVPSDE",
    "dsm_loss",
    "from_denoiser",
    "load",
    "nn",
    "sample",
    "samplers",
    "targets",
    "trajectory",
]

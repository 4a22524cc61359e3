"""Stochastic differential equations: perturbation kernels, ladders, and their reversal."""

from scoresde.sde.base import SDE
from scoresde.sde.ladder import BetaLadder, NCSNLadder
from scoresde.sde.laws import Importance, LogNormal, Stratified, TimeLaw, Uniform
from scoresde.sde.moments import Moments
from scoresde.sde.paths import EDMSDE, VESDE, VPSDE, CosineSDE, FlowSDE, SubVPSDE
from scoresde.sde.reverse import ReverseSDE, ScoreFunction, as_score
from scoresde.sde.shapes import expand

__all__ = [
    "EDMSDE",
    "SDE",
    "VESDE",
    "VPSDE",
    "BetaLadder",
    "CosineSDE",
    "FlowSDE",
    "Importance",
    "LogNormal",
    "Moments",
    "NCSNLadder",
    "ReverseSDE",
    "ScoreFunction",
    "Stratified",
    "SubVPSDE",
    "TimeLaw",
    "Uniform",
    "as_score",
    "expand",
]

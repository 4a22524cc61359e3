r"""Scores: any callable `(x, t)` that returns $\nabla\log p_t(x)$, and networks that learn one."""

from scoresde.score.energy import EnergyScore
from scoresde.score.model import ScoreModel, load
from scoresde.score.modes import evaluating, layers
from scoresde.score.parameterization import PARAMETERIZATIONS, Affine
from scoresde.score.per_level import PerLevelScore
from scoresde.score.pilot import Pilot
from scoresde.score.store import locate
from scoresde.score.wrappers import Bridge, Conditional, DenoiserScore, check_problem, from_denoiser

__all__ = [
    "PARAMETERIZATIONS",
    "Affine",
    "Bridge",
    "Conditional",
    "DenoiserScore",
    "EnergyScore",
    "PerLevelScore",
    "Pilot",
    "ScoreModel",
    "check_problem",
    "evaluating",
    "from_denoiser",
    "layers",
    "load",
    "locate",
]

"""Samplers: predictors, correctors, and what is made of them."""

from scoresde.samplers.annealed import AnnealedLangevin
from scoresde.samplers.base import NoiseLike, Sampler, State
from scoresde.samplers.langevin import Corrector, FixedLangevin, Langevin, ScaledLangevin, correct
from scoresde.samplers.pc import PC
from scoresde.samplers.predictors import Ancestral, EulerMaruyama, ReverseDiffusion

__all__ = [
    "PC",
    "Ancestral",
    "AnnealedLangevin",
    "Corrector",
    "EulerMaruyama",
    "FixedLangevin",
    "Langevin",
    "NoiseLike",
    "ReverseDiffusion",
    "Sampler",
    "ScaledLangevin",
    "State",
    "correct",
]

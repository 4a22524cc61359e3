"""Samplers: predictors, correctors, and what is made of them."""

from scoresde.samplers.adams import IPNDM, LMS
from scoresde.samplers.adaptive import AdaptiveSDE
from scoresde.samplers.annealed import AnnealedLangevin, ConsistentAnnealed
from scoresde.samplers.base import Adaptive, NoiseLike, Sampler, State
from scoresde.samplers.flow import DDIM
from scoresde.samplers.heun import DPM2, Heun
from scoresde.samplers.langevin import Corrector, FixedLangevin, Langevin, ScaledLangevin, correct
from scoresde.samplers.metropolis import MALA
from scoresde.samplers.ode import ProbabilityFlow, Scipy
from scoresde.samplers.pc import PC
from scoresde.samplers.predictors import Ancestral, EulerMaruyama, ReverseDiffusion
from scoresde.samplers.restart import Restart
from scoresde.samplers.torchsde import TorchSDE

__all__ = [
    "DDIM",
    "DPM2",
    "IPNDM",
    "LMS",
    "MALA",
    "PC",
    "Adaptive",
    "AdaptiveSDE",
    "Ancestral",
    "AnnealedLangevin",
    "ConsistentAnnealed",
    "Corrector",
    "EulerMaruyama",
    "FixedLangevin",
    "Heun",
    "Langevin",
    "NoiseLike",
    "ProbabilityFlow",
    "Restart",
    "ReverseDiffusion",
    "Sampler",
    "ScaledLangevin",
    "Scipy",
    "State",
    "TorchSDE",
    "correct",
]

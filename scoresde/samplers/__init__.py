"""Samplers: predictors, correctors, and what is made of them."""

from scoresde.samplers.adams import IPNDM, LMS
from scoresde.samplers.adaptive import AdaptiveSDE
from scoresde.samplers.annealed import AnnealedLangevin, ConsistentAnnealed
from scoresde.samplers.base import Adaptive, NoiseLike, Sampler, State
from scoresde.samplers.exponential import ExponentialMultistep
from scoresde.samplers.fast import Fast
from scoresde.samplers.flow import DDIM
from scoresde.samplers.heun import DPM2, Heun
from scoresde.samplers.langevin import Corrector, FixedLangevin, Langevin, ScaledLangevin, correct
from scoresde.samplers.metropolis import MALA
from scoresde.samplers.multistep import DEIS, ERSDE, DPMSolverPP, SASolver, TauMultistep, UniPC
from scoresde.samplers.ode import ProbabilityFlow, Scipy
from scoresde.samplers.pc import PC
from scoresde.samplers.predictors import Ancestral, EulerMaruyama, ReverseDiffusion
from scoresde.samplers.restart import Restart, Stretch
from scoresde.samplers.singlestep import TwoStage
from scoresde.samplers.torchsde import TorchSDE

__all__ = [
    "DDIM",
    "DEIS",
    "DPM2",
    "ERSDE",
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
    "DPMSolverPP",
    "EulerMaruyama",
    "ExponentialMultistep",
    "Fast",
    "FixedLangevin",
    "Heun",
    "Langevin",
    "NoiseLike",
    "ProbabilityFlow",
    "Restart",
    "ReverseDiffusion",
    "SASolver",
    "Sampler",
    "ScaledLangevin",
    "Scipy",
    "State",
    "Stretch",
    "TauMultistep",
    "TorchSDE",
    "TwoStage",
    "UniPC",
    "correct",
]

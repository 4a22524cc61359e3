"""Define the samplers: predictors, correctors and solvers of the probability flow.

Examples:
    >>> import scoresde
    >>> score = scoresde.targets.TwoMoons().at(scoresde.VPSDE())
    >>> pc = scoresde.samplers.PC(scoresde.samplers.ReverseDiffusion(), k=1)
    >>> scoresde.sample(score, sampler=pc, n=4, steps=20, seed=0).shape
    torch.Size([4, 2])
"""

from scoresde.samplers.adaptive.ode import ProbabilityFlow, Scipy
from scoresde.samplers.adaptive.sde import AdaptiveSDE
from scoresde.samplers.adaptive.torchsde import TorchSDE
from scoresde.samplers.flow.adams import IPNDM, LMS
from scoresde.samplers.flow.euler import DDIM
from scoresde.samplers.flow.exponential import TwoStage
from scoresde.samplers.flow.heun import DPM2, Heun
from scoresde.samplers.flow.predictors import Ancestral, EulerMaruyama, ReverseDiffusion
from scoresde.samplers.flow.restart import Restart, RestartInterval
from scoresde.samplers.langevin.annealed import AnnealedLangevin, ConsistentAnnealed
from scoresde.samplers.langevin.impute import Impute
from scoresde.samplers.langevin.langevin import (
    Corrector,
    FixedLangevin,
    Langevin,
    ScaledLangevin,
    correct,
)
from scoresde.samplers.langevin.metropolis import MALA
from scoresde.samplers.langevin.pc import PC
from scoresde.samplers.multistep.fast import Fast
from scoresde.samplers.multistep.integrator import ExponentialMultistep
from scoresde.samplers.multistep.methods import (
    DEIS,
    ERSDE,
    DPMSolverPP,
    SASolver,
    TauMultistep,
    UniPC,
)
from scoresde.samplers.parallel import Parallel
from scoresde.samplers.posteriors.gibbs import SplitGibbs
from scoresde.samplers.posteriors.metropolis import Metropolis
from scoresde.samplers.posteriors.particles import Particles
from scoresde.samplers.posteriors.start import MeanStart
from scoresde.samplers.sampler import Adaptive, NoiseLike, Sampler, State

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
    "Impute",
    "Langevin",
    "MeanStart",
    "Metropolis",
    "NoiseLike",
    "Parallel",
    "Particles",
    "ProbabilityFlow",
    "Restart",
    "RestartInterval",
    "ReverseDiffusion",
    "SASolver",
    "Sampler",
    "ScaledLangevin",
    "Scipy",
    "SplitGibbs",
    "State",
    "TauMultistep",
    "TorchSDE",
    "TwoStage",
    "UniPC",
    "correct",
]

r"""Make scores from networks, denoisers, energies and other scores."""

from scoresde.score.centred import Centred
from scoresde.score.energy import EnergyScore, gradient
from scoresde.score.foreign import DenoiserScore, from_denoiser
from scoresde.score.inside import device_of, evaluating, learning, lost_facts, modules
from scoresde.score.latent import Latent, codes
from scoresde.score.model import ScoreModel
from scoresde.score.network import NetworkScore, from_network
from scoresde.score.packaged import load
from scoresde.score.pilot import Fit, Pilot, Setting
from scoresde.score.predictions import PREDICTIONS, Affine
from scoresde.score.rescheduled import Rescheduled
from scoresde.score.times import TIMES
from scoresde.score.unpaired import Unpaired
from scoresde.score.wrapped import Wrapped

__all__ = [
    "PREDICTIONS",
    "TIMES",
    "Affine",
    "Centred",
    "DenoiserScore",
    "EnergyScore",
    "Fit",
    "Latent",
    "NetworkScore",
    "Pilot",
    "Rescheduled",
    "ScoreModel",
    "Setting",
    "Unpaired",
    "Wrapped",
    "codes",
    "device_of",
    "evaluating",
    "from_denoiser",
    "from_network",
    "gradient",
    "learning",
    "load",
    "lost_facts",
    "modules",
]

r"""Turn models of other libraries into scores, and scores into models of other libraries.

A function `from_...` returns a score with all features of a score: sampling, audits, guidance,
likelihoods, and another SDE by `Rescheduled`. The network receives the inputs for which it was
trained, without further centring or scaling. A library is imported only if one of its classes is
needed.

Examples:
    >>> import torch, scoresde
    >>> v = lambda x, t: x / (t[:, None] + 1)  # a velocity of flow matching: noise at 0, data at 1
    >>> score = scoresde.interop.from_velocity(v, event_shape=(2,))
    >>> scoresde.sample(score, sampler="heun", n=4, steps=5, seed=0).shape
    torch.Size([4, 2])
"""

from scoresde.interop.autoencoders import with_vae
from scoresde.interop.azula import from_azula, to_azula
from scoresde.interop.denoisers import (
    SigmaDenoiser,
    from_deepinv,
    from_edm,
    from_k_diffusion,
    to_denoiser,
)
from scoresde.interop.diffusers import EpsilonModel, from_diffusers, to_diffusers
from scoresde.interop.ncsnv2 import load_ncsnv2
from scoresde.interop.onnx_file import to_onnx
from scoresde.interop.pipelines import load_diffusers
from scoresde.interop.sbi import from_sbi
from scoresde.interop.score_sde import load_score_sde
from scoresde.interop.velocity import from_velocity
from scoresde.score.scheduled import Scheduled

__all__ = [
    "EpsilonModel",
    "Scheduled",
    "SigmaDenoiser",
    "from_azula",
    "from_deepinv",
    "from_diffusers",
    "from_edm",
    "from_k_diffusion",
    "from_sbi",
    "from_velocity",
    "load_diffusers",
    "load_ncsnv2",
    "load_score_sde",
    "to_azula",
    "to_denoiser",
    "to_diffusers",
    "to_onnx",
    "with_vae",
]

r"""Turn models of other libraries into scores, and scores into models for them.

What `from_...` returns is a score like any other: it is sampled, audited, guided, put under another
SDE by `Rescheduled`, and its likelihoods are computed. The network receives its own numbers,
neither centred nor scaled. No library is imported unless a class of it is needed.

Examples:
    >>> import torch, scoresde
    >>> v = lambda x, t: x / (t[:, None] + 1)  # of flow matching: noise at 0, data at 1
    >>> score = scoresde.interop.from_velocity(v, event_shape=(2,))
    >>> scoresde.sample(score, sampler="heun", n=4, steps=5, seed=0).shape
    torch.Size([4, 2])
"""

from scoresde.interop.azula import from_azula, to_azula
from scoresde.interop.denoisers import (
    SigmaDenoiser,
    from_deepinv,
    from_edm,
    from_k_diffusion,
    to_denoiser,
)
from scoresde.interop.diffusers import (
    EpsilonModel,
    from_diffusers,
    load_diffusers,
    to_diffusers,
)
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
    "load_score_sde",
    "to_azula",
    "to_denoiser",
    "to_diffusers",
]

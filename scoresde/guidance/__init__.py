r"""Guide a score towards a condition: each function here maps a score to a new score.

The new score can be used wherever a score can: with every sampler, SDE and shape. In general it is
not the score $\nabla \log p_t$ of any diffused data distribution, and the samples do not follow a
tempered posterior. So `log_prob` of a guided score raises an error.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from scoresde.guidance.auto import autoguidance
from scoresde.guidance.classified import classifier
from scoresde.guidance.composed import compose
from scoresde.guidance.free import classifier_free
from scoresde.guidance.linear import Linear
from scoresde.guidance.measured import posterior
from scoresde.guidance.operators import Blur, Downsample, Fourier, Grey, Mask, Projection
from scoresde.score import Wrapped

GUIDANCE: Mapping[str, Callable[..., Wrapped]] = MappingProxyType(
    {
        "classifier_free": classifier_free,
        "autoguidance": autoguidance,
        "classifier": classifier,
        "compose": compose,
        "posterior": posterior,
    }
)
"""The guidance functions by name."""

__all__ = [
    "GUIDANCE",
    "Blur",
    "Downsample",
    "Fourier",
    "Grey",
    "Linear",
    "Mask",
    "Projection",
    "autoguidance",
    "classifier",
    "classifier_free",
    "compose",
    "posterior",
]

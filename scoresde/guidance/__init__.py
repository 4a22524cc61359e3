r"""Guide a score towards a condition: each function takes a score and returns a score.

The result can be used wherever a score can: with every sampler, SDE and shape. In general no law of
data, diffused by the SDE, has this score, and the samples do not have the law of a tempered
posterior. So `log_prob` of a guided score raises an error.
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
"""Guidance by name: functions of a score, and of what guides it, that return a score."""

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

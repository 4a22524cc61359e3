r"""Guidance: a score made of a score that is drawn towards a condition.

Each is called with a score and stands wherever a score can: under every sampler, SDE and shape. A
guided law is in general no tempered posterior, and no density's flow, so that `log_prob` of a
guided score is refused.
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

r"""Compute the losses of score matching, and weight them in time.

Each loss estimates the Fisher divergence $\mathbb E\,\lambda(t)\,\|s_\theta - \nabla\log p_t\|^2$
up to a constant. All have the same scale: no factor ½, and the sum over the event. `dsm_loss`
compares the score with the noise that was added; `ism_loss`, `ssm_loss` and `fd_ssm_loss` use the
divergence of the score, and also work without noise.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from scoresde.objectives.denoising import dsm_floor, dsm_loss
from scoresde.objectives.description import described
from scoresde.objectives.implicit import fd_ssm_loss, ism_loss, ssm_loss
from scoresde.objectives.learned import LearnedWeight
from scoresde.objectives.perturbed import Perturbed, event_sum, passing, perturb
from scoresde.objectives.weights import (
    WEIGHTS,
    Weight,
    edm,
    flow,
    g2,
    min_snr,
    power,
    sigma2,
)

LOSSES: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {"dsm": dsm_loss, "ism": ism_loss, "ssm": ssm_loss, "fd_ssm": fd_ssm_loss}
)
"""The losses by name; bind further arguments of a loss with `functools.partial`."""

__all__ = [
    "LOSSES",
    "WEIGHTS",
    "LearnedWeight",
    "Perturbed",
    "Weight",
    "described",
    "dsm_floor",
    "dsm_loss",
    "edm",
    "event_sum",
    "fd_ssm_loss",
    "flow",
    "g2",
    "ism_loss",
    "min_snr",
    "passing",
    "perturb",
    "power",
    "sigma2",
    "ssm_loss",
]

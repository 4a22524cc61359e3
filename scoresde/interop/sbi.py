r"""Make scores of the score and flow-matching estimators of sbi (https://github.com/sbi-dev/sbi).

An estimator is a network that takes parameters $\theta$ and observations. Here the parameters are
the samples, and the observation is the condition `x`. Time 0 is the data, as in this package.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from scoresde.checks import door, quoted
from scoresde.errors import InvalidTypeError
from scoresde.interop.scheduled import Scheduled
from scoresde.score import NetworkScore, from_network
from scoresde.sde import SDE, Field, FlowSDE, Moments
from scoresde.units import Standardize

__all__ = ["from_sbi"]


class SbiEstimator(nn.Module):
    """Call an estimator with the condition `x` as the observation."""

    def __init__(self, estimator: nn.Module) -> None:
        super().__init__()
        self.estimator = estimator

    def forward(self, theta: Tensor, t: Tensor, x: Tensor) -> Tensor:
        found: Tensor = self.estimator(input=theta, condition=x, time=t)
        return found


@door
def from_sbi(estimator: nn.Module, **known: Any) -> NetworkScore:
    r"""Return the score of the posterior that an estimator of sbi has learnt.

    Draw from it with `condition={"x": observation}`. If sbi standardises the parameters,
    `units=True` returns them in the user's units.

    Args:
        estimator: A `ConditionalScoreEstimator` (NPSE) or a `FlowMatchingEstimator` (FMPE).
        known: Further arguments of `from_network`, which override the estimator's attributes.

    Raises:
        InvalidTypeError: `estimator` is none of these.
    """
    if not all(hasattr(estimator, name) for name in ("mean_t_fn", "std_fn", "input_shape")):
        raise InvalidTypeError(
            f"{quoted(type(estimator).__name__)} is no estimator of NPSE or FMPE, since it has no "
            "mean_t_fn and std_fn; take posterior.vector_field_estimator"
        )
    given: Any = estimator
    found: dict[str, Any] = {
        "event_shape": tuple(given.input_shape),
        "conditions": {"x": Field(tuple(given.condition_shape))},
        "moments": _moments(estimator),
    }
    if getattr(estimator, "compose_enabled", False):
        shift, scale = (
            tuple(getattr(estimator, name).flatten().tolist())
            for name in ("_theta_shift", "_theta_scale")
        )
        found["transform"] = Standardize(shift, scale)
    flow = hasattr(estimator, "noise_scale")  # its output is the velocity theta_1 - theta_0
    sde: SDE = FlowSDE() if flow else _process(estimator)
    predicts = "flow" if flow else "score"
    return from_network(SbiEstimator(estimator), sde, predicts, "t", **(found | known))


def _moments(estimator: Any) -> Moments | None:
    """Return the mean and variance by which an estimator standardises, or None if it does not."""
    shape = tuple(estimator.input_shape)
    mean, std = (
        part.detach().cpu().double().broadcast_to(shape).clone()
        for part in (estimator.mean_0, estimator.std_0)
    )
    standardised = getattr(estimator, "compose_enabled", False)
    if not standardised and (mean == 0).all() and (std == 1).all():
        return None
    return Moments(mean, var=std**2)


def _process(estimator: Any) -> Scheduled:
    """Return the process of a score estimator, from the mean and std of its kernel."""

    def schedule(t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = estimator.mean_t_fn(t), estimator.std_fn(t)
        return alpha.reshape(t.shape), sigma.reshape(t.shape)

    return Scheduled(schedule, eps=float(estimator.t_min), T=float(estimator.t_max))

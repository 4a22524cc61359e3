r"""Convert score and flow-matching estimators of sbi to scores (https://github.com/sbi-dev/sbi).

An estimator is a network that takes parameters $\theta$ and observations. Here the parameters are
the samples, and the observation is the condition `x`. At time 0 the state is the data, as in this
package.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from scoresde.checks import door, quoted
from scoresde.errors import InvalidTypeError
from scoresde.score import NetworkScore, from_network
from scoresde.score.conventions import SbiEstimator
from scoresde.sde import Field, Moments
from scoresde.units import Standardize

__all__ = ["from_sbi"]


@door
def from_sbi(estimator: nn.Module, **known: Any) -> NetworkScore:
    r"""Return the score of the posterior that an estimator of sbi has learnt.

    Sample from it with `condition={"x": observation}`. If sbi standardises the parameters,
    `units=True` returns them in the user's units.

    Args:
        estimator: A `ConditionalScoreEstimator` (NPSE) or a `FlowMatchingEstimator` (FMPE).
        known: Further arguments of `from_network`, which override the estimator's attributes.

    Raises:
        InvalidTypeError: `estimator` is of another class.
    """
    if not all(hasattr(estimator, name) for name in ("mean_t_fn", "std_fn", "input_shape")):
        raise InvalidTypeError(
            f"{quoted(type(estimator).__name__)} is not an estimator of NPSE or FMPE, since it has "
            "no mean_t_fn and std_fn; take posterior.vector_field_estimator"
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
    net = SbiEstimator(estimator)
    return from_network(net, net.process(), net.predicts, "t", **(found | known))


def _moments(estimator: Any) -> Moments | None:
    """Return the mean and variance with which an estimator standardises, or None."""
    shape = tuple(estimator.input_shape)
    mean, std = (
        part.detach().cpu().double().broadcast_to(shape).clone()
        for part in (estimator.mean_0, estimator.std_0)
    )
    standardised = getattr(estimator, "compose_enabled", False)
    if not standardised and (mean == 0).all() and (std == 1).all():
        return None
    return Moments(mean, var=std**2)

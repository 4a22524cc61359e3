"""Estimate covariances from draws of the probability flow; make precisions positive definite."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from scoresde.errors import InvalidValueError, ShapeError
from scoresde.noise import Noise
from scoresde.precision import full_precision
from scoresde.score import device_of, evaluating
from scoresde.sde import Condition, Moments, Score, expand, facts, process_of

__all__ = ["deficit", "gaussian_of", "precision_of", "square"]

_DRAWS, _STEPS = 512, 32
_LARGEST = _DRAWS // 2  # the largest number of dimensions for which 512 draws give a covariance


def gaussian_of(score: Score, condition: Condition | None = None) -> Moments:
    r"""Return the moments of 512 draws of $x_\epsilon / \alpha_\epsilon$, made by Heun's method.

    The independent variable of the method is $\sigma/\alpha$.

    Args:
        score: A score whose facts have an SDE and an event shape.
        condition: The conditions of the draws, one row.

    Raises:
        InvalidValueError: The event shape is unknown, or too large for a covariance.
    """
    known, sde = facts(score), process_of(score, None)
    if known.event_shape is None or math.prod(known.event_shape) > _LARGEST:
        raise InvalidValueError(
            "covariances can be estimated from draws only if the score's facts have an event "
            f"shape with at most {_LARGEST} dimensions; give the moments as covariance="
        )
    like = torch.empty(_DRAWS, *known.event_shape, device=device_of(score))
    rows = None if condition is None else condition.rows([0] * _DRAWS)
    if rows is not None:
        rows = Condition({name: value.to(like.device) for name, value in rows.items()})
    noise = Noise.of(0, _DRAWS).normal(like, math.inf)
    rsde = sde.reverse(score, moments=known.moments, condition=rows)
    times = sde.times(None if sde.levels else _STEPS)
    with torch.no_grad(), full_precision(), evaluating(score):
        y = sde.prior(known.moments).sample(noise).double() / float(sde.alpha(times[0]))
        for t, s in itertools.pairwise(times):
            slopes: list[Tensor] = []
            gap = float(sde.sigma(s) / sde.alpha(s) - sde.sigma(t) / sde.alpha(t))
            for at in (t, s):
                x = expand(sde.alpha(at), y) * (y + gap * sum(slopes))
                slopes.append(-expand(sde.sigma(at), y) * rsde.score(x.to(like), at).double())
            y = y + gap * sum(slopes) / 2
    mean = y.mean(0)
    flat = (y - mean).reshape(_DRAWS, -1).cpu()
    return Moments(mean, cov=flat.T @ flat / (_DRAWS - 1))


def square(moments: Moments, event: tuple[int, ...] | None) -> Tensor:
    """Return the covariance `(D, D)` over the flattened event, in float64.

    Raises:
        ShapeError: The moments belong to events of another shape, or are numbers and the shape is
            unknown.
    """
    if moments.cov is not None:
        event = (len(moments.cov),) if event is None else event
    else:
        mean, var = (torch.as_tensor(v).double() for v in (moments.mean, moments.var))
        event = tuple(var.shape) or tuple(mean.shape) if event is None else event
        if not event:
            raise ShapeError(
                "the variance is one number, and the shape of the events is unknown; give a "
                "variance of the event's shape"
            )
    moments.check_event(torch.empty(1, *event))
    if moments.cov is not None:
        return moments.cov.double().cpu()
    return torch.diag(var.cpu().expand(event).flatten())


def precision_of(cov: Tensor) -> Tensor:
    """Return the inverse of a covariance `(D, D)`.

    Raises:
        InvalidValueError: The covariance is singular.
    """
    root, info = torch.linalg.cholesky_ex(cov)
    if bool(info.any()):
        raise InvalidValueError(
            "the covariance of the prior or of a posterior is singular, since the data are "
            "constant in some direction; leave constant dimensions out, or add a small number to "
            "the diagonal"
        )
    return torch.cholesky_inverse(root)


@torch.no_grad()
def deficit(precision: Tensor) -> Tensor:
    """Return the smallest matrix by which all eigenvalues of a precision become at least .1.

    Args:
        precision: A symmetric precision, in coordinates in which the prior's precision is the
            identity.
    """
    values, axes = torch.linalg.eigh(precision)
    lack: Tensor = axes @ ((0.1 - values).clamp(min=0)[..., None] * axes.mT)
    return lack

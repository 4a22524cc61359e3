r"""Compute the denoising score matching loss, and its smallest value for Gaussian data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_noise, door
from scoresde.noise import Noise
from scoresde.objectives.perturbed import event_sum, perturb, weight_at
from scoresde.objectives.weights import Weight, sigma2
from scoresde.sde import SDE, Moments, Score, TimeLaw

__all__ = ["dsm_floor", "dsm_loss"]


@door
def dsm_loss(
    score: Score,
    sde: SDE | None,
    x: Tensor,
    *,
    t: Tensor | float | None = None,
    noise: Noise | None = None,
    condition: Mapping[str, Any] | None = None,
    weight: Weight = sigma2,
    law: TimeLaw | None = None,
    control_variate: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return the denoising score matching loss of each sample.

    $$ \lambda(t)\,\big\| s_\theta(x_t, t) + z / \sigma_t \big\|^2, \qquad
       x_t = \alpha_t x_0 + \sigma_t z $$

    Vincent (2011), *A connection between score matching and denoising autoencoders*; in continuous
    time Song et al. (2021), eq. 7, arXiv:2011.13456. On an SDE with levels, times are drawn from
    the levels. The minimum of the loss is not 0: see `dsm_floor`.

    If $\sigma$ is small compared with the data, the gradient is mostly noise from $z / \sigma$.
    Subtracting a control variate, a term of mean 0, gives the second form,

    $$ \lambda(t)\,\Big(\|s_\theta(x_t)\|^2 +
       \tfrac{2}{\sigma_t} z^T \big(s_\theta(x_t) - s_\theta(\alpha_t x_0)\big)
       + \tfrac{D}{\sigma_t^2}\Big), $$

    for an event of D dimensions. The variance of its gradient stays bounded as $\sigma \to 0$, but
    it needs a second evaluation of the score, and a single value may be negative (Wang et al. 2020,
    arXiv:2002.07501).

    Args:
        score: A score `(x, t) -> (B, *)`; with a `condition`, `(x, t, condition)`.
        sde: The process; None takes the process in the score's facts.
        x: Clean data `(B, *)`, floating-point.
        t: Times `()` or `(B,)` in `[0, T]` with $\sigma_t > 0$; `None` draws them.
        noise: The source of times and noise, with one entry for each sample.
        condition: The condition, passed to the score.
        weight: $\lambda$, a function of `(sde, t)`.
        law: The distribution of the times; `None` takes the SDE's default.
        control_variate: Use the second form, which has the same mean and takes two evaluations.
        generator: A generator from which a seed is drawn in place of `noise=`; by default torch's
            global generator.

    Returns:
        The loss `(B,)`, summed over the event and with the importance weights of the times.

    Raises:
        InvalidTypeError: `x` is not floating-point, or the score returns no tensor.
        ShapeError: The score or the noise has another shape than `x`, or `t` is neither `()` nor
            `(B,)`.
        NonFiniteError: `x`, the weight, the score or the loss has a NaN or an infinity. On other
            devices than the CPU only the weight is checked, since a check would stall every step.
        InvalidValueError: $\sigma_t = 0$, a time is outside [0, T], the weight is negative, the
            score belongs to another SDE, or both of `t` and `law`, or of `noise` and `generator`,
            are given.

    Examples:
        >>> from scoresde import VPSDE, Noise
        >>> dsm_loss(lambda x, t: -x, VPSDE(), torch.zeros(8, 2), noise=Noise.of(0, 8)).shape
        torch.Size([8])
    """
    p = perturb(
        score, sde, x, t=t, law=law, noise=noise, condition=condition, weight=weight,
        generator=generator, further=lambda sigma, scale: (sigma, scale / sigma**2),
    )  # fmt: skip
    _check_noise(p.sde, p.time, p.sigma)
    # sigma s + z is of order 1 at all times, unlike s + z / sigma
    sigma, scale = p.further
    scaled = sigma * p.score(p.x)
    if not control_variate:
        return p.weighted(event_sum((scaled + p.z) ** 2), scale)
    change = scaled - sigma * p.score(p.clean)
    return p.weighted(event_sum(scaled**2 + 2 * p.z * change) + x.shape[1:].numel(), scale)


@door
def dsm_floor(sde: SDE, t: Tensor | float, moments: Moments, *, weight: Weight = sigma2) -> Tensor:
    r"""Return the smallest possible expected `dsm_loss` at time t, for Gaussian data.

    $$ \frac{\lambda(t)}{\sigma_t^2} \sum_j \frac{\alpha_t^2 v_j}{\alpha_t^2 v_j + \sigma_t^2}. $$

    Here $v_j$ are the variances of the data along the principal axes, and the sum is the variance
    of the noise given $x_t$. For other data with the same covariance the smallest possible loss is
    at most as large.

    Args:
        sde: The process.
        t: Times of any shape.
        moments: Moments with a mean or variance of the event's shape, or with a covariance.
        weight: $\lambda$.

    Returns:
        The floor, of the shape of `t`, in float64.

    Raises:
        InvalidValueError: $\sigma_t = 0$, a time is outside [0, T], or the weight is negative.
        ShapeError: The weight is not one number for each time.
        NonFiniteError: The weight is NaN or infinite.

    Examples:
        >>> from scoresde import EDMSDE
        >>> float(dsm_floor(EDMSDE(), 1.0, Moments(0.0, var=torch.ones(2))))
        1.0
    """
    time = sde.as_time(t)
    _check_noise(sde, time, sde.sigma(time))
    if moments.cov is not None:
        var = torch.linalg.eigvalsh(moments.cov.double()).clamp(min=0)
    else:
        var = torch.as_tensor(moments.var, dtype=torch.float64)
        if not var.ndim:  # `var` is one number for all entries of the event
            var = var.expand(torch.as_tensor(moments.mean).shape)
        var = var.flatten()
    noise = sde.sigma(time) ** 2
    signal = sde.alpha(time)[..., None] ** 2 * var
    floor: Tensor = (signal / (signal + noise[..., None])).sum(-1)
    return weight_at(weight, sde, time) / noise * floor


def _check_noise(sde: SDE, t: Tensor, sigma: Tensor) -> None:
    other = "ism_loss, ssm_loss or fd_ssm_loss"
    check_noise(sigma, t, f"choose times at or above eps = {sde.eps}, or use {other}")

r"""Objectives that teach a score: denoising score matching, its weights and its times.

All are on one scale: no ½, summed over the event, so that the mean estimates
$\mathbb E\,\lambda(t)\,\|s_\theta - \nabla\log p_t\|^2$ up to a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.score import check_sde
from scoresde.sde import SDE, Moments, as_score, expand

__all__ = ["WEIGHTS", "Weight", "dsm_floor", "dsm_loss", "edm", "g2", "sigma2"]

Weight = Callable[[SDE, Tensor], Tensor]
r"""A weight $\lambda(t)$ of the objective, from `(sde, t)`."""


def sigma2(sde: SDE, t: Tensor) -> Tensor:
    r"""$\lambda = \sigma_t^2$: all levels count the same (Song & Ermon 2019, arXiv:1907.05600)."""
    return sde.sigma(t) ** 2


def g2(sde: SDE, t: Tensor) -> Tensor:
    r"""$\lambda = g(t)^2$: the likelihood weight (Song et al. 2021, arXiv:2101.09258)."""
    return sde.coefficients(t)[1]


def edm(data_var: float = 1.0) -> Weight:
    r"""EDM's weight, under which the target of its preconditioned network has unit variance.

    $\lambda = \sigma^2 (1 + \tilde\sigma^2 / v)$ with $\tilde\sigma = \sigma/\alpha$ and $v$ the
    data's variance; on the denoiser's error it reads $(\tilde\sigma^2 + v) / (\tilde\sigma^2 v)$
    (Karras et al. 2022, table 1, arXiv:2206.00364).

    Args:
        data_var: $v$, positive.
    """
    if not data_var > 0:
        raise InvalidValueError(f"data_var must be positive, got {data_var}")

    def weight(sde: SDE, t: Tensor) -> Tensor:
        var = sde.sigma(t) ** 2
        return var * (1 + var / sde.alpha(t) ** 2 / data_var)

    return weight


WEIGHTS: Mapping[str, Weight] = MappingProxyType({"sigma2": sigma2, "g2": g2, "edm": edm()})
"""Weights by name; `edm` for data of unit variance."""


def dsm_loss(
    model: Callable[..., Tensor],
    sde: SDE,
    x: Tensor,
    *,
    t: Tensor | float | None = None,
    condition: Mapping[str, Tensor] | None = None,
    weight: Weight = sigma2,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Denoising score matching, one value for each sample.

    $$ \lambda(t)\,\big\| s_\theta(x_t, t) + z / \sigma_t \big\|^2, \qquad
       x_t = \alpha_t x_0 + \sigma_t z $$

    Vincent (2011), *A connection between score matching and denoising autoencoders*; in continuous
    time Song et al. (2021), eq. 7, arXiv:2011.13456. On an SDE with levels it is the ladder's
    discrete objective. Its minimum is not 0: see `dsm_floor`.

    Args:
        model: A score `(x, t) -> (B, *)`; with a `condition`, `(x, t, condition)`.
        sde: The process.
        x: Clean data `(B, *)`, floating point.
        t: Times `()` or `(B,)` in `[0, T]` with noise; `None` draws them by the SDE's own law,
            whose importance weights are then part of the result.
        condition: Handed to the model.
        weight: $\lambda$, a function of `(sde, t)`.
        generator: Source of times and noise; on the CPU, or on the device of `x` if `t` is given.

    Returns:
        The loss `(B,)`, summed over the event.

    Raises:
        InvalidTypeError: `x` is not of floating point, or the score is no tensor.
        ShapeError: The score has another shape than `x`, or `t` is neither `()` nor `(B,)`.
        NonFiniteError: `x` holds a NaN or an infinity.
        InvalidValueError: There is no noise at `t`, or the model belongs to another SDE.
    """
    if not callable(weight):
        raise InvalidTypeError(
            f"weight is a function (sde, t) -> Tensor such as sigma2, got {weight!r}; "
            "those with a name are in scoresde.objectives.WEIGHTS"
        )
    if not x.is_floating_point():
        raise InvalidTypeError(
            f"data must be floating point, got {x.dtype}; for 8-bit images: x.float() / 127.5 - 1"
        )
    if not x.isfinite().all():
        raise NonFiniteError("the data x holds NaN or infinity; remove or repair those samples")
    check_sde(model, sde)
    if t is None:
        time, importance = sde.sample_times(len(x), generator=generator)
    else:
        time = sde._times(t)
        importance = torch.ones_like(time)
    sigma = sde.sigma(time)
    if not (sigma > 0).all():
        raise InvalidValueError(
            f"denoising needs noise, but sigma is 0 at t = {time}; stay at or above eps = {sde.eps}"
        )
    device = x.device if generator is None else generator.device
    z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
    xt = sde.perturb(x, time, z)
    at = time.to(x.device, torch.promote_types(x.dtype, torch.float32)).expand(len(x))
    score = as_score(model(xt, at) if condition is None else model(xt, at, condition), x)
    # sigma s + z is of order one at every noise level, so nothing large is subtracted
    residual = expand(sigma, x) * score + z
    lam = weight(sde, time)
    if lam.shape != time.shape:
        raise ShapeError(
            f"a weight has the shape of its times, {tuple(time.shape)}, got {tuple(lam.shape)}"
        )
    scale = importance * lam / sigma**2
    return scale.to(x) * residual.reshape(len(x), x.shape[1:].numel()).pow(2).sum(1)


def dsm_floor(sde: SDE, t: Tensor, data: Moments, *, weight: Weight = sigma2) -> Tensor:
    r"""The least value that `dsm_loss` can have at time t, for Gaussian data of a known variance.

    $$ \frac{\lambda(t)}{\sigma_t^2} \sum_j \frac{\alpha_t^2 v_j}{\alpha_t^2 v_j + \sigma_t^2} $$

    over the data's principal variances $v_j$: the variance of the noise given $x_t$. For other data
    of this covariance the true floor lies at or below it.

    Args:
        sde: The process.
        t: Times of any shape.
        data: Moments whose variance is a tensor of the event's shape, or a covariance.
        weight: $\lambda$.

    Returns:
        The floor, of the shape of `t`, in float64.
    """
    time = sde._times(t)
    if data.cov is not None:
        var = torch.linalg.eigvalsh(data.cov.double()).clamp(min=0)
    else:
        var = torch.as_tensor(data.var, dtype=torch.float64).flatten()
    noise = sde.sigma(time) ** 2
    signal = sde.alpha(time)[..., None] ** 2 * var
    floor: Tensor = (signal / (signal + noise[..., None])).sum(-1)
    return weight(sde, time) / noise * floor

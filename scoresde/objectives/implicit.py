r"""Compute score matching losses that use the divergence of the score in place of the noise.

Integration by parts turns the unknown $\nabla\log p_t$ of the Fisher divergence into a derivative
of the learned score (Hyvärinen 2005, *Estimation of non-normalized statistical models by score
matching*),

$$ \mathbb E\|s_\theta - \nabla\log p_t\|^2 = \mathbb E\big[2\,\mathrm{tr}\,\nabla s_\theta +
   \|s_\theta\|^2\big] + \text{const}, $$

if $p_t s_\theta$ vanishes at infinity. There are three ways to get the trace: exactly; as
$v^T \nabla s_\theta\,v$ with a random vector $v$, where $\mathbb E\,v v^T = I$; or with this
product approximated by a finite difference of two scores.

These losses also work without noise. At $t = 0$ of a VP, EDM or flow SDE they match the score of
the data distribution. The default weight $\sigma_t^2$ is 0 there; use `power(0)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from scoresde.attention import twice_differentiable
from scoresde.checks import check_range, door, quoted
from scoresde.errors import InvalidValueError
from scoresde.noise import Noise
from scoresde.objectives.perturbed import Perturbed, check_data, event_sum, perturb
from scoresde.objectives.weights import Weight, sigma2
from scoresde.sde import SDE, Score, TimeLaw, expand

__all__ = ["Projection", "fd_ssm_loss", "ism_loss", "ssm_loss"]

Projection = Literal["rademacher", "gaussian", "sphere"]
r"""The names of the distributions of $v$, each with $\mathbb E\,v v^T = I$.

Random signs ("rademacher") give the smallest variance.
"""


@door
def ism_loss(
    score: Score,
    sde: SDE | None,
    x: Tensor,
    *,
    t: Tensor | float | None = None,
    noise: Noise | None = None,
    condition: Mapping[str, Any] | None = None,
    weight: Weight = sigma2,
    law: TimeLaw | None = None,
    exact: int = 16,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return the implicit score matching loss of each sample.

    $$ \lambda(t)\,\big(2\,\mathrm{tr}\,\nabla s_\theta(x_t, t) + \|s_\theta(x_t, t)\|^2\big) $$

    Hyvärinen (2005). The exact trace costs one derivative per dimension; above `exact` dimensions
    it is estimated with one vector of random signs (Hutchinson 1990), as by `ssm_loss`.

    Args:
        score: A score `(x, t) -> (B, *)`, differentiable in `x`; with a `condition`,
            `(x, t, condition)`.
        sde: The process; None takes the process in the score's facts.
        x: Clean data `(B, *)`, floating-point.
        t: Times `()` or `(B,)` in `[0, T]`, where $\sigma_t$ may be 0; `None` draws them.
        law: The distribution of the times; `None` takes the SDE's default.
        condition: The condition, passed to the score.
        weight: $\lambda$, a function of `(sde, t)`, positive where $\sigma_t = 0$.
        exact: The largest number of dimensions for which the trace is exact.
        noise: The source of times, noise and signs, with one entry for each sample.
        generator: A generator from which a seed is drawn in place of `noise=`.

    Returns:
        The loss `(B,)`, summed over the event; negative on average for a good score.

    Raises:
        InvalidTypeError: `x` is not floating-point, or the score returns no tensor.
        ShapeError: The score has another shape than `x`, or `t` is neither `()` nor `(B,)`.
        NonFiniteError: `x`, the weight, the score or the loss has a NaN or an infinity. On other
            devices than the CPU only the weight is checked, since a check would stall every step.
        InvalidValueError: The weight is 0 where $\sigma_t = 0$, the score is not differentiable,
            or as for `dsm_loss`.

    Examples:
        >>> from scoresde import VPSDE, Noise
        >>> ism_loss(lambda x, t: -x, VPSDE(), torch.zeros(8, 2), noise=Noise.of(0, 8)).shape
        torch.Size([8])
    """
    check_data(x)
    if x.shape[1:].numel() > exact:
        return ssm_loss(
            score, sde, x, t=t, noise=noise, condition=condition, weight=weight, law=law,
            generator=generator,
        )  # fmt: skip
    p = perturb(
        score, sde, x, t=t, law=law, noise=noise, condition=condition, weight=weight,
        generator=generator,
    )  # fmt: skip
    _check_weighted(p)
    value, trace = _differentiate(p, _trace)
    return p.weighted(2 * trace + event_sum(value**2), *p.further)


@door
def ssm_loss(
    score: Score,
    sde: SDE | None,
    x: Tensor,
    *,
    t: Tensor | float | None = None,
    noise: Noise | None = None,
    condition: Mapping[str, Any] | None = None,
    weight: Weight = sigma2,
    law: TimeLaw | None = None,
    projection: Projection = "rademacher",
    variance_reduced: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return the sliced score matching loss of each sample, with a random direction for each.

    $$ \lambda(t)\,\big(2\,v^T \nabla s_\theta(x_t, t)\,v + \|s_\theta(x_t, t)\|^2\big). $$

    This is the variance-reduced form. The other form has $(v^T s_\theta)^2$ as its last term, with
    the same mean (Song et al. 2019, eqs. 7 and 8, arXiv:1905.07088). Both need one derivative,
    whatever the dimension.

    Args:
        score: A score, as in `ism_loss`.
        sde: The process; None takes the process in the score's facts.
        x: Clean data `(B, *)`.
        t: Times, as in `ism_loss`.
        law: The distribution of the times, as in `ism_loss`.
        condition: The condition, passed to the score.
        weight: $\lambda$.
        projection: The distribution of v: random signs, normal numbers, or points on the sphere of
            radius $\sqrt D$ in D dimensions.
        variance_reduced: Use the variance-reduced form.
        noise: The source of times, noise and directions.
        generator: A generator from which a seed is drawn in place of `noise=`.

    Returns:
        The loss `(B,)`, as of `ism_loss`.

    Raises:
        UnknownNameError: The projection is unknown.
        ScoreSDEError: As `ism_loss` does.

    Examples:
        >>> from scoresde import VPSDE, Noise
        >>> ssm_loss(lambda x, t: -x, VPSDE(), torch.zeros(8, 2), noise=Noise.of(0, 8)).shape
        torch.Size([8])
    """
    p = perturb(
        score, sde, x, t=t, law=law, noise=noise, condition=condition, weight=weight,
        generator=generator,
    )  # fmt: skip
    _check_weighted(p)
    v = _direction(x, projection, p.noise)

    def slope(value: Tensor, state: Tensor) -> Tensor:
        return event_sum(v * _vjp(value, state, v))

    value, trace = _differentiate(p, slope)
    norm = event_sum(value**2) if variance_reduced else event_sum(v * value) ** 2
    return p.weighted(2 * trace + norm, *p.further)


@door
def fd_ssm_loss(
    score: Score,
    sde: SDE | None,
    x: Tensor,
    *,
    t: Tensor | float | None = None,
    noise: Noise | None = None,
    condition: Mapping[str, Any] | None = None,
    weight: Weight = sigma2,
    law: TimeLaw | None = None,
    projection: Projection = "rademacher",
    step: float = 0.05,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Return the sliced score matching loss of each sample, by finite differences.

    $$ \lambda(t)\,\Big(\frac{v^T (s_+ - s_-)}{h} + \Big\|\frac{s_+ + s_-}{2}\Big\|^2\Big),
       \qquad s_\pm = s_\theta(x_t \pm h v, t). $$

    This equals the variance-reduced `ssm_loss` up to $O(h^2)$. It needs no derivative in x, only
    two evaluations and an ordinary backward pass (Pang et al. 2020, arXiv:2007.03317).

    Args:
        score: A score, as in `ism_loss`; it need not be differentiable in `x`.
        sde: The process; None takes the process in the score's facts.
        x: Clean data `(B, *)`.
        t: Times, as in `ism_loss`.
        law: The distribution of the times, as in `ism_loss`.
        condition: The condition, passed to the score.
        weight: $\lambda$.
        projection: The distribution of v, as in `ssm_loss`.
        step: $h / \sigma_t$, positive; h itself if $\sigma_t = 0$. In single precision the
            difference loses digits if `step` is below about 1e-3, or if h is below about 1e-5 times
            the state; so standardise data that are large or far from 0.
        noise: The source of times, noise and directions.
        generator: A generator from which a seed is drawn in place of `noise=`.

    Returns:
        The loss `(B,)`, as of `ism_loss`.

    Raises:
        UnknownNameError: The projection is unknown.
        InvalidValueError: The step is not positive.
        ScoreSDEError: As `ism_loss` does.

    Examples:
        >>> from scoresde import VPSDE, Noise
        >>> fd_ssm_loss(lambda x, t: -x, VPSDE(), torch.zeros(8, 2), noise=Noise.of(0, 8)).shape
        torch.Size([8])
    """
    check_range("step", step, "(0, inf)")

    def further(sigma: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return step * torch.where(sigma > 0, sigma, 1.0), scale

    p = perturb(
        score, sde, x, t=t, law=law, noise=noise, condition=condition, weight=weight,
        generator=generator, further=further,
    )  # fmt: skip
    _check_weighted(p)
    h, scale = p.further
    v = _direction(x, projection, p.noise)
    # clone the first output, since a network may reuse its memory for the second
    plus, minus = p.score(p.x + h * v).clone(), p.score(p.x - h * v)
    slope = event_sum(v * (plus - minus) / h)
    return p.weighted(slope + event_sum(((plus + minus) / 2) ** 2), scale)


def _check_weighted(p: Perturbed) -> None:
    """Raise InvalidValueError if a weight is 0 because there is no noise."""
    if ((p.sigma == 0) & (p.scale == 0)).any():
        raise InvalidValueError(
            f"at t = {quoted(p.time)} there is no noise, so the weight is 0 and nothing would be "
            "learned; pass weight=power(0)"
        )


def _differentiate(
    p: Perturbed, derivative: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the score at the states, and `derivative(score, states)` `(B,)`, under no_grad too."""
    recording = torch.is_grad_enabled()
    with torch.enable_grad(), twice_differentiable(recording):
        state = p.x.detach().requires_grad_()
        score = p.score(state)
        if not len(state):
            return score, state.detach().new_zeros(0)
        if not score.requires_grad:
            raise InvalidValueError(
                "the score does not depend on x in a way that can be differentiated; remove "
                "no_grad and detach inside it, or use fd_ssm_loss"
            )
        result = derivative(score, state)
    return (score, result) if recording else (score.detach(), result.detach())


def _vjp(score: Tensor, x: Tensor, v: Tensor) -> Tensor:
    r"""Return $v^T \nabla s$, `(B, *)`, which can be differentiated again."""
    (row,) = torch.autograd.grad(score, x, v, create_graph=True, materialize_grads=True)
    return row


def _trace(score: Tensor, x: Tensor) -> Tensor:
    r"""Return $\mathrm{tr}\,\nabla s$, `(B,)`, from one gradient for each entry of the score."""
    shape = len(x), x.shape[1:].numel()
    trace = x.new_zeros(len(x))
    for i, entry in enumerate(score.reshape(shape).unbind(1)):
        trace = trace + _vjp(entry, x, torch.ones_like(entry)).reshape(shape)[:, i]
    return trace


def _direction(x: Tensor, projection: Projection, noise: Noise) -> Tensor:
    r"""Return random vectors like `x` with $\mathbb E\,v v^T = I$."""
    v = noise.fork(1).normal(x, 0.0)
    if projection == "rademacher":
        return torch.where(v < 0, -1.0, 1.0).to(x)
    if projection == "sphere":
        radius = event_sum(v**2).sqrt()
        return expand((x.shape[1:].numel() ** 0.5 / radius), v) * v
    return v

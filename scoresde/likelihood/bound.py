r"""Compute the variational lower bound (ELBO) on the log-density of the reverse SDE's samples.

Unlike the log-density of the probability flow, the bound needs neither an ODE solver nor a
divergence. With $\lambda = \log(\alpha^2/\sigma^2)$ and $x_\lambda = \alpha x + \sigma\varepsilon$,

$$ \log p_0(x) \ge
   E\big[\log \mathcal N(x;\, x_\epsilon/\alpha_\epsilon, \sigma_\epsilon^2/\alpha_\epsilon^2)\big]
   - \operatorname{KL}\big(p(x_T | x) \,\|\, p_T\big)
   - \tfrac12 \int_{\lambda_T}^{\lambda_\epsilon} E\|\varepsilon - \hat\varepsilon\|^2\, d\lambda $$

with $\hat\varepsilon = -\sigma s$ (Kingma et al. 2021, eqs. 11-15, arXiv:2107.00630; Song et al.
2021, *Maximum likelihood training*, theorem 3, arXiv:2101.09258). The samples of the reverse SDE
and of the flow have the same density only for the exact score. For the exact score the bound is
below the log-density only because of its first term, which replaces the process below eps by a
Gaussian. The values of $\lambda$ are stratified: one is drawn uniformly in each of many equal
intervals, since the integrand varies little within an interval. If moments are known, a control
variate is subtracted: the integrand for Gaussian data with these moments, minus its known mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_noise, door
from scoresde.likelihood.inputs import check_density, check_input, moments_of, time
from scoresde.likelihood.result import LogProb, quantile
from scoresde.noise import Noise
from scoresde.score import evaluating
from scoresde.sde import SDE, Moments, Score, expand

__all__ = ["elbo"]


@door
def elbo(
    score: Score,
    sde: SDE | None,
    x: Tensor,
    *,
    draws: int = 64,
    seed: int = 0,
    first: int = 0,
    condition: Mapping[str, Any] | None = None,
    moments: Moments | None = None,
) -> LogProb:
    r"""Return an unbiased estimate, with an error bar, of a lower bound of the log-density.

    Args:
        score: A `ScoreModel`, or any callable `(x, t) -> score`.
        sde: The process of the score; None takes `scoresde.facts(score).sde`.
        x: The points, `(B, *)`, floating-point.
        draws: The number of evaluations for each sample, at least 1.
        seed: The seed; row i takes the noise of sample `first + i`.
        first: The sample index of the first row.
        condition: The conditions that the score takes, one row for each sample.
        moments: The data's moments, for the prior and the control variate; by default
            `facts(score).moments`.

    Returns:
        The bound as `value`. Its error is the half-width of a 95 % interval, which accounts for the
        random draws only; it is infinite if `draws` is below 8.

    Raises:
        InvalidValueError, InvalidTypeError, ShapeError: An argument has a wrong value, type or
            shape; $\sigma = 0$ at eps; or the score is guided, so that it is not the gradient of a
            log-density.
        NonFiniteError: `x`, the score or the result has a NaN or an infinity.
    """
    check_density(score)
    sde, given = check_input(score, sde, x, condition)
    check_integer("draws", draws, 1)
    check_integer("first", first, 0)
    moments = moments_of(score, moments)
    size, noise = math.prod(x.shape[1:]), Noise.of(seed, len(x), first=first)
    low, high = sde.log_snr(time(sde.T)), sde.log_snr(time(sde.eps))
    check_noise(sde.sigma(time(sde.eps)), sde.eps, "choose eps > 0, or use log_prob")
    rsde = sde.reverse(score, condition=given)
    terms = []
    with evaluating(score), torch.no_grad():
        for k in range(draws):
            # Phi(z) is uniform for standard normal z
            u = torch.special.ndtr(noise.normal(torch.empty(len(x), 1).double(), 0.0, k))[:, 0]
            t = sde.time(low + (k + u) / draws * (high - low)).clamp(sde.eps, sde.T)
            epsilon = noise.normal(x, 1.0, k)
            alpha, sigma = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
            rest = (epsilon + sigma * rsde.score(alpha * x + sigma * epsilon, t)).double()
            term = rest**2
            if moments is not None:
                term = term - _control(x.double(), epsilon.double(), t, sde, moments)
            terms.append(term.reshape(len(x), size).sum(1))
    integral = -0.5 * float(high - low) * torch.stack(terms)
    ends = _at_eps(sde, size) - _divergence_at_end(sde, x.double(), moments)
    # differences between neighbouring intervals estimate the variance within an interval
    error = torch.full_like(integral[0], math.inf)
    if draws >= 8:
        square = integral.diff(dim=0) ** 2 / 2
        # degrees of freedom (Satterthwaite 1946); a few intervals may have most of the variance
        freedom = 2 * square.sum(0) ** 2 / (square**2).sum(0).clamp(min=1e-300)
        error = quantile(freedom.clamp(1, 2 / 3 * (draws - 1))) * (square.mean(0) / draws).sqrt()
    return LogProb(
        value=integral.mean(0) + ends,
        parts={"draws": error},
        nfe=torch.full((len(x),), draws),
        dimensions=size,
    ).checked()


def _control(x: Tensor, epsilon: Tensor, t: Tensor, sde: SDE, moments: Moments) -> Tensor:
    """Return the integrand for Gaussian data minus its mean over epsilon, `(B, *)`."""
    mean, var = moments.mean, moments.var
    if moments.cov is not None:
        var = moments.cov.diagonal().reshape(x.shape[1:])
    mean, var = (torch.as_tensor(v, dtype=torch.float64).to(x) for v in (mean, var))
    alpha, sigma = expand(sde.alpha(t), x), expand(sde.sigma(t), x)
    whole = alpha**2 * var + sigma**2
    slope, offset = alpha**2 * var / whole, -alpha * sigma * (x - mean) / whole
    return (slope * epsilon + offset) ** 2 - slope**2 - offset**2


def _at_eps(sde: SDE, size: int) -> float:
    r"""Return $E\log\mathcal N(x; x_\epsilon/\alpha, \sigma^2/\alpha^2)$, minus the entropy."""
    return 0.5 * size * (float(sde.log_snr(time(sde.eps))) - math.log(2 * math.pi) - 1)


def _divergence_at_end(sde: SDE, x: Tensor, moments: Moments | None) -> Tensor:
    """Return the KL divergence of N(alpha_T x, sigma_T^2) from the prior, `(B,)`."""
    end, prior, size = time(sde.T), sde.prior(moments), math.prod(x.shape[1:])
    alpha, var = sde.alpha(end), float(sde.sigma(end) ** 2)
    if prior.cov is None:
        variances = torch.as_tensor(prior.var, dtype=torch.float64).expand(x.shape[1:])
    else:
        variances, _ = prior.principal()
    cross = prior.log_prob(expand(alpha, x) * x) - 0.5 * var * float((1 / variances).sum())
    return -0.5 * size * (math.log(2 * math.pi * var) + 1) - cross

r"""Compute the log-density of the data from the log-density at eps, by the heat equation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde.likelihood.flow import Flow
from scoresde.likelihood.result import mean
from scoresde.sde import expand

__all__ = ["heat_correction", "to_data"]

# If the norm of tau times the score's Jacobian is below this, the data are "wide": in every
# direction their standard deviation is larger than that of the noise.
_WIDE_DATA = 0.5
# The half-width is this number times the estimated error.
_SAFETY = 2
# The smallest and the largest rho that the estimate uses.
_RATIOS = (0.5, 1.9)
# For wide data the half-width is at most this number times the sum of the correction's two terms.
_MOST = 4


def heat_correction(sde_sigma: Tensor, score: Tensor, trace: Tensor) -> Tensor:
    r"""Return $\log p_0 - \log p_\epsilon$ at the same point, to first order in the noise.

    As a function of $\tau = \sigma^2/\alpha^2$ the density of $x / \alpha$ obeys the heat equation
    $\partial_\tau p = \tfrac12 \Delta p$. One step back to $\tau = 0$ gives

    $$ \log p_0 - \log p_\epsilon \approx
       -\tfrac12 \sigma_\epsilon^2 \big(\nabla\cdot s + \|s\|^2\big). $$

    Args:
        sde_sigma: $\sigma_\epsilon$, `()`.
        score: $s$ at the points, `(B, *)`.
        trace: $\nabla\cdot s$ there, `(..., B)`.

    Returns:
        The correction in nats, `(..., B)`, float64.
    """
    square = score.double().square().reshape(len(score), score[:1].numel()).sum(1)
    return -0.5 * expand(sde_sigma**2, square) * (trace.double() + square)


def to_data(flow: Flow, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, int]:
    r"""Return $\log p_0$ minus the log-density of $x_t / \alpha_t$ at data `(B, *)`, and the error.

    Let $h(\tau)$ be the derivative of $\log p$ in $\tau$. The correction $-\tau h(\tau)$ has the
    error $\int_0^\tau (h(u) - h(\tau))\, du$. It is estimated from $d_1 = |h(\tau) - h(2\tau)|$,
    $d_2 = |h(2\tau) - h(4\tau)|$ and $\rho = d_1 / d_2$, which is 1/2 if h is linear and 2 if h is
    proportional to $1 / \tau$. If the change of $h$ grows by the factor $\rho$ whenever $\tau$ is
    halved, the error is about $\tfrac32 \tau d_1\, \rho / (2 - \rho)$. The half-width is twice this
    estimate, with $d_1$ at least $d_2 / 2$ and $\rho$ limited to [1/2, 1.9]. If the two terms of h
    nearly cancel, the differences of h are too small for this estimate. So the half-width is also
    at least twice the error that Gaussian data with the same two terms would have (`_gaussian`).

    The half-width has two upper limits for wide data. A direction in which the data have the
    variance $v\tau$ contributes $1 / (1 + v)$ to the norm of $\tau\, \nabla s$. So a norm below 1/2
    means that the data are wider than the noise in every direction. For such data $\rho$ cannot be
    near 2, unless the score is inexact, like the score of a network. So for wide data v is at least
    the value that belongs to twice the norm. The half-width from the differences is then at most
    four times the sum of the two terms of the correction. Neither limit lowered the coverage of the
    half-width on 47 targets in 1 to 10 dimensions with noise from .003 to .1.

    If $\sigma_t = 0$, the correction is 0.

    Returns:
        K estimates of the correction `(K, B)`; the half-width `(B,)`; the evaluations, 4 or 0.
    """
    sde, rows = flow.sde, torch.arange(len(x))
    tau, found, squares = float(torch.exp(-sde.log_snr(t))), [], []
    if tau == 0:
        nothing = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        return nothing.expand(flow.trace.count, -1), nothing, 0
    for factor in (1, 2, 4):
        at = sde.time(sde.log_snr(t) - math.log(factor)).clamp(float(t), sde.T)
        score, trace = flow.divergence(expand(sde.alpha(at), x) * x, at, rows)
        u = float(torch.exp(-sde.log_snr(at)))
        found.append(heat_correction(sde.sigma(at), score, trace) / u)
        squares.append(heat_correction(sde.sigma(at), score, torch.zeros_like(trace[0])) / u)
    slopes = torch.stack([mean(part) for part in found])
    d1, d2 = slopes.diff(dim=0).abs()
    least_rho, most_rho = _RATIOS
    rho = (d1 / d2).nan_to_num(least_rho, posinf=most_rho).clamp(least_rho, most_rho)
    error = _SAFETY * 1.5 * tau * torch.maximum(d1, d2 / 2) * rho / (2 - rho)
    square = torch.stack(squares)
    trace = slopes - square
    alpha = sde.alpha(t)
    norm = flow.norm(expand(alpha, x) * x, t, rows) * float(sde.sigma(t)) ** 2
    most = _MOST * tau * (trace[0].abs() + square[0].abs())
    error = torch.where(norm < _WIDE_DATA, torch.minimum(error, most), error)
    least = _SAFETY * tau * _gaussian(trace, square, _WIDE_DATA / norm - 1).abs()
    return tau * found[0], torch.maximum(error, least), len(found) + 1


def _gaussian(trace: Tensor, square: Tensor, least: Tensor) -> Tensor:
    r"""Return the correction's error, divided by $\tau$, for Gaussian data with this $h$.

    If the data have the variance $v\tau$, the two terms of $h$ at $u\tau$ are $k / (v + u)$ and
    $-q / (v + u)^2$. The two differences of the first term have the ratio $(v + 4) / (2 v + 2)$,
    which determines v. Then both terms are integrated.

    Args:
        trace: The first term, minus half the divergence, `(3, B)`.
        square: The second term, minus half the squared norm of the score, `(3, B)`.
        least: The smallest v, `(B,)`; below 1e-3 it counts as 1e-3.
    """
    first, second = trace.diff(dim=0).abs()
    rho = (first / second).nan_to_num(0.5).clamp(0.5001, 2)
    v = torch.maximum((4 - 2 * rho) / (2 * rho - 1), least).clamp(1e-3, 1e9)
    k = first * (v + 1) * (v + 2)
    q = square.diff(dim=0)[0].abs() / (1 / (v + 1) ** 2 - 1 / (v + 2) ** 2)
    rest: Tensor = k * (torch.log1p(1 / v) - 1 / (v + 1)) - q / (v * (v + 1) ** 2)
    return rest

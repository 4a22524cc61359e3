r"""Test a score at one noise scale by identities that the exact score fulfils for any data.

Let $x_t = \alpha x_0 + \sigma z$. The score $s$ predicts the noise
$\hat\varepsilon = -\sigma s(x_t)$ with the error $e = z - \hat\varepsilon$, and its denoiser $D$
has the error $x_0 - D = -(\sigma / \alpha)\, e$. The exact prediction is
$\varepsilon^* = E[z | x_t]$ (Vincent 2011). Its error $e = z - \varepsilon^*$ is orthogonal to
every function of the state,

$$ E[e \cdot h(x_t)] = 0. $$

Four choices of $h$ give four tests that do not need the exact score. Let d be the number of
dimensions and $\mu$ the mean of the data.

- **Calibration**, $h = \hat\varepsilon$: $E\|e\|^2 = E[z \cdot e]$. The calibration is the ratio of
  the left side to the right side. For any score, Stein's lemma for $z$ gives
  $E[z \cdot e] = E[d + \sigma^2 \nabla\cdot s]$, the squared error that the Jacobian of the score
  predicts (Tweedie's formula of second order,
  $\operatorname{Cov}(z | x_t) = I + \sigma^2 \nabla s$). The Jacobian itself is not needed.
- **Stein's identity**, $h = x_t - \alpha\mu$: $-E[(x_t - \alpha\mu) \cdot s] = d$.
- **Slope**, $h = D - \mu$: the regression of $x_0$ on $D$ has the slope 1.
- **Bias**, $h$ constant: $E[s] = 0$.

For any score $E[e \cdot h] = E[(\varepsilon^* - \hat\varepsilon) \cdot h]$. So if adding multiples
of these $h$ to $\hat\varepsilon$ decreases the loss, the score has an error. The largest such
decrease is a lower bound of $E\|\hat\varepsilon - \varepsilon^*\|^2$, which is the Fisher
divergence times $\sigma^2$. This lower bound is called the **avoidable** loss.

The noise is drawn in pairs $z, -z$, which removes most of the variance that $x_0$ causes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "ROUNDING", "Estimate", "Findings", "deviation", "examine", "matched", "mean", "products",
]  # fmt: skip

ROUNDING = 5e-7
"""The relative rounding error of a float32 score; smaller deviations are ignored."""


@dataclass(frozen=True)
class Estimate:
    """Hold a value with its standard error.

    Attributes:
        value: The value.
        stderr: The standard error of the value.
    """

    value: float
    stderr: float

    @property
    def low(self) -> float:
        """Return the lower end of the 95 % interval."""
        return self.value - 1.96 * self.stderr

    @property
    def high(self) -> float:
        """Return the upper end of the 95 % interval."""
        return self.value + 1.96 * self.stderr


@dataclass(frozen=True)
class Findings:
    r"""Hold the results of the tests at one noise scale; all numbers are per dimension.

    Attributes:
        calibration: 1 for the exact score.
        stein: 1 for the exact score.
        slope: 1 for the exact score.
        bias: An unbiased estimate of $\|E e\|^2$, 0 for the exact score.
        avoidable: A lower bound of $E\|\hat\varepsilon - \varepsilon^*\|^2$.
        z: The deviation of each test from its exact value by name, about standard normal for the
            exact score.
    """

    calibration: Estimate
    stein: Estimate
    slope: Estimate
    bias: Estimate
    avoidable: Estimate
    z: dict[str, float]


def mean(values: Tensor) -> Estimate:
    """Return the mean of independent values `(n,)`, with its standard error."""
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


def products(z: Tensor, predicted: Tensor, u: Tensor) -> Tensor:
    r"""Return the six products of each sample whose means the tests use, `(n, 6)`.

    They are $e \cdot e$, $z \cdot e$, $u \cdot e$, $\hat\varepsilon \cdot \hat\varepsilon$,
    $\hat\varepsilon \cdot u$ and $u \cdot u$, each divided by the number of dimensions.

    Args:
        z: The noise, `(n, *)`, float64.
        predicted: The predicted noise $\hat\varepsilon$.
        u: The centred state in units of the noise, $(x_t - \alpha\mu) / \sigma$.
    """
    e = z - predicted
    pairs = ((e, e), (z, e), (u, e), (predicted, predicted), (predicted, u), (u, u))
    return torch.stack([(a * b).reshape(len(z), -1).mean(1) for a, b in pairs], 1)


def examine(table: Tensor, errors: Tensor) -> Findings:
    """Compute the tests from the `products` and the errors of the samples.

    Args:
        table: The products `(n, 6)`, each the mean over the noises z and -z.
        errors: $e$, `(n, D)`, each the mean over z and -z.
    """
    e_e, z_e, u_e, _, _, _ = table.unbind(1)
    y_e, y_y = _denoiser_products(table)
    least = ROUNDING
    bias, deviate = _bias(errors)
    return Findings(
        calibration=_ratio(e_e + least, z_e + least),
        stein=mean(1 - u_e),
        slope=_ratio(y_y - y_e + least, y_y + least),
        bias=bias,
        avoidable=_avoidable(table),
        z={
            "calibration": deviation(mean(e_e - z_e)),
            "stein": deviation(mean(-u_e)),
            "slope": deviation(mean(-y_e)),
            "bias": deviate,
        },
    )


def matched(value: float, mean: float, variance: float) -> float:
    """Return the standard normal number with the tail probability of `value` in a gamma law.

    The gamma distribution has the given mean and variance. It approximates the distribution of a
    sum of squares (Satterthwaite 1946, doi:10.2307/3002019).
    """
    if not variance > 0:
        return 0.0
    shape, rate = mean**2 / variance, mean / variance
    at = torch.tensor([shape, rate * max(value, 0.0)], dtype=torch.float64)
    p = torch.special.gammaincc(at[0], at[1]).clamp(1e-300, 1 - 1e-16)
    return -float(torch.special.ndtri(p))


def _denoiser_products(table: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return $y \cdot e$ and $y \cdot y$ for the centred denoiser $y = \alpha (D - \mu) / \sigma$.

    They follow from $y = u - \hat\varepsilon$ and $\hat\varepsilon = z - e$.
    """
    e_e, z_e, u_e, eps_eps, eps_u, u_u = table.unbind(1)
    return u_e - (z_e - e_e), u_u - 2 * eps_u + eps_eps


def deviation(estimate: Estimate) -> float:
    """Return a value in standard errors, with at least the rounding error of a score."""
    return estimate.value / math.hypot(estimate.stderr, ROUNDING)


def _ratio(above: Tensor, below: Tensor) -> Estimate:
    """Return the ratio of two means, with its standard error to first order."""
    value = float(above.mean() / below.mean())
    stderr = float((above - value * below).std() / below.mean().abs()) / math.sqrt(len(above))
    return Estimate(value, stderr)


def _bias(errors: Tensor) -> tuple[Estimate, float]:
    r"""Estimate $\|E e\|^2$ per dimension from products of different samples; return its z too."""
    n, size = errors.shape
    norms = errors.square().sum(1)
    # the Gram matrix and the scatter matrix have the same norm; compute the smaller one
    gram = errors @ errors.T if n <= size else errors.T @ errors
    cross = float(errors.sum(0).square().sum() - norms.sum()) / (n * (n - 1))
    square = float(gram.square().sum() - norms.square().sum()) / (n * (n - 1))
    spread = float(norms.mean())
    stderr = math.sqrt(2 * square / (n * (n - 1)))
    least = n * size * ROUNDING**2
    z = matched(spread + (n - 1) * cross, spread + least, 2 * square + 2 * least**2)
    return Estimate(cross / size, stderr / size), z


def _avoidable(table: Tensor) -> Estimate:
    r"""Return the decrease of the loss from adding the best multiples of $\hat\varepsilon$ and $y$.

    The multiples are fitted on one half of the samples, and the decrease is measured on the other
    half. So the expected decrease is at most the error of the score, whatever multiples are fitted.
    """
    e_e, z_e, _, eps_eps, eps_u, _ = table.unbind(1)
    y_e, y_y = _denoiser_products(table)
    eps_y = eps_u - eps_eps
    gain = torch.stack([z_e - e_e, y_e], 1)
    gram = torch.stack([eps_eps, eps_y, eps_y, y_y], 1).reshape(-1, 2, 2)
    even = torch.arange(len(table)) % 2 == 0
    saved = torch.empty_like(e_e)
    for fit in (even, ~even):
        m, g = gram[fit].mean(0), gain[fit].mean(0)
        scale = m.diagonal().clamp(min=1e-300).rsqrt()
        inverse = torch.linalg.pinv(scale[:, None] * m * scale, rcond=1e-6, hermitian=True)
        beta = scale * (inverse @ (scale * g))
        saved[~fit] = 2 * gain[~fit] @ beta - torch.einsum("i,nij,j->n", beta, gram[~fit], beta)
    return mean(saved)

r"""Compute two reference losses: of a linear denoiser, and of the exact denoiser of training data.

The best linear denoiser is optimal for Gaussian data. Along principal axis j of the data, with the
variance $v_j$, the noise that it predicts has the error

$$ e_j = \frac{\alpha^2 v_j z_j - \alpha\sigma y_j}{V_j}, \qquad
   E_z\, e_j^2 = \frac{\alpha^4 v_j^2 + \alpha^2\sigma^2 y_j^2}{V_j^2}, $$

with $V_j = \alpha^2 v_j + \sigma^2$ and $y = x_0 - \mu$. If a network has the same loss at a noise
scale, it has learnt only the covariance at this scale.

The exact denoiser of N training samples $c_i$ is

$$ D(x_t) = \sum_i w_i c_i, \qquad w_i \propto \exp(-\|x_t - \alpha c_i\|^2 / 2\sigma^2). $$

No denoiser has a smaller loss on these samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.sde import SDE
from scoresde.targets import Target

__all__ = ["Empirical", "Exact", "Linear"]

# The largest number of samples from which a covariance is estimated.
_ROWS = 2048


class Linear:
    r"""Compute the loss of the linear denoiser of data, for any noise scale.

    The sample covariance is shrunk towards a multiple of the identity; the fewer samples, the more
    (Ledoit & Wolf 2004, doi:10.1016/S0047-259X(03)00096-4).

    Args:
        x: Samples `(N, D)`, N at least 2, float64.
    """

    def __init__(self, x: Tensor) -> None:
        x = x[:_ROWS]
        n, size = x.shape
        self.mean = x.mean(0)
        y = x - self.mean
        values, axes = _principal(y)
        level = float(values.sum()) / size
        # the squared distances of the sample covariance from level * I and from the true covariance
        spread = float(values.square().sum()) - size * level**2
        error = (float(y.square().sum(1).square().sum()) / n - float(values.square().sum())) / n
        share = 1.0 if spread <= 0 else min(1.0, max(0.0, error / spread))
        self.axes = axes
        self.variances = (1 - share) * values + share * level
        self.rest = share * level

    def loss(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """Return the expected loss per dimension, `(n,)`, for clean samples `(n, D)`."""
        y = x - self.mean
        inside = (y @ self.axes) ** 2
        outside = (y.square().sum(1) - inside.sum(1)).clamp(min=0)
        count = x.shape[1] - len(self.variances)
        total = _error(self.variances, inside, alpha, sigma).sum(1)
        rest = torch.tensor(self.rest, dtype=torch.float64)
        total = total + _error(rest, outside, alpha, sigma)
        total = total + (count - 1) * _error(rest, torch.zeros_like(outside), alpha, sigma)
        return total / x.shape[1]


@dataclass(frozen=True, eq=False)
class Exact:
    """Predict the noise exactly for data with a known distribution."""

    sde: SDE
    target: Target

    def __call__(self, state: Tensor, t: Tensor, part: slice) -> Tensor:
        """Return the predicted noise of the states, `(b, *)` float64."""
        return -float(self.sde.sigma(t)) * self.target.score(state, self.sde, t)


@dataclass(frozen=True, eq=False)
class Empirical:
    """Predict the noise exactly for the empirical distribution of some samples.

    Args:
        sde: The process.
        points: The samples, `(N, *)`.
        condition: The conditions of the samples. A prediction uses only the samples that have the
            condition of the state.
        rows: For each state, in order, the index of the sample from which it was made.
    """

    sde: SDE
    points: Tensor
    condition: Mapping[str, Tensor] | None
    rows: Tensor

    def __call__(self, state: Tensor, t: Tensor, part: slice) -> Tensor:
        """Return the predicted noise `(b, *)` of states made from samples `rows[part]`, float64."""
        alpha, sigma = float(self.sde.alpha(t)), float(self.sde.sigma(t))
        x = state.double().reshape(len(state), -1)
        points = self.points.double().reshape(len(self.points), -1)
        # -|x - alpha c|^2 / 2 sigma^2, without the term that does not depend on c
        logits = (alpha * x @ points.T - 0.5 * alpha**2 * points.square().sum(1)) / sigma**2
        for value in (self.condition or {}).values():
            flat = value.reshape(len(value), -1)
            same = (flat[self.rows[part], None] == flat).all(2)
            logits = logits.masked_fill(~same, -torch.inf)
        return ((x - alpha * logits.softmax(1) @ points) / sigma).reshape(state.shape)


def _principal(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return principal variances `(r,)` and axes `(D, r)` of centred samples `(N, D)`."""
    n, size = y.shape
    if size <= n:
        values, axes = torch.linalg.eigh(y.T @ y / n)
        return values.clamp(min=0), axes
    values, left = torch.linalg.eigh(y @ y.T / n)
    kept = values > 1e-10 * values[-1]
    values, left = values[kept], left[:, kept]
    return values, y.T @ left / (n * values).sqrt()


def _error(variance: Tensor, y2: Tensor, alpha: float, sigma: float) -> Tensor:
    return (alpha**4 * variance**2 + alpha**2 * sigma**2 * y2) / (
        alpha**2 * variance + sigma**2
    ) ** 2

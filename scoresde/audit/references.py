r"""A loss to compare with: that of the best linear denoiser.

A linear denoiser, the optimal one for Gaussians of the data's covariance $\Sigma$, predicts in the
principal axes, with $V_j = \alpha^2 v_j + \sigma^2$ and $y = x_0 - \mu$,

$$ e_j = \frac{\alpha^2 v_j z_j - \alpha\sigma y_j}{V_j}, \qquad
   E_z\, e_j^2 = \frac{\alpha^4 v_j^2 + \alpha^2\sigma^2 y_j^2}{V_j^2}. $$

A network that is no better has learnt nothing but the covariance at that noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Linear"]

# Samples that a covariance is read from, at most.
_ROWS = 2048


class Linear:
    r"""The linear denoiser of data, for every noise level.

    The covariance is shrunk towards its mean variance, as far as the samples are too few for it
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
        # squared distances of the sample covariance from level * I, and from the truth
        spread = float(values.square().sum()) - size * level**2
        error = (float(y.square().sum(1).square().sum()) / n - float(values.square().sum())) / n
        share = 1.0 if spread <= 0 else min(1.0, max(0.0, error / spread))
        self.axes = axes
        self.variances = (1 - share) * values + share * level
        self.rest = share * level

    def loss(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """Its expected loss for clean samples `(n, D)`, per dimension, `(n,)`."""
        y = x - self.mean
        inside = (y @ self.axes) ** 2
        outside = (y.square().sum(1) - inside.sum(1)).clamp(min=0)
        count = x.shape[1] - len(self.variances)
        total = _error(self.variances, inside, alpha, sigma).sum(1)
        rest = torch.tensor(self.rest, dtype=torch.float64)
        total = total + _error(rest, outside, alpha, sigma)
        total = total + (count - 1) * _error(rest, torch.zeros_like(outside), alpha, sigma)
        return total / x.shape[1]


def _principal(y: Tensor) -> tuple[Tensor, Tensor]:
    """Variances `(r,)` and axes `(D, r)` of centred samples, by the smaller of both products."""
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

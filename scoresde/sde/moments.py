r"""What is known of a distribution before any sample is drawn: its mean and covariance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.errors import InvalidValueError, ShapeError

__all__ = ["Moments"]


@dataclass(frozen=True, eq=False)
class Moments:
    r"""Mean and covariance of data, $\mathcal N(\mu, \Sigma)$ to second order.

    Args:
        mean: $\mu$, a number or a tensor of the event's shape.
        var: The variance per dimension, a number or a tensor of the event's shape, >= 0.
        cov: The full covariance `(D, D)` over the flattened event, in place of `var`.

    Raises:
        InvalidValueError: Both or neither of `var` and `cov`, or a negative variance.
    """

    mean: Tensor | float
    var: Tensor | float | None = None
    cov: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.var is None) == (self.cov is None):
            raise InvalidValueError("Moments takes either var= or cov=, and not both")
        if self.cov is not None and (self.cov.ndim != 2 or self.cov.shape[0] != self.cov.shape[1]):
            raise ShapeError(f"cov must be a square matrix, got shape {tuple(self.cov.shape)}")
        spread = self.var if self.cov is None else self.cov.diagonal()
        for name, value in (("mean", self.mean), ("variance", spread)):
            if not torch.as_tensor(value).isfinite().all():
                raise InvalidValueError(f"the {name} in Moments must be finite, got {value}")
        if (torch.as_tensor(spread) < 0).any():
            raise InvalidValueError(f"a variance in Moments is negative: {spread}")

    def at(self, alpha: Tensor, sigma: Tensor) -> Moments:
        r"""The moments of $\alpha x_0 + \sigma z$: mean $\alpha\mu$, covariance $\alpha^2\Sigma + \sigma^2 I$."""
        a, v = float(alpha), float(sigma) ** 2
        if self.cov is None:
            assert self.var is not None
            return Moments(a * self.mean, var=a**2 * self.var + v)
        eye = torch.eye(len(self.cov), dtype=self.cov.dtype, device=self.cov.device)
        return Moments(a * self.mean, cov=a**2 * self.cov + v * eye)

    def sample(self, z: Tensor) -> Tensor:
        r"""$\mu + \Sigma^{1/2} z$ for standard normal `z` of shape `(B, *)`."""
        mean = torch.as_tensor(self.mean, dtype=torch.float64).to(z)
        if self.cov is None:
            return mean + torch.as_tensor(self.var, dtype=torch.float64).sqrt().to(z) * z
        value, basis = torch.linalg.eigh(self.cov.double())
        root = basis * value.clamp(min=0).sqrt() @ basis.T
        return mean + (z.flatten(1) @ root.to(z)).reshape(z.shape)

    def log_prob(self, x: Tensor) -> Tensor:
        r"""$\log \mathcal N(x; \mu, \Sigma)$ for `x` of shape `(B, *)`; returns `(B,)`."""
        gap = (x - torch.as_tensor(self.mean).to(x)).flatten(1).double()
        if self.cov is None:
            event = x.shape[1:]
            var = torch.as_tensor(self.var, dtype=torch.float64).to(x.device).expand(event)
            var = var.flatten()
        else:
            var, basis = torch.linalg.eigh(self.cov.double().to(x.device))
            gap = gap @ basis
        terms = gap**2 / var + var.log() + math.log(2 * math.pi)
        return (-0.5 * terms.sum(1)).to(x.dtype)

r"""Compute the divergence of a score along the flow, exactly or with fixed random probes."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from scoresde.divergence import divergence, frobenius, hutchinson
from scoresde.likelihood.result import half_width
from scoresde.sde import Moments

__all__ = ["ExactTrace", "HutchinsonTrace", "Trace"]

Function = Callable[[Tensor], Tensor]

# The number of probes of the second solution. The difference of the two solutions hardly depends on
# this number.
_FEW = 4


class Trace(Protocol):
    """Define the interface of methods that estimate the divergence of a score."""

    @property
    def count(self) -> int:
        """Return the number of estimates for each sample."""
        ...

    def __call__(
        self, score: Function, x: Tensor, rows: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the score `(b, *)` and the estimates `(count, b)` for a part of the batch.

        Args:
            score: A function of `x`.
            x: The samples `(b, *)`.
            rows: The indices of the samples in the batch, `(b,)`.
            alpha: The signal scales of the samples, `(b,)`.
            sigma: The noise scales of the samples, `(b,)`.
        """
        ...

    def norm(self, score: Function, x: Tensor, rows: Tensor) -> Tensor:
        """Return the Frobenius norm of the score's Jacobian for a part of the batch, `(b,)`."""
        ...

    def few(self) -> Trace:
        """Return the same method with fewer estimates, for the second solution."""
        ...

    def error(self, values: Tensor) -> Tensor:
        """Return the 95 % half-width for the mean of estimates `(B, K)`, `(B,)`."""
        ...


@dataclass(frozen=True)
class ExactTrace:
    """Compute the exact trace, by D vector-Jacobian products."""

    count: int = 1

    def __call__(
        self, score: Function, x: Tensor, rows: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the score and its divergence."""
        value, trace = divergence(score, x)
        return value, trace[None].double()

    def norm(self, score: Function, x: Tensor, rows: Tensor) -> Tensor:
        """Return the exact norm."""
        return frobenius(score, x)

    def few(self) -> ExactTrace:
        """Return itself."""
        return self

    def error(self, values: Tensor) -> Tensor:
        """Return 0 for each sample."""
        return torch.zeros_like(values[:, 0])


class HutchinsonTrace:
    r"""Estimate the trace by Hutchinson's method with K probes and a control variate.

    Let $C = \alpha^2\Sigma + \sigma^2 I$ be the covariance of $p_t$. For a random probe v the
    estimate

    $$ v^T \nabla s\, v + v^T C^{-1} v - \operatorname{tr} C^{-1} $$

    has the mean $\operatorname{tr} \nabla s$, and is exact for a Gaussian, $\nabla s = -C^{-1}$.

    Args:
        probes: $v$, `(K, B, *)`, the same along the whole path.
        moments: The data's moments; None leaves out the last two terms.
    """

    def __init__(self, probes: Tensor, moments: Moments | None) -> None:
        self.probes, self.count = probes, len(probes)
        size = math.prod(probes.shape[2:])
        flat = probes.double().reshape(*probes.shape[:2], size)
        if moments is None:
            self.variances, self.excess = torch.ones(size, dtype=torch.float64), 0 * flat
        elif moments.cov is None:
            var = torch.as_tensor(moments.var, dtype=torch.float64).cpu()
            self.variances = var.expand(probes.shape[2:]).reshape(size)
            self.excess = flat**2 - 1
        else:
            self.variances, basis = moments.principal()
            self.excess = (flat @ basis.to(flat.device)) ** 2 - 1

    def __call__(
        self, score: Function, x: Tensor, rows: Tensor, alpha: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the score and one estimate for each probe."""
        value, estimates = hutchinson(score, x, self.probes[:, rows].to(x))
        var = alpha[:, None] ** 2 * self.variances + sigma[:, None] ** 2
        control = (self.excess[:, rows] / var.to(self.excess.device)).sum(2)
        return value, estimates.double() + control

    def norm(self, score: Function, x: Tensor, rows: Tensor) -> Tensor:
        """Estimate the norm from the products with all probes."""
        return frobenius(score, x, self.probes[:, rows].to(x))

    def few(self) -> HutchinsonTrace:
        """Return the method with the first four probes."""
        some = copy(self)
        some.probes, some.excess = self.probes[:_FEW], self.excess[:_FEW]
        some.count = len(some.probes)
        return some

    def error(self, values: Tensor) -> Tensor:
        """Return the 95 % half-width from the spread of the probes; infinite for fewer than 8."""
        return half_width(values)

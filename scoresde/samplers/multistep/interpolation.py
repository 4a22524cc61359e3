r"""Interpolate and extrapolate the residual of a denoiser in the half log-SNR.

A multistep method knows the residual $R$ of the denoiser at $\ell_1 \dots \ell_m$, where
$\ell = \log(\alpha/\sigma)$, and needs $R$ over the next step. An interpolation gives weights $w$
with $R(\ell) \approx \sum_j w_j(\ell)\, R(\ell_j)$.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.quadrature import lagrange
from scoresde.score.pilot import Pilot
from scoresde.sde import SDE

__all__ = [
    "Interpolation",
    "Measured",
    "Midpoint",
    "Polynomial",
    "PolynomialInNoise",
    "PolynomialInTime",
]

# A step is long if its nodes span more than this in the half log-SNR. On mixtures of two widths
# with 10 evaluations a limit of 1.3 gave similar errors.
_LONG = 1.5


class Interpolation(abc.ABC):
    """Define a rule that extrapolates a residual from known values."""

    @abc.abstractmethod
    def matrix(self, nodes: Tensor, at: Tensor) -> Tensor:
        r"""Return the weights `(N, Q, m)` of N steps.

        Args:
            nodes: The $\ell$ at which the residual is known, `(N, m)`, the newest first.
            at: The $\ell$ at which the residual is needed, `(N, Q)`, symmetric about the middle of
                each step.
        """


@dataclass(frozen=True)
class Polynomial(Interpolation):
    r"""Interpolate by the polynomial in $\ell$ through all nodes."""

    def matrix(self, nodes: Tensor, at: Tensor) -> Tensor:
        """Return the weights `(N, Q, m)`."""
        return lagrange(nodes, at)


@dataclass(frozen=True)
class Midpoint(Interpolation):
    r"""Interpolate like `Polynomial`, but with two nodes take the value at the middle of the step.

    This is the rule of DPM-Solver++(2M), and of UniPC with two nodes; with more nodes UniPC
    integrates the polynomial.
    """

    def matrix(self, nodes: Tensor, at: Tensor) -> Tensor:
        """Return the weights `(N, Q, m)`."""
        if nodes.shape[-1] == 2:
            at = at.mean(-1, keepdim=True).expand_as(at)
        return lagrange(nodes, at)


@dataclass(frozen=True)
class PolynomialInNoise(Interpolation):
    r"""Interpolate by the polynomial in the noise-to-signal ratio $\rho = e^{-\ell}$."""

    def matrix(self, nodes: Tensor, at: Tensor) -> Tensor:
        """Return the weights `(N, Q, m)`."""
        return lagrange(torch.exp(-nodes), torch.exp(-at))


@dataclass(frozen=True, eq=False)
class PolynomialInTime(Interpolation):
    r"""Interpolate $R / \rho$, the predicted noise, by a polynomial in the time of an SDE."""

    sde: SDE

    def matrix(self, nodes: Tensor, at: Tensor) -> Tensor:
        """Return the weights `(N, Q, m)`."""
        # the predicted noise is R / rho up to its sign
        ratio = torch.exp(nodes[..., None, :] - at[..., None])
        return ratio * lagrange(self.sde.time(2 * nodes), self.sde.time(2 * at))


@dataclass(frozen=True)
class Measured(Interpolation):
    r"""Interpolate by the best linear prediction with the covariance that a pilot run measured.

    The pilot run followed the probability flow, but noise makes the residual decorrelate faster.
    With the stochasticity $\tau$ and noise much larger than the data, the standardised state has
    the autocorrelation $\kappa = e^{-\tau^2 |\ell - \ell'|}$, and a Hermite polynomial of degree n
    in the state has $\kappa^n$ (Mehler 1866). The Gaussian that is subtracted contains the part of
    degree 1, so the residual begins with degree 2, and the covariance is multiplied by $\kappa^2$.

    The noise of a step is added after it, so the states within the step lack this noise. In a long
    step they are treated as if they were at its start. Otherwise the corrector would give a large
    weight to the residual at the end, which belongs to other noise, and samples would leave a mode
    that is much narrower than the noise at the start.

    Args:
        pilot: The pilot, or a pilot that is assumed if none was measured.
        tau: $\tau$.
    """

    pilot: Pilot
    tau: float = 0.0

    def matrix(self, nodes: Tensor, at: Tensor) -> Tensor:
        """Return the weights `(N, Q, m)`."""
        start = torch.where(nodes <= at[:, :1], nodes, -torch.inf).amax(-1, keepdim=True)
        long = at[:, -1:] - at[:, :1] > _LONG
        return self.pilot.predict(nodes, at, 2 * self.tau**2, torch.where(long, start, at))

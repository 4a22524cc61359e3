r"""What one pilot run tells of a score: how its residual varies along the probability flow.

Along the flow the denoiser is a Gaussian's, which is known in closed form, and a residual
$R(\ell)$, a function of the noise level $\ell = \log(\alpha/\sigma)$. Over trajectories and
dimensions it has a covariance

$$ k(\ell, \ell') = E\,[R(\ell)\, R(\ell')] $$

of which a pilot run of few samples at $K$ levels is a good estimate. From it follow, with no
further evaluation, the best linear prediction of $R$ at any level from its values at a few others
(Kolmogorov 1941; Wiener 1949; in geostatistics kriging, Matheron 1963), and the size of what is
left. A solver that predicts so has weights which are neither those of Adams nor of any polynomial,
but the best ones for this model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_range, summary
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.quadrature import lagrange
from scoresde.sde import Moments

__all__ = ["Pilot"]

# Levels that interpolation between the K measured ones looks at.
_STENCIL = 6
# The degree of the polynomial that stands for what no pilot has seen.
_DEGREE = 3
# Levels and variances of the pilot that was not run.
_PRIOR_LEVELS, _PRIOR_VARIANCES = 64, 24
# The share of rounding in the square of a residual, which keeps the weights bounded.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class Pilot:
    r"""The covariance of a score's residual along the probability flow. Made by `scoresde.pilot`.

    Args:
        levels: $\ell$ of the K levels, `(K,)`, increasing, at least 6.
        factor: A matrix `(r, K)` with $k = F^T F$ at those levels.
        moments: The moments of the Gaussian that was taken off.
        nfe: The evaluations that each sample of the pilot run received.
        unseen: The size of what no pilot has seen, relative to the residual's; it is taken to be a
            cubic in the level, for which weights are exact in the limit of small steps.
        growth: How an error is carried to the end: relative to U, which it keeps along the flow of
            a Gaussian (0), by this power of U at the step where it is made, since it grows where
            trajectories part. 3/2 was chosen on the arena's tuning problems and packaged digits.

    Raises:
        ShapeError: Too few levels, or a factor of another width.
        InvalidTypeError: The levels or the factor are no float64 tensor.
        InvalidValueError: The levels do not increase, or `unseen` or `growth` is negative.
        NonFiniteError: A NaN or an infinity.

    Examples:
        >>> import scoresde
        >>> score = scoresde.targets.TwoMoons().at(scoresde.VPSDE())
        >>> measured = scoresde.pilot(score, n=8, steps=20)
        >>> fast = scoresde.samplers.Fast(pilot=measured)
        >>> x = scoresde.sample(score, sampler=fast, steps=8, seed=0)
    """

    levels: Tensor
    factor: Tensor
    moments: Moments
    nfe: int
    unseen: float = 1e-3
    growth: float = 1.5

    __repr__ = summary

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("levels", "factor"):
            value = getattr(self, name)
            kind = getattr(value, "dtype", type(value))
            if kind != torch.float64:
                raise InvalidTypeError(
                    f"the {name} of a pilot must be a float64 tensor, got {kind}; use .double()"
                )
        if self.levels.ndim != 1 or len(self.levels) < _STENCIL:
            raise ShapeError(
                f"a pilot needs at least {_STENCIL} levels, got shape {tuple(self.levels.shape)}"
            )
        if self.factor.ndim != 2 or self.factor.shape[1] != len(self.levels):
            raise ShapeError(
                f"the factor of {len(self.levels)} levels has shape (r, {len(self.levels)}), "
                f"got {tuple(self.factor.shape)}"
            )
        if not (self.levels.isfinite().all() and self.factor.isfinite().all()):
            raise NonFiniteError("the levels or the factor of a pilot hold NaN or infinity")
        if not (self.levels.diff() > 0).all():
            raise InvalidValueError("the levels of a pilot must increase")
        for name, value in (("unseen", self.unseen), ("growth", self.growth)):
            check_range(name, value, "[0, inf)")

    @classmethod
    def measure(cls, levels: Tensor, residuals: Tensor, moments: Moments, nfe: int) -> Pilot:
        """From residuals `(M, K)` of M trajectories and dimensions."""
        rows = residuals.double() / max(len(residuals), 1) ** 0.5
        _, factor = torch.linalg.qr(rows, mode="r")
        return cls(levels.double(), factor, moments, nfe)

    @classmethod
    def prior(cls, low: float, high: float, variance: float | None) -> Pilot:
        r"""Return what is expected where nothing was measured: Gaussians of all variances.

        Data $\mathcal N(0, v)$ of which $\mathcal N(0, c)$ was taken off leave
        $R = (\frac{v}{v + \rho^2} - \frac{c}{c + \rho^2}) \sqrt{v + \rho^2}$ along the flow. Here c
        is the mean variance of the data and v log-uniform from $10^{-4} c$ to $10 c$.

        Args:
            low: The first level.
            high: The last one.
            variance: c; `None` assumes standardised data, and more that is unseen.
        """
        levels = torch.linspace(low, high, _PRIOR_LEVELS, dtype=torch.float64)
        c, rho2 = 1.0 if variance is None else variance, torch.exp(-2 * levels)
        v = c * torch.logspace(-4, 1, _PRIOR_VARIANCES, dtype=torch.float64)[:, None]
        factor = (v / (v + rho2) - c / (c + rho2)) * (v + rho2).sqrt() / len(v) ** 0.5
        unseen = 0.1 if variance is None else 0.01
        return cls(levels, factor, Moments(0.0, var=c), 0, unseen, growth=0.0)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors in it by name, in single precision."""
        spread = (
            {"var": self.moments.var} if self.moments.cov is None else {"cov": self.moments.cov}
        )
        parts = {"levels": self.levels, "factor": self.factor, "mean": self.moments.mean, **spread}
        return {name: torch.as_tensor(value).float() for name, value in parts.items()}

    def numbers(self) -> dict[str, float]:
        """Return the numbers in it by name."""
        return {"nfe": self.nfe, "unseen": self.unseen, "growth": self.growth}

    @classmethod
    def of(cls, parts: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> Pilot:
        """From what `tensors` and `numbers` give."""
        moments = Moments(parts["mean"], var=parts.get("var"), cov=parts.get("cov"))
        return cls(parts["levels"].double(), parts["factor"].double(), moments, **numbers)

    def features(self, at: Tensor) -> Tensor:
        r"""Vectors `(..., r')` whose inner products are the covariances of $R$ at levels `at`.

        Between the measured levels they are interpolated by polynomials through the 6 nearest ones;
        outside they are those of the first or the last.
        """
        at = at.clamp(self.levels[0], self.levels[-1])
        first = (torch.searchsorted(self.levels, at.contiguous()) - _STENCIL // 2).clamp(
            0, len(self.levels) - _STENCIL
        )
        near = first[..., None] + torch.arange(_STENCIL)
        weights = lagrange(self.levels[near], at[..., None])[..., 0, :]
        return torch.einsum("...s,...sr->...r", weights, self._features[near])

    def predict(self, nodes: Tensor, at: Tensor, fade: float = 0.0) -> Tensor:
        r"""The weights of the best linear prediction of $R$ at levels `at` from levels `nodes`.

        $$ w = \arg\min_w E\Big[\big(R(a) - \sum_j w_j R(n_j)\big)^2\Big], \qquad
           E[R(\ell) R(\ell')] = k(\ell, \ell')\, e^{-\text{fade}\,|\ell - \ell'|} $$

        Args:
            nodes: Levels `(..., m)`.
            at: Levels `(..., Q)`.
            fade: How fast a path forgets the residual it had: 0 along the flow.

        Returns:
            The weights `(..., Q, m)`, float64.
        """
        known, wanted = self.features(nodes), self.features(at)

        def faded(one: Tensor, other: Tensor) -> Tensor:
            return torch.exp(-fade * (one[..., :, None] - other[..., None, :]).abs())

        gram = known @ known.mT * faded(nodes, nodes)
        rounding = _ROUNDING * gram.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True) + 1e-300
        gram = gram + torch.diag_embed(rounding.expand(nodes.shape))
        weights: Tensor = torch.linalg.solve(gram, known @ wanted.mT * faded(nodes, at)).mT
        return weights

    @cached_property
    def _features(self) -> Tensor:
        """Return the columns of the factor, and what no pilot has seen, `(K, r + 4)`."""
        position = 2 * (self.levels - self.levels[0]) / (self.levels[-1] - self.levels[0]) - 1
        powers = position[:, None] ** torch.arange(_DEGREE + 1)
        unseen, _ = torch.linalg.qr(powers)
        size = self.factor.square().sum().sqrt()
        return torch.cat((self.factor.T, self.unseen * size * unseen), 1)

r"""Estimate how the residual of a score varies along the probability flow, from a pilot run.

Let $R(\ell)$ be the residual at the half log-SNR $\ell = \log(\alpha/\sigma)$: the score's denoiser
minus the closed-form denoiser of a Gaussian, both at a state on the flow. Averaged over
trajectories and dimensions, the residual has the covariance

$$ k(\ell, \ell') = E\,[R(\ell)\, R(\ell')]. $$

A pilot run of a few samples at $K$ values of $\ell$ estimates $k$ well. The covariance determines,
without further evaluations, the best linear prediction of $R$ at any $\ell$ from the values of $R$
at a few other $\ell$ (Kolmogorov 1941; Wiener 1949; in geostatistics kriging, Matheron 1963). It
also gives the expected error of this prediction. Adams methods extrapolate by polynomials; a
multistep solver can use the weights of the best linear prediction instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_range, summary
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.quadrature import STENCIL, interpolated
from scoresde.sde import Moments

__all__ = ["Fit", "Pilot", "Setting"]

# The version of the method for which settings are chosen and weights are fitted. It is stored with
# them, and must increase when the weights or the grid of the fast sampler change. A file without it
# has version 1.
_VERSION = 1
# The degree of the polynomial that is assumed for the unmeasured part of the residual.
_DEGREE = 3
# The number of values of ell and the number of variances in `Pilot.prior`.
_PRIOR_POINTS, _PRIOR_VARIANCES = 64, 24
# The relative rounding error assumed for a squared residual. Added to the diagonal of the Gram
# matrix, it keeps the weights bounded.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Setting:
    """Hold the settings of the sampler "fast" for one model and one number of steps.

    Args:
        order: The number of residuals that a step uses.
        corrector: The number of residuals that the corrector uses besides the newest residual.
        growth: The exponent that weights early errors in the choice of the grid; see
            `Pilot.growth`.
    """

    order: int = 4
    corrector: int = 3
    growth: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_range("order", self.order, "[1, 6]")
        check_range("corrector", self.corrector, "[0, 6]")
        check_range("growth", self.growth, "[0, inf)")


@dataclass(frozen=True, repr=False)
class Fit:
    """Hold numbers that are added to the weights of the fast sampler, for one number of steps.

    Args:
        setting: The setting whose weights the numbers are added to.
        rows: One row for each prediction and each correction, in the order in which a run makes
            them. The first number of a row belongs to the state, and the others to the residuals,
            the newest first; missing numbers are 0.
    """

    setting: Setting
    rows: tuple[tuple[float, ...], ...]

    def __repr__(self) -> str:
        return f"Fit({self.setting}, {len(self.rows)} rows)"

    def __post_init__(self) -> None:
        check_fields(self)
        if not all(map(math.isfinite, itertools.chain(*self.rows))):
            raise NonFiniteError("the rows of a fit hold NaN or infinity")

    def check_steps(self, n: int) -> None:
        """Raise an error unless there is a row for every update of n steps."""
        updates = 2 * n - 1 if self.setting.corrector else n
        if len(self.rows) != updates:
            raise ShapeError(f"the fit of {n} steps must have {updates} rows, got {len(self.rows)}")


@dataclass(frozen=True, eq=False, repr=False)
class Pilot:
    r"""Hold the covariance of a score's residual along the probability flow; see `scoresde.pilot`.

    Args:
        ell: The K values of $\ell$, `(K,)`, increasing; K is at least 6.
        factor: A matrix F `(r, K)`; the covariance at these values is $F^T F$.
        moments: The moments of the Gaussian whose denoiser was subtracted.
        nfe: The number of evaluations for each sample of the pilot run.
        unseen: The assumed size of a part of the residual that the pilot run does not show, divided
            by the size of the residual. This part is modelled as a random cubic polynomial in
            $\ell$. If there was no pilot run (`nfe` is 0), the polynomial is multiplied by
            $\rho / U$. For small steps the weights become exact for cubic polynomials.
        growth: The choice of a grid weights the error of a step by $U^\text{growth}$, where U is
            the standard deviation of $x / \alpha$ at the step. A positive exponent gives early
            errors more weight. It is 0 for the flow of a Gaussian, and positive if trajectories
            diverge.
        choices: A mapping from a number of steps to the best setting for this number: the setting
            whose samples were nearest to the final states of the pilot run.
        fits: A mapping from a number of steps to numbers that were fitted to the pilot run. It has
            only those numbers of steps for which the samples with the fit were nearer to the final
            states than with the setting in `choices`.

    Raises:
        ShapeError: `ell` has fewer than 6 values, the factor does not have one column for each of
            them, or a fit does not have one row for each update of its number of steps.
        InvalidTypeError: `ell` or the factor is not a float64 tensor.
        InvalidValueError: `ell` does not increase, or `unseen` or `growth` is negative.
        NonFiniteError: `ell` or the factor holds a NaN or an infinity.

    Examples:
        >>> import scoresde
        >>> score = scoresde.targets.TwoMoons().at(scoresde.VPSDE())
        >>> measured = scoresde.pilot(score, n=8, steps=20)
        >>> fast = scoresde.samplers.Fast(pilot=measured)
        >>> x = scoresde.sample(score, sampler=fast, steps=8, seed=0)
    """

    ell: Tensor
    factor: Tensor
    moments: Moments
    nfe: int
    unseen: float = 1e-3
    growth: float = 0.0
    choices: Mapping[int, Setting] = field(default_factory=dict)
    fits: Mapping[int, Fit] = field(default_factory=dict)

    __repr__ = summary

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("ell", "factor"):
            value = getattr(self, name)
            kind = getattr(value, "dtype", type(value))
            if kind != torch.float64:
                raise InvalidTypeError(
                    f"the {name} of a pilot must be a float64 tensor, got {kind}; use .double()"
                )
        if self.ell.ndim != 1 or len(self.ell) < STENCIL:
            raise ShapeError(
                f"a pilot needs at least {STENCIL} values of ell, the half log-SNR, got shape "
                f"{tuple(self.ell.shape)}"
            )
        if self.factor.ndim != 2 or self.factor.shape[1] != len(self.ell):
            raise ShapeError(
                f"for {len(self.ell)} values of ell the factor must have the shape "
                f"(r, {len(self.ell)}), got {tuple(self.factor.shape)}"
            )
        if not (self.ell.isfinite().all() and self.factor.isfinite().all()):
            raise NonFiniteError("ell or the factor of a pilot holds NaN or infinity")
        if not (self.ell.diff() > 0).all():
            raise InvalidValueError("the ell of a pilot must increase")
        for name, value in (("unseen", self.unseen), ("growth", self.growth)):
            check_range(name, value, "[0, inf)")
        for steps, fit in self.fits.items():
            fit.check_steps(steps)

    @classmethod
    def measure(
        cls, ell: Tensor, residuals: Tensor | Sequence[Tensor], moments: Moments, nfe: int
    ) -> Pilot:
        r"""Estimate a pilot from residuals `(M, K)`.

        The residuals have a column for each $\ell$, and a row for each dimension of each
        trajectory. They may be given in parts, such as one for each batch of trajectories.
        """
        parts = [residuals] if isinstance(residuals, Tensor) else residuals
        count = max(sum(map(len, parts)), 1)
        factors = [torch.linalg.qr(part.double() / count**0.5, mode="r")[1] for part in parts]
        factor = (
            factors[0] if len(factors) == 1 else torch.linalg.qr(torch.cat(factors), mode="r")[1]
        )
        return cls(ell.double(), factor, moments, nfe)

    @classmethod
    def prior(cls, low: float, high: float, variance: float | None) -> Pilot:
        r"""Return a pilot that can be assumed without a pilot run.

        It is the average over Gaussian data whose variances are spread over several decades. If the
        data are $\mathcal N(0, v)$ and the subtracted Gaussian is $\mathcal N(0, c)$, the residual
        along the flow is $R = (\frac{v}{v + \rho^2} - \frac{c}{c + \rho^2}) \sqrt{v + \rho^2}$ with
        $\rho = \sigma / \alpha$. Here c is the mean variance of the data, and v is log-uniform from
        $10^{-4} c$ to $10 c$.

        Args:
            low: The first $\ell$.
            high: The last $\ell$.
            variance: c; `None` assumes standardised data, and a larger `unseen`.
        """
        ell = torch.linspace(low, high, _PRIOR_POINTS, dtype=torch.float64)
        c, rho2 = 1.0 if variance is None else variance, torch.exp(-2 * ell)
        v = c * torch.logspace(-4, 1, _PRIOR_VARIANCES, dtype=torch.float64)[:, None]
        factor = (v / (v + rho2) - c / (c + rho2)) * (v + rho2).sqrt() / len(v) ** 0.5
        unseen = 0.1 if variance is None else 0.01
        return cls(ell, factor, Moments(0.0, var=c), 0, unseen)

    def tensors(self) -> dict[str, Tensor]:
        """Return the pilot's tensors by their names in a file, in float32."""
        spread = (
            {"var": self.moments.var} if self.moments.cov is None else {"cov": self.moments.cov}
        )
        parts = {"levels": self.ell, "factor": self.factor, "mean": self.moments.mean, **spread}
        return {name: torch.as_tensor(value).float() for name, value in parts.items()}

    def numbers(self) -> dict[str, Any]:
        """Return the pilot's numbers by name, as JSON values."""
        choices = {str(steps): list(astuple(one)) for steps, one in self.choices.items()}
        fits = {
            str(steps): [list(astuple(fit.setting)), [list(row) for row in fit.rows]]
            for steps, fit in self.fits.items()
        }
        return {
            "version": _VERSION, "nfe": self.nfe, "unseen": self.unseen, "growth": self.growth,
            "choices": choices, "fits": fits,
        }  # fmt: skip

    @classmethod
    def of(cls, parts: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> Pilot:
        """Return the pilot that `tensors` and `numbers` describe.

        Settings and fits for another version of the fast sampler are left out, so that they are
        chosen again when they are needed.
        """
        known = dict(numbers)
        if known.pop("version", 1) != _VERSION:
            known |= {"choices": {}, "fits": {}}
        moments = Moments(parts["mean"], var=parts.get("var"), cov=parts.get("cov"))
        choices = {int(n): Setting(*one) for n, one in known.get("choices", {}).items()}
        fits = {
            int(n): Fit(Setting(*one), tuple(map(tuple, rows)))
            for n, (one, rows) in known.get("fits", {}).items()
        }
        known |= {"choices": choices, "fits": fits}
        return cls(parts["levels"].double(), parts["factor"].double(), moments, **known)

    def features(self, at: Tensor) -> Tensor:
        r"""Return vectors `(..., r')` whose inner products are the covariances of $R$ at `at`.

        Between the measured $\ell$ the vectors are interpolated by polynomials through the vectors
        at the 6 nearest $\ell$. Outside of the measured range they are constant.
        """
        return interpolated(self.ell, self._features, at)

    def predict(
        self, nodes: Tensor, at: Tensor, fade: float = 0.0, path: Tensor | None = None
    ) -> Tensor:
        r"""Return the weights of the best linear prediction of $R$ at `at` from $R$ at `nodes`.

        For each a in `at` and the nodes $n_j$ they are

        $$ w = \arg\min_w E\Big[\big(R(a) - \sum_j w_j R(n_j)\big)^2\Big], \qquad
           E[R(\ell) R(\ell')] = k(\ell, \ell')\, e^{-\text{fade}\,|\ell - \ell'|}. $$

        Args:
            nodes: Values of $\ell$, `(..., m)`.
            at: Values of $\ell$, `(..., Q)`.
            fade: The rate at which the residual of a noisy path decorrelates; 0 along the flow.
            path: For each value in `at` the $\ell$ that replaces it in the exponent, if any.

        Returns:
            The weights `(..., Q, m)`, float64.
        """
        known, wanted = self.features(nodes), self.features(at)
        path = at if path is None else path

        def faded(one: Tensor, other: Tensor) -> Tensor:
            return torch.exp(-fade * (one[..., :, None] - other[..., None, :]).abs())

        return _predicted(known @ known.mT * faded(nodes, nodes),
                          known @ wanted.mT * faded(nodes, path))  # fmt: skip

    def unpredicted(self, nodes: Tensor, at: Tensor) -> Tensor:
        r"""Return the features of $R$ at `at` less those of its best prediction, `(..., Q, r')`."""
        known, wanted = self.features(nodes), self.features(at)
        return wanted - _predicted(known @ known.mT, known @ wanted.mT) @ known

    @cached_property
    def _features(self) -> Tensor:
        """Return the columns of the factor and of the assumed cubic polynomial, `(K, r + 4)`."""
        position = 2 * (self.ell - self.ell[0]) / (self.ell[-1] - self.ell[0]) - 1
        powers = position[:, None] ** torch.arange(_DEGREE + 1)
        unseen, _ = torch.linalg.qr(powers)
        size = self.factor.square().sum().sqrt()
        if self.nfe == 0:
            # at little noise an assumed residual is at most about as large as the noise
            rho2 = torch.exp(-2 * self.ell)
            share = rho2 / (self.moments.mean_variance() + rho2)
            unseen = unseen * (share / share.mean()).sqrt()[:, None]
        return torch.cat((self.factor.T, self.unseen * size * unseen), 1)


def _predicted(gram: Tensor, cross: Tensor) -> Tensor:
    """Return the weights `(..., Q, m)` from covariances `(..., m, m)` and `(..., m, Q)`."""
    rounding = _ROUNDING * gram.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True) + 1e-300
    gram = gram + torch.diag_embed(rounding.expand(gram.shape[:-1]))
    weights: Tensor = torch.linalg.solve(gram, cross).mT
    return weights

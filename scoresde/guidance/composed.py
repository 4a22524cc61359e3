r"""Combine scores, each given one observation of $x_0$, into the score given all observations.

For independent observations $p(x_0 | y_1 \dots y_n) \propto p(x_0)^{1-n} \prod_i p(x_0 | y_i)$. The
distributions of the noisy state $x_t$ do not follow this product rule. For Gaussian distributions
(Linhart et al. 2024, *Diffusion posterior sampling for simulation-based inference in tall data
settings*, arXiv:2411.02728, section 3)

$$ s = \Lambda^{-1}\Big(\sum_i \Sigma_i^{-1} s_i - (n - 1)\,\Sigma_0^{-1} s_0\Big), \qquad
   \Lambda = \sum_i \Sigma_i^{-1} - (n - 1)\,\Sigma_0^{-1} $$

with $\Sigma_i = \mathrm{Cov}[x_0 | x_t, y_i]$ and $\Sigma_0 = \mathrm{Cov}[x_0 | x_t]$. For
Gaussian distributions $\Lambda \succeq \Sigma_0^{-1}$. For other distributions, or estimated
covariances, $\Lambda$ may have negative eigenvalues. So the smallest matrix $\Delta$ is added to
$\Lambda$ for which $\Lambda + \Delta \succeq \Sigma_0^{-1} / 10$, and $\Delta s_0$ is added to the
bracket.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from scoresde.attention import twice_differentiable
from scoresde.checks import as_numbers, door
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.guidance.between import check_alike
from scoresde.guidance.spread import deficit, gaussian_of, precision_of, square
from scoresde.score import Wrapped
from scoresde.sde import SDE, Condition, Facts, Moments, Score, facts, passes_of

__all__ = ["Composed", "compose"]


class Composed(Wrapped):
    """Compose scores that are each given one observation; `others` holds the score of the prior."""

    def __init__(self, score: Score, prior: Score, observations: Condition, sde: SDE) -> None:
        super().__init__(score, prior)
        self.observations = observations
        self.sde = sde

    def __len__(self) -> int:
        return len(next(iter(self.observations.values())))

    @abc.abstractmethod
    def combined(self, x: Tensor, t: Tensor, others: Condition | None) -> Tensor:
        """Return the score `(B, D)`, in float64."""

    def __call__(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the score `(B, *)`.

        Raises:
            InvalidValueError: The Jacobian of a score gives a covariance that is not positive
                definite.
        """
        others = None
        if condition is not None:
            others = Condition(condition).without(*self.observations)
        return self.combined(x, t, others).reshape(x.shape).to(x.dtype)

    @property
    def facts(self) -> Facts:
        """Return the facts of the score, without the conditions that are observed."""
        known = super().facts
        conditions = known.conditions
        if conditions is not None:
            conditions = {k: v for k, v in conditions.items() if k not in self.observations}
        return replace(known, passes=self._passes, conditions=conditions, density=False)

    def _passes(self, ratio: Tensor) -> int:
        """Return the network passes of a call at noise scales sigma / alpha."""
        return len(self) * passes_of(self.score, ratio) + passes_of(self.others[0], ratio)

    def given(self, i: int, x: Tensor, others: Condition | None) -> Condition:
        """Return the conditions of states `x` under observation i."""
        observed = {
            name: value[i].to(x.device).expand(len(x), *value.shape[1:])
            for name, value in self.observations.items()
        }
        return Condition({**(others or {}), **observed})

    def level(self, x: Tensor, t: Tensor) -> Tensor:
        r"""Return $\alpha^2/\sigma^2$, `(B, 1)` in float64."""
        snr = self.sde.log_snr(self.sde.cpu_time(t)).exp()
        return snr.to(x.device, torch.float64).expand(len(x))[:, None]


class ByGauss(Composed):
    r"""Compose with $\Sigma_i^{-1} = \mathrm{Cov}[x_0 | y_i]^{-1} + (\alpha^2/\sigma^2) I$."""

    def __init__(
        self,
        score: Score,
        prior: Score,
        observations: Condition,
        sde: SDE,
        moments: Sequence[Moments],
    ) -> None:
        super().__init__(score, prior, observations, sde)
        event = facts(score).event_shape
        first, *rest = (square(m, event) for m in moments)
        self.prior_precision = precision_of(first)
        self.precisions = [precision_of(cov) for cov in rest]
        root = torch.linalg.cholesky(first)
        back = torch.linalg.solve_triangular(root, torch.eye(len(root)).double(), upper=False)
        total = sum(self.precisions, (1 - len(rest)) * self.prior_precision)
        self.lack = back.T @ deficit(root.T @ total @ root) @ back
        self.total, self.axes = torch.linalg.eigh(total + self.lack)

    def combined(self, x: Tensor, t: Tensor, others: Condition | None) -> Tensor:
        """Return the score `(B, D)`, in float64."""
        snr, n = self.level(x, t), len(self)
        if math.prod(x.shape[1:]) != len(self.total):
            raise ShapeError(
                f"the moments are for events of {len(self.total)} dimensions, but x has events of "
                f"shape {tuple(x.shape[1:])}"
            )
        s = _rows(self.ask(self.others[0], x, t, others))
        weighted = (1 - n) * (s @ self.prior_precision.to(s) + snr * s) + s @ self.lack.to(s)
        for i, precision in enumerate(self.precisions):
            s = _rows(self.ask(self.score, x, t, self.given(i, x, others)))
            weighted = weighted + s @ precision.to(s) + snr * s
        axes = self.axes.to(s)
        found: Tensor = (weighted @ axes / (self.total.to(s) + snr)) @ axes.T
        return found


class ByJacobian(Composed):
    r"""Compose with $\Sigma_i = (\sigma^2/\alpha^2)(I + \sigma^2\,\partial s_i/\partial x)$.

    This is Tweedie's formula of second order (Efron 2011, doi:10.1198/jasa.2011.tm11181). It needs
    D products with the Jacobian of each score.
    """

    def combined(self, x: Tensor, t: Tensor, others: Condition | None) -> Tensor:
        """Return the score `(B, D)`, in float64."""
        n = len(self)
        s, first = self._spread(self.others[0], x, t, others)
        root = torch.linalg.cholesky(first)
        inverse = torch.linalg.solve_triangular(root, torch.eye(s.shape[1]).to(s), upper=False)
        # in coordinates in which the covariance without observations is the identity
        total = (1 - n) * torch.eye(s.shape[1]).to(s).expand_as(first)
        plain = inverse @ s[..., None]
        weighted = (1 - n) * plain
        for i in range(n):
            s, cov = self._spread(self.score, x, t, self.given(i, x, others))
            precision = root.mT @ torch.cholesky_inverse(torch.linalg.cholesky(cov)) @ root
            total = total + precision
            weighted = weighted + precision @ (inverse @ s[..., None])
        lack = deficit(total)
        found: Tensor = root @ torch.linalg.solve(total + lack, weighted + lack @ plain)
        return found[..., 0]

    def _spread(
        self, score: Score, x: Tensor, t: Tensor, condition: Condition | None
    ) -> tuple[Tensor, Tensor]:
        r"""Return the score `(B, D)` and $I + \sigma^2\,\partial s/\partial x$ `(B, D, D)`."""
        recording = torch.is_grad_enabled()
        with torch.enable_grad(), twice_differentiable(recording):
            at = x if recording and x.requires_grad else x.detach().requires_grad_()
            value = self.ask(score, at, t, condition).reshape(len(x), math.prod(x.shape[1:]))
            if not value.requires_grad:
                raise InvalidValueError(
                    "the score cannot be differentiated in x; remove no_grad and detach from it, "
                    "do not call it in torch.inference_mode, or take "
                    'covariance="gauss"'
                )
            lines = [
                torch.autograd.grad(
                    value[:, j].sum(), at, create_graph=recording, retain_graph=True,
                    materialize_grads=True,
                )[0].reshape(value.shape).double()
                for j in range(value.shape[1])
            ]  # fmt: skip
        jacobian = torch.stack(lines, 1)
        var = self.sde.sigma(self.sde.cpu_time(t)) ** 2
        var = var.to(jacobian).expand(len(x))[:, None, None]
        cov = torch.eye(jacobian.shape[1]).to(jacobian) + var * (jacobian + jacobian.mT) / 2
        if bool(torch.linalg.cholesky_ex(cov.detach()).info.any()):
            raise InvalidValueError(
                f"at t = {float(torch.as_tensor(t).flatten()[0]):.4g} the Jacobian is not that of "
                "the score of a density: Tweedie's covariance has an eigenvalue that is not "
                'positive; take covariance="gauss"'
            )
        return (value if recording else value.detach()).double(), cov


def _rows(x: Tensor) -> Tensor:
    """Return `(B, *)` as a matrix `(B, D)` in float64."""
    return x.reshape(len(x), math.prod(x.shape[1:])).double()


@door
def compose(
    score: Score,
    observations: Mapping[str, Any],
    covariance: Literal["gauss", "jacobian"] | Sequence[Moments] = "gauss",
    *,
    prior: Score | None = None,
) -> Wrapped:
    r"""Return the score of $p(x_0 | y_1 \dots y_n)$ from the score of $p(x_0 | y)$.

    The observations must be independent given $x_0$. The formula (`scoresde.guidance.composed`) is
    exact for Gaussian distributions, and an approximation for others. A call takes n + 1 network
    passes; `"jacobian"` also takes D backward passes for each of them, which are not counted.

    Args:
        score: A conditional score that was also trained with missing conditions.
        observations: A mapping from names to n rows, such as `{"y": y}` with `y` of shape
            `(n, *)`. The returned score does not take these conditions.
        covariance: The estimate of $\Sigma_i$ and $\Sigma_0$. `"gauss"` treats the prior and each
            posterior as Gaussian, with the moments of 512 draws that the probability flow makes
            once; events may have at most 256 dimensions. `"jacobian"` uses the Jacobian of the
            score at each state; it must be accurate, which the Jacobian of a network often is not
            at high noise. Or give a list of moments: first the moments of the prior, then the
            moments of the n posteriors.
        prior: The score without observations; by default `score` with these conditions missing.

    Raises:
        InvalidValueError: The score's facts have no SDE or no event shape, there are no
            observations, or `prior` belongs to another process.
        ShapeError, InvalidTypeError, UnknownNameError: The observations do not fit the score or
            have different numbers of rows, or the moments do not fit the observations.

    Examples:
        >>> import scoresde
        >>> model, moments = scoresde.load("mnist"), [Moments(-0.7, var=0.3)] * 3
        >>> scoresde.facts(compose(model, {"label": [3, 8]}, moments)).conditions
        {}
    """
    known = facts(score)
    if known.sde is None:
        raise InvalidValueError(
            "the covariances depend on the noise scale, but this score has no SDE in its facts; "
            "write it as a subclass of scoresde.Wrapped with `facts`"
        )
    rows = {name: as_numbers(f"observation {name!r}", v) for name, v in observations.items()}
    n = max((len(value) for value in rows.values() if value.ndim), default=0)
    given = Condition.of(rows, n, known.conditions)
    if given is None or n == 0:
        raise InvalidValueError(
            "there are no observations; give at least one row, such as {'y': y} with y of shape "
            "(n, *)"
        )
    for name, value in given.items():
        if value.shape != rows[name].shape:
            raise ShapeError(
                f"observation {name!r} needs as many rows as the other observations, of shape "
                f"{tuple(value.shape[1:])}; got {tuple(rows[name].shape)}"
            )
    free = score if prior is None else prior
    check_alike(score, free, "the prior")
    if isinstance(covariance, str):
        if covariance == "jacobian":
            return ByJacobian(score, free, given, known.sde)
        each = [given.rows([i]) for i in range(n)]
        covariance = [gaussian_of(free), *(gaussian_of(score, one) for one in each)]
    if len(covariance) != n + 1:
        raise ShapeError(
            f"{n} observations need {n + 1} moments, the prior's moments first, got "
            f"{len(covariance)}"
        )
    return ByGauss(score, free, given, known.sde, covariance)

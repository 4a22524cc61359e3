r"""The abstract SDE: a Gaussian perturbation kernel from which everything else follows.

$$ p(x_t \mid x_0) = \mathcal N(\alpha_t x_0, \sigma_t^2 I), \qquad dx = f(t) x\,dt + g(t)\,dw $$

on $[0, T]$, with $f = \frac{d}{dt}\log\alpha$ and $g^2 = \frac{d\sigma^2}{dt} - 2 f \sigma^2$
(Song et al. 2021, arXiv:2011.13456, section 3; Kingma et al. 2021, arXiv:2107.00630). A subclass
gives `alpha` and `sigma`; drift, diffusion, the transition between any two times, the prior and
the time grids are derived here, and may be overridden by closed forms.

Schedules are computed on the CPU in float64 and cast once, to the dtype of the state.
"""

from __future__ import annotations

import abc
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from scoresde.checks import (
    as_numbers,
    check_fields,
    check_generator,
    check_has,
    check_integer,
    quoted,
)
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.sde import laws, spacings
from scoresde.sde.moments import Moments
from scoresde.sde.shapes import expand

if TYPE_CHECKING:
    from scoresde.sde.condition import Condition
    from scoresde.sde.facts import Score
    from scoresde.sde.reverse import ReverseSDE

__all__ = ["SDE"]


@dataclass(frozen=True, kw_only=True)
class SDE(abc.ABC):
    r"""A linear SDE $dx = f(t) x\,dt + g(t)\,dw$ with kernel $N(\alpha_t x_0, \sigma_t^2 I)$.

    Times are floats or tensors `()` or `(B,)` in `[0, T]`; states are `(B, *)` of any rank.

    Args:
        T: The last time; $\alpha_T$ should be at least 1e-3, since samplers divide by it.
        eps: The smallest time trained on and sampled down to, in `[0, T)`.
        levels: `None` for continuous time; `L` keeps only the times `linspace(eps, T, L)`.

    Raises:
        InvalidValueError: A field has an impossible value.
    """

    T: float = 1.0
    eps: float = 1e-3
    levels: int | None = None

    spacing: ClassVar[spacings.Spacing] = spacings.Uniform()
    time_law: ClassVar[laws.TimeLaw] = laws.Uniform()

    def __post_init__(self) -> None:
        check_fields(self, finite=True)
        if not 0 <= self.eps < self.T:
            raise InvalidValueError(f"need 0 <= eps < T, got eps = {self.eps}, T = {self.T}")
        if self.levels is not None and (not isinstance(self.levels, int) or self.levels < 2):
            raise InvalidValueError(f"levels must be an integer >= 2 or None, got {self.levels!r}")

    @abc.abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        r"""The signal scale $\alpha_t > 0$; any shape in, the same shape out."""

    @abc.abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        r"""The noise scale $\sigma_t \ge 0$; any shape in, the same shape out."""

    # Times and states

    def as_time(self, t: Tensor | float | Sequence[float]) -> Tensor:
        """Return times as a float64 tensor on the CPU, `()` or `(B,)`, checked to lie in [0, T].

        Raises:
            InvalidTypeError: `t` is no number and no tensor.
            InvalidValueError: A time lies outside.
        """
        # dtype is given at once, since a Python float alone would become a float32
        t = as_numbers("a time", t, dtype=torch.float64, device="cpu")
        last = self.T * (1 + 1e-6)  # a time that was rounded to float32 may stand just above T
        if not (0 <= t.item() <= last if t.ndim == 0 else ((t >= 0) & (t <= last)).all()):
            raise InvalidValueError(f"time must lie in [0, {self.T}], got {quoted(t)}")
        return t

    def at(self, t: Tensor | float, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $\alpha_t$ and $\sigma_t$ in the dtype of `x`, ready to multiply it.

        Args:
            t: Times `()` or `(B,)`.
            x: A state `(B, *)`.
        """
        t = self.as_time(t)
        return expand(self.alpha(t), x), expand(self.sigma(t), x)

    def same_process(self, other: SDE) -> bool:
        r"""Return True if another SDE is the same process, though maybe of another class.

        It is if T agrees, and $\alpha$ and $\sigma$ agree to $10^{-6}$ at 33 times of the common
        part of $[\epsilon, T]$, or at the levels of those that have levels.
        """
        if self is other or self == other:
            return True
        if not math.isclose(self.T, other.T, rel_tol=1e-9):
            return False
        times = torch.linspace(max(self.eps, other.eps), self.T, 33, dtype=torch.float64)
        ladders = [sde.times() for sde in (self, other) if sde.levels is not None]
        for t in ladders or [times]:
            t = t[t >= times[0] - 1e-9 * self.T]
            for name in ("alpha", "sigma"):
                own, its = getattr(self, name)(t), getattr(other, name)(t)
                if not torch.allclose(own, its, rtol=1e-6, atol=0.0):
                    return False
        return True

    # The kernel and the process

    def marginal(self, x0: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        r"""Mean $\alpha_t x_0$ and std $\sigma_t$ of $p(x_t | x_0)$, both ready for `(B, *)`."""
        alpha, sigma = self.at(t, x0)
        return alpha * x0, sigma

    def perturb(self, x0: Tensor, t: Tensor | float, noise: Tensor) -> Tensor:
        r"""A draw $x_t = \alpha_t x_0 + \sigma_t z$ of $p(x_t | x_0)$ with `noise` for z."""
        if noise.shape != x0.shape:
            raise ShapeError(
                f"noise must have the shape of x0, {tuple(x0.shape)}; got {tuple(noise.shape)}"
            )
        mean, std = self.marginal(x0, t)
        return mean + std * noise

    def transition(self, s: Tensor | float, t: Tensor | float) -> tuple[Tensor, Tensor]:
        r"""Scale $a$ and variance $v$ of $p(x_t | x_s) = N(a x_s, v I)$ for $s \le t$, in float64.

        $$ a = \alpha_t / \alpha_s, \qquad
           v = -\sigma_t^2 \operatorname{expm1}(\lambda_t - \lambda_s) $$

        with $\lambda$ the log signal-to-noise ratio; $(1, 0)$ at $s = t$. No difference of squares
        is taken, so it composes over intermediate times to rounding.

        Raises:
            InvalidValueError: `s > t` somewhere, or the signal-to-noise ratio rises from s to t.
        """
        s, t = self.as_time(s), self.as_time(t)
        if (s > t).any():
            raise InvalidValueError(f"transition goes forward: need s <= t, got s = {s}, t = {t}")
        same = s == t
        rise = (self.log_snr(t) - self.log_snr(s)).masked_fill(same, 0.0)
        # rounding may lift the ratio between two neighbouring times, a schedule may not
        if not (rise <= 1e-9).all():
            raise InvalidValueError(self._not_a_diffusion(t))
        a = self.alpha(t) / self.alpha(s)
        v = -(self.sigma(t) ** 2) * torch.expm1(rise.clamp(max=0))
        return torch.where(same, 1.0, a), torch.where(same, 0.0, v)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""$f = \frac{d}{dt}\log\alpha$ and $g^2 = \frac{d\sigma^2}{dt} - 2 f\sigma^2$ by autograd.

        Any shape in, the same shape out; override with closed forms where they are known.
        """
        with torch.enable_grad():
            u = t.detach().clone().requires_grad_()
            # 0 * u keeps a constant alpha or sigma in the graph
            log_alpha, var = self.alpha(u).log() + 0 * u, self.sigma(u) ** 2 + 0 * u
            (f,) = torch.autograd.grad(log_alpha.sum(), u)
            (dvar,) = torch.autograd.grad(var.sum(), u)
        return f, dvar - 2 * f * var.detach()

    def drift(self, x: Tensor, t: Tensor | float) -> Tensor:
        r"""$f(t)\,x$, of the shape of `x`."""
        f, _ = self._finite_coefficients(t)
        return expand(f, x) * x

    def diffusion(self, t: Tensor | float) -> Tensor:
        r"""$g(t)$, of the shape of `t`, in float64."""
        _, g2 = self._finite_coefficients(t)
        return g2.sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        r"""$\lambda_t = \log(\alpha_t^2 / \sigma_t^2)$, decreasing in `t`; any shape."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time(self, log_snr: Tensor) -> Tensor:
        r"""The time at which $\lambda_t$ has this value: the inverse of `log_snr`, by bisection."""
        target = log_snr.to(torch.float64)
        low, high = torch.zeros_like(target), torch.full_like(target, self.T)
        for _ in range(64):
            middle = (low + high) / 2
            later = self.log_snr(middle) > target
            low, high = torch.where(later, middle, low), torch.where(later, high, middle)
        return (low + high) / 2

    # The prior

    @property
    def prior_mean(self) -> float:
        """Mean of the prior at `T`, where nothing is known of the data."""
        return 0.0

    @property
    def prior_std(self) -> float:
        r"""$\sigma_T$, the prior's standard deviation where nothing is known of the data."""
        return float(self.sigma(torch.tensor(self.T, dtype=torch.float64)))

    def prior(self, moments: Moments | None = None) -> Moments:
        r"""The Gaussian that stands for $p_T$.

        With the data's moments it is $\mathcal N(\alpha_T \mu, \alpha_T^2 \Sigma + \sigma_T^2 I)$,
        the best Gaussian there is; without them $\mathcal N(0, \text{prior\_std}^2 I)$.
        """
        if moments is None:
            return Moments(self.prior_mean, var=self.prior_std**2)
        end = torch.tensor(self.T, dtype=torch.float64)
        return moments.at(self.alpha(end), self.sigma(end))

    def prior_sample(
        self,
        shape: Sequence[int],
        *,
        n: int = 1,
        moments: Moments | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """`n` draws of the prior, `(n, *shape)`; `shape` is one event's."""
        z = torch.randn(n, *shape, generator=generator, dtype=dtype, device=device)
        return self.prior(moments).sample(z)

    def prior_log_prob(self, z: Tensor, *, moments: Moments | None = None) -> Tensor:
        """Log-density of the prior at `z` of shape `(B, *)`; returns `(B,)` in nats."""
        return self.prior(moments).log_prob(z)

    def prior_mismatch(self, mean: Tensor, var: Tensor | float) -> float:
        r"""The Wasserstein-2 distance from $p_T$, to second order, to the prior of unknown data.

        $$ W_2^2 = \|\alpha_T \mu - \mu_\text{prior}\|^2
           + \sum_j \big(\sqrt{\alpha_T^2 v_j + \sigma_T^2} - \sigma_\text{prior}\big)^2 $$

        Args:
            mean: The data's mean, of one event's shape.
            var: The data's variance, a number or per dimension.
        """
        end = torch.tensor(self.T, dtype=torch.float64)
        alpha, sigma = self.alpha(end), self.sigma(end)
        mean = mean.double()
        var = torch.as_tensor(var, dtype=torch.float64).expand_as(mean)
        # the difference of the two standard deviations, without their cancellation
        gap = (alpha**2 * var + sigma**2 - self.prior_std**2) / (
            (alpha**2 * var + sigma**2).sqrt() + self.prior_std
        )
        return float(((alpha * mean - self.prior_mean) ** 2 + gap**2).sum().sqrt())

    # Time grids

    def times(
        self, steps: int | None = None, *, spacing: spacings.Spacing | str | None = None
    ) -> Tensor:
        """The grid `(steps + 1,)` from `T` down to `eps`, in float64, both ends exact.

        Args:
            steps: The number of steps; `None` is every level of an SDE with levels.
            spacing: How the times are spaced, an object or a name of
                `scoresde.sde.spacings.SPACINGS`; `None` is this SDE's own. An SDE with levels
                has its levels and no other times.

        Raises:
            InvalidValueError: `steps` is missing, below 1, or more than the levels allow.
        """
        if steps is not None:
            if isinstance(steps, bool) or not hasattr(steps, "__index__"):
                raise InvalidTypeError(f"steps must be an integer, got {steps!r}")
            steps = operator.index(steps)
            if steps < 1:
                raise InvalidValueError(f"steps must be at least 1, got {steps}")
        if self.levels is not None:
            if spacing is not None:
                raise InvalidValueError(
                    f"spacing={spacing!r} has no meaning for an SDE with levels={self.levels}, "
                    "whose times are its levels; leave spacing out"
                )
            steps = self.levels - 1 if steps is None else steps
            if steps > self.levels - 1:
                raise InvalidValueError(
                    f"{steps} steps need {steps + 1} levels, but this SDE has "
                    f"levels={self.levels}; use at most {self.levels - 1} steps, or more levels"
                )
            grid = torch.linspace(self.eps, self.T, self.levels, dtype=torch.float64)
            t = grid[spacings.ladder(self.levels, steps)]
        elif steps is None:
            raise InvalidValueError("a continuous SDE needs the number of steps: times(steps)")
        else:
            return spacings.spaced(self, steps, self.spacing if spacing is None else spacing)
        t[0], t[-1] = self.T, self.eps
        return t

    def index(self, t: Tensor | float) -> Tensor:
        """The level nearest to `t`, 0 at `eps` and `levels - 1` at `T`; int64 of the shape of `t`.

        Raises:
            InvalidValueError: The SDE has no levels.
        """
        if self.levels is None:
            raise InvalidValueError(f"{type(self).__name__} is continuous: it has no levels")
        position = (self.as_time(t) - self.eps) / (self.T - self.eps) * (self.levels - 1)
        return position.round().long().clamp(0, self.levels - 1)

    def sample_times(
        self,
        n: int,
        *,
        law: laws.TimeLaw | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Times `(n,)` to train at, and their importance weights `(n,)`, in float64.

        Args:
            n: How many.
            law: Their law; `None` is this SDE's own.
            generator: Source of randomness, on the CPU; `None` is torch's global one.
            device: Where the results go.
        """
        check_integer("the number of times", n, 0)
        law = self.time_law if law is None else law
        check_has("law", law, "__call__", "a law of times such as Uniform()")
        check_generator(generator)
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        t, weight = law(self, u)
        return t.to(device), weight.to(device)

    def reverse(
        self,
        score: Score,
        *,
        moments: Moments | None = None,
        condition: Condition | None = None,
        check_finite: bool = True,
    ) -> ReverseSDE:
        """The reverse-time SDE under `score`: what samplers receive. See `ReverseSDE`."""
        from scoresde.sde.reverse import ReverseSDE

        return ReverseSDE(
            self, score, moments=moments, condition=condition, check_finite=check_finite
        )

    def _finite_coefficients(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        t = self.as_time(t)
        f, g2 = self.coefficients(t)
        if not (f.isfinite() & g2.isfinite()).all():
            raise InvalidValueError(
                f"the drift or diffusion of {type(self).__name__} is singular at t = {t}; "
                f"stay within [eps, T] = [{self.eps}, {self.T}]"
            )
        if (g2 < 0).any():
            raise InvalidValueError(self._not_a_diffusion(t))
        return f, g2

    def _not_a_diffusion(self, t: Tensor) -> str:
        return (
            f"the signal-to-noise ratio alpha / sigma of {type(self).__name__} must fall in time, "
            f"but does not at t = {t}: no process has this kernel; correct alpha or sigma"
        )

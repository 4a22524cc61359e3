r"""The abstract SDE: a Gaussian perturbation kernel from which everything else follows.

$$ p(x_t \mid x_0) = \mathcal N(\alpha_t x_0, \sigma_t^2 I), \qquad dx = f(t) x\,dt + g(t)\,dw $$

on $[0, T]$, with $f = \frac{d}{dt}\log\alpha$ and $g^2 = \frac{d\sigma^2}{dt} - 2 f \sigma^2$
(Song et al. 2021, arXiv:2011.13456, section 3; Kingma et al. 2021, arXiv:2107.00630). A subclass
gives `alpha` and `sigma`; drift, diffusion, the transition between any two times, the prior and
the time grids are derived here, and may be overridden by closed forms, which are compared with the
derived ones when an SDE is made.

Schedules are computed on the CPU in float64 and cast once, to the dtype of the state.
"""

from __future__ import annotations

import abc
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

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
from scoresde.sde.closed_forms import check_closed_forms
from scoresde.sde.moments import Moments
from scoresde.sde.shapes import expand

if TYPE_CHECKING:
    from scoresde.sde.condition import Condition
    from scoresde.sde.facts import Score
    from scoresde.sde.reverse import ReverseSDE

__all__ = ["SDE"]

S = TypeVar("S")


class _Checked(abc.ABCMeta):
    """Compare the closed forms of an SDE with the derived ones once it is made, subclasses' too."""

    def __call__(cls: type[S], *args: Any, **kwargs: Any) -> S:
        made: S = super().__call__(*args, **kwargs)  # type: ignore[misc]
        check_closed_forms(made, SDE)  # type: ignore[arg-type]
        return made


@dataclass(frozen=True, kw_only=True)
class SDE(metaclass=_Checked):
    r"""Define the SDE $dx = f(t) x\,dt + g(t)\,dw$ by its kernel $N(\alpha_t x_0, \sigma_t^2 I)$.

    A subclass is a frozen dataclass with two methods, `alpha` and `sigma`. Times are floats or
    tensors `()` or `(B,)` in `[0, T]`; states are `(B, *)` of any rank.

    Args:
        T: The last time; $\alpha_T$ should be at least 1e-3, since samplers divide by it.
        eps: The smallest time trained on and sampled down to, in `[0, T)`.
        levels: `None` for continuous time; `L` keeps only the times `linspace(eps, T, L)`.

    Raises:
        InvalidTypeError: A field is of another type.
        InvalidValueError: A field has an impossible value, or a closed form is not that of `alpha`
            and `sigma`.
        ShapeError: `alpha` or `sigma` returns no tensor of the shape of its argument.

    Examples:
        >>> @dataclass(frozen=True)
        ... class Linear(SDE):
        ...     def alpha(self, t):
        ...         return 1 - 0.9 * t
        ...
        ...     def sigma(self, t):
        ...         return t.sqrt()
        >>> a, v = Linear().transition(0.25, 0.75)
        >>> print(f"x_t = {a:.4f} x_s + {v.sqrt():.4f} z")
        x_t = 0.4194 x_s + 0.8403 z
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
        if self.levels is not None:
            levels = self.levels
            if isinstance(levels, bool) or not hasattr(levels, "__index__") or levels < 2:
                raise InvalidValueError(
                    f"levels must be an integer >= 2 or None, got {quoted(levels)}"
                )
            object.__setattr__(self, "levels", operator.index(levels))

    @abc.abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        r"""Return the signal scale $\alpha_t > 0$; any shape in, the same shape out."""

    @abc.abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        r"""Return the noise scale $\sigma_t \ge 0$; any shape in, the same shape out."""

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
            outside = _first(t, ~((t >= 0) & (t <= last)))
            raise InvalidValueError(f"time must lie in [0, {self.T}], got {outside}")
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

        It is if T agrees, and $\alpha$ and $\sigma$ agree to $10^{-6}$ relative: at 33 times of the
        common part of $[\epsilon, T]$, or, where either has levels, at all of those. So `levels`
        and `eps` may differ: a score of `VESDE(levels=30)` serves `VESDE` and the equal ladder.

        Args:
            other: Another SDE.
        """
        if self is other:
            return True
        if not math.isclose(self.T, other.T, rel_tol=1e-9):
            return False
        grids = [sde.times() for sde in (self, other) if sde.levels is not None]
        if not grids:
            grids = [torch.linspace(max(self.eps, other.eps), self.T, 33, dtype=torch.float64)]
        t = torch.cat(grids).clamp(max=min(self.T, other.T))
        return all(
            _agree(getattr(self, name)(t), getattr(other, name)(t)) for name in ("alpha", "sigma")
        )

    # The kernel and the process

    def marginal(self, x0: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        r"""Return the mean $\alpha_t x_0$ and the std $\sigma_t$ of $p(x_t | x_0)$, like `x0`."""
        alpha, sigma = self.at(t, x0)
        return alpha * x0, sigma

    def perturb(self, x0: Tensor, t: Tensor | float, noise: Tensor) -> Tensor:
        r"""Return a draw $x_t = \alpha_t x_0 + \sigma_t z$ of $p(x_t | x_0)$ with `noise` for z."""
        if noise.shape != x0.shape:
            raise ShapeError(
                f"noise must have the shape of x0, {tuple(x0.shape)}; got {tuple(noise.shape)}"
            )
        mean, std = self.marginal(x0, t)
        return mean + std * noise

    def transition(self, s: Tensor | float, t: Tensor | float) -> tuple[Tensor, Tensor]:
        r"""Return the scale $a$ and variance $v$ of $p(x_t | x_s) = N(a x_s, v I)$, in float64.

        $$ a = \alpha_t / \alpha_s, \qquad
           v = -\sigma_t^2 \operatorname{expm1}(\lambda_t - \lambda_s) $$

        with $s \le t$ and $\lambda$ the log signal-to-noise ratio; $(1, 0)$ at $s = t$. No
        difference of squares is taken, so it composes over intermediate times to rounding.

        Raises:
            InvalidValueError: `s > t` somewhere, or the signal-to-noise ratio rises from s to t.
        """
        s, t = self.as_time(s), self.as_time(t)
        if (late := s > t).any():
            raise InvalidValueError(
                "transition goes forward: need s <= t, "
                f"got s = {_first(s, late)}, t = {_first(t, late)}"
            )
        same = s == t
        rise = (self.log_snr(t) - self.log_snr(s)).masked_fill(same, 0.0)
        # rounding may lift the ratio between two neighbouring times, a schedule may not
        if not (rise <= 1e-9).all():
            raise InvalidValueError(self._not_a_diffusion(_first(t, ~(rise <= 1e-9))))
        a = self.alpha(t) / self.alpha(s)
        v = -(self.sigma(t) ** 2) * torch.expm1(rise.clamp(max=0))
        return torch.where(same, 1.0, a), torch.where(same, 0.0, v)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f = \frac{d}{dt}\log\alpha$ and $g^2 = \frac{d\sigma^2}{dt} - 2 f\sigma^2$.

        Any shape in, the same shape out. By autograd here; override it with closed forms where
        they are known, and where `alpha` or `sigma` is no function of torch's.

        Raises:
            InvalidValueError: Autograd cannot differentiate `alpha` or `sigma`.
        """
        with torch.inference_mode(False), torch.enable_grad():
            u = t.detach().clone().requires_grad_()
            alpha, sigma = self._traced("alpha", u), self._traced("sigma", u)
            log_alpha, var = alpha.log(), sigma**2
            (f,) = torch.autograd.grad(log_alpha.sum(), u)
            (dvar,) = torch.autograd.grad(var.sum(), u)
        return f, dvar - 2 * f * var.detach()

    def drift(self, x: Tensor, t: Tensor | float) -> Tensor:
        r"""Return $f(t)\,x$, of the shape of `x`."""
        f, _ = self._finite_coefficients(t)
        return expand(f, x) * x

    def diffusion(self, t: Tensor | float) -> Tensor:
        r"""Return $g(t)$, of the shape of `t`, in float64."""
        _, g2 = self._finite_coefficients(t)
        return g2.sqrt()

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return $\lambda_t = \log(\alpha_t^2 / \sigma_t^2)$, decreasing in `t`; any shape."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time(self, log_snr: Tensor) -> Tensor:
        r"""Return the time at which $\lambda_t$ has this value: the inverse of `log_snr`.

        By bisection here.
        """
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
        """Return the mean of the prior where nothing is known of the data."""
        return 0.0

    @property
    def prior_std(self) -> float:
        r"""Return $\sigma_T$, the prior's standard deviation where nothing is known of the data."""
        return float(self.sigma(torch.tensor(self.T, dtype=torch.float64)))

    def prior(self, moments: Moments | None = None) -> Moments:
        r"""Return the Gaussian that stands for $p_T$.

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
        """Return `n` draws of the prior, `(n, *shape)`; `shape` is one event's."""
        z = torch.randn(n, *shape, generator=generator, dtype=dtype, device=device)
        return self.prior(moments).sample(z)

    def prior_log_prob(self, z: Tensor, *, moments: Moments | None = None) -> Tensor:
        """Return the log-density `(B,)` of the prior at `z` of shape `(B, *)`, in nats."""
        return self.prior(moments).log_prob(z)

    def prior_mismatch(self, mean: Tensor, var: Tensor | float) -> float:
        r"""Return the Wasserstein-2 distance from $p_T$ to the prior that knows no moments.

        To second order, of data with this mean and variance:

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
        """Return the grid `(steps + 1,)` from `T` down to `eps`, in float64, both ends exact.

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
                raise InvalidTypeError(f"steps must be an integer, got {quoted(steps)}")
            steps = operator.index(steps)
            if steps < 1:
                raise InvalidValueError(f"steps must be at least 1, got {steps}")
        if self.levels is not None:
            if spacing is not None:
                raise InvalidValueError(
                    f"spacing={quoted(spacing)} has no meaning for an SDE with "
                    f"levels={self.levels}, whose times are its levels; leave spacing out"
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
        """Return the level nearest to `t`, 0 at `eps`, `levels - 1` at `T`; int64, shaped like `t`.

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
        """Return times `(n,)` to train at, and their importance weights `(n,)`, in float64.

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
        """Return the reverse-time SDE under `score`, which samplers receive.

        Args:
            score: A score `(x, t)` or `(x, t, condition)`.
            moments: The data's moments, where known.
            condition: The condition of the samples, handed to the score.
            check_finite: Whether a NaN or an infinity from the score is an error.
        """
        from scoresde.sde.reverse import ReverseSDE

        return ReverseSDE(
            self, score, moments=moments, condition=condition, check_finite=check_finite
        )

    def _traced(self, name: str, u: Tensor) -> Tensor:
        """Return alpha or sigma with its graph, in which a constant has the derivative 0."""
        value: Tensor = getattr(self, name)(u)
        if not value.requires_grad:
            first, last = getattr(self, name)(u.new_tensor([self.eps, self.T]))
            if first != last:
                raise InvalidValueError(
                    f"autograd cannot differentiate {name} of {type(self).__name__}, from which "
                    "the drift and diffusion follow; write it with torch's functions of t, or "
                    "override coefficients"
                )
        return value + 0 * u

    def _finite_coefficients(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return f and the square of g at checked times, where both are those of a process."""
        t = self.as_time(t)
        f, g2 = self.coefficients(t)
        if (bad := ~(f.isfinite() & g2.isfinite())).any():
            raise InvalidValueError(
                f"the drift or diffusion of {type(self).__name__} is singular at "
                f"t = {_first(t, bad)}; stay within [eps, T] = [{self.eps}, {self.T}]"
            )
        if (g2 < 0).any():
            raise InvalidValueError(self._not_a_diffusion(_first(t, g2 < 0)))
        return f, g2

    def _not_a_diffusion(self, t: float) -> str:
        return (
            f"the signal-to-noise ratio alpha / sigma of {type(self).__name__} must fall in time, "
            f"but does not at t = {t}: no process has this kernel; correct alpha or sigma"
        )


def _first(t: Tensor, bad: Tensor) -> float:
    """Return the first of the times, `()` or of the shape of `bad`, at which `bad` is true."""
    return float(t.expand_as(bad)[bad][0])


def _agree(a: Tensor, b: Tensor) -> bool:
    """Return True if values are equal, or differ by at most 1e-6 of the larger."""
    near = (a - b).abs() <= 1e-6 * torch.maximum(a.abs(), b.abs())
    return bool((near | (a == b)).all())

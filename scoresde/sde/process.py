r"""Define the abstract SDE: a perturbation kernel with its prior, time grids and reversal.

A subclass gives `alpha` and `sigma`, from which `scoresde.sde.kernel` derives the process. It may
override derived methods by closed forms, which the constructor compares with the derived values.
"""

from __future__ import annotations

import abc
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor

from scoresde.checks import (
    as_event,
    check_finite,
    check_floating,
    check_integer,
    door,
    in_memory,
    named_device,
    quoted,
)
from scoresde.errors import InvalidValueError
from scoresde.precision import full_precision
from scoresde.sde import spacings, time_laws
from scoresde.sde.closed_forms import check_closed_forms
from scoresde.sde.kernel import Kernel
from scoresde.sde.moments import Moments

if TYPE_CHECKING:
    from scoresde.sde.condition import Condition
    from scoresde.sde.reverse import ReverseSDE
    from scoresde.sde.score import Score

__all__ = ["SDE"]

S = TypeVar("S")

_MOST = 10**7  # the largest number of steps of a grid, since all its times are held in memory


class _Checked(abc.ABCMeta):
    """Compare the closed forms of an SDE with the derived ones whenever an SDE is made."""

    def __call__(cls: type[S], *args: Any, **kwargs: Any) -> S:
        with full_precision():
            made: S = super().__call__(*args, **kwargs)  # type: ignore[misc]
            check_closed_forms(made, SDE)  # type: ignore[arg-type]
        return made


@dataclass(frozen=True, kw_only=True)
class SDE(Kernel, metaclass=_Checked):
    r"""Define the SDE $dx = f(t) x\,dt + g(t)\,dw$ by its kernel $N(\alpha_t x_0, \sigma_t^2 I)$.

    A subclass is a frozen dataclass with two methods, `alpha` and `sigma`. Times are floats or
    tensors `()` or `(B,)` in `[0, T]`; states are `(B, *)` of any rank.

    Args:
        T: The last time; $\sigma_T / \alpha_T$ should be at most 1,000, since samplers divide by
            $\alpha_T$.
        eps: The smallest time trained on and sampled down to, in `[0, T)`.
        levels: `None` for continuous time; `L` keeps only the times `linspace(eps, T, L)`.

    Raises:
        InvalidTypeError: A field is of another type.
        InvalidValueError: A field is out of range, or a closed form disagrees with `alpha` and
            `sigma`.
        ShapeError: The result of `alpha` or `sigma` has another shape than its argument.

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

    spacing: ClassVar[spacings.Spacing] = spacings.EqualSteps()
    time_law: ClassVar[time_laws.TimeLaw] = time_laws.Uniform()

    def same_process(self, other: SDE) -> bool:
        r"""Return True if another SDE, of any class, is the same process.

        The processes are the same if T agrees, and $\alpha$ and $\sigma$ agree to a relative
        $10^{-6}$ at the levels of either SDE; without levels, at 33 times in $[\epsilon, T]$ with
        the larger $\epsilon$. `levels` and `eps` may differ, so a score for `VESDE(levels=30)` can
        be used with `VESDE` and with the equal `NCSNLadder`.

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

    # The prior

    @property
    def prior_mean(self) -> float:
        """Return the mean of the prior if no moments are known."""
        return 0.0

    @property
    def prior_std(self) -> float:
        r"""Return $\sigma_T$, the standard deviation of the prior if no moments are known."""
        return float(self.sigma(torch.tensor(self.T, dtype=torch.float64)))

    @door
    def prior(self, moments: Moments | None = None) -> Moments:
        r"""Return the Gaussian that approximates $p_T$.

        With the data's moments it is $\mathcal N(\alpha_T \mu, \alpha_T^2 \Sigma + \sigma_T^2 I)$,
        which has the moments of $p_T$; without them $\mathcal N(0, \text{prior\_std}^2 I)$.
        """
        if moments is None:
            return Moments(self.prior_mean, var=self.prior_std**2)
        end = torch.tensor(self.T, dtype=torch.float64)
        return moments.at(self.alpha(end), self.sigma(end))

    @door
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
        """Return `n` draws of the prior, `(n, *shape)`; `shape` is the shape of one sample.

        Raises:
            InvalidTypeError: An argument has another type, or `dtype` is not a floating-point one.
            InvalidValueError: `n` or a side of the shape is negative.
            ShapeError: The moments belong to events of another shape.
            DeviceError: The device cannot be used.
            MemoryLimitError: The draws do not fit into memory.
        """
        size = check_integer("n", n, 0), *as_event("shape", shape)
        prior = self.prior(moments)
        prior.check_event(torch.empty(0, *size[1:]))
        if dtype is not None:
            check_floating("dtype", dtype)
        if device is not None:
            device = named_device(device)
        elif generator is not None:
            device = generator.device
        with in_memory(f"{size[0]} draws of shape {size[1:]} do not fit into memory; draw fewer"):
            z = torch.randn(size, generator=generator, dtype=dtype, device=device)
            return prior.sample(z)

    @door
    def prior_log_prob(self, z: Tensor, *, moments: Moments | None = None) -> Tensor:
        """Return the log-density `(B,)` of the prior at `z` of shape `(B, *)`, in nats.

        Raises:
            ScoreSDEError: As `Moments.log_prob` does.
        """
        return self.prior(moments).log_prob(z)

    @door
    def prior_mismatch(self, mean: Tensor, var: Tensor | float) -> float:
        r"""Return the Wasserstein-2 distance from $p_T$ to the prior without moments.

        The data are assumed to be Gaussian with this mean and independent entries:

        $$ W_2^2 = \|\alpha_T \mu - \mu_\text{prior}\|^2
           + \sum_j \big(\sqrt{\alpha_T^2 v_j + \sigma_T^2} - \sigma_\text{prior}\big)^2 $$

        Args:
            mean: The data's mean, of the shape of one event.
            var: The data's variance, a number or one per dimension.

        Raises:
            InvalidTypeError, InvalidValueError: The mean or variance is not a number or is not
                finite, or the variance is negative.
            ShapeError: The variance is not a number and has another shape than the mean.
        """
        Moments(mean, var=var).check_event(mean[None])
        end = torch.tensor(self.T, dtype=torch.float64)
        alpha, sigma = self.alpha(end), self.sigma(end)
        mean = mean.double()
        var = torch.as_tensor(var, dtype=torch.float64).expand_as(mean)
        # the difference of the two standard deviations, in a form without cancellation
        gap = (alpha**2 * var + sigma**2 - self.prior_std**2) / (
            (alpha**2 * var + sigma**2).sqrt() + self.prior_std
        )
        return float(((alpha * mean - self.prior_mean) ** 2 + gap**2).sum().sqrt())

    # Time grids

    @door
    def times(
        self, steps: int | None = None, *, spacing: Callable[..., Tensor] | str | None = None
    ) -> Tensor:
        """Return the grid `(steps + 1,)` from `T` down to `eps`, in float64, both ends exact.

        Args:
            steps: The number of steps; `None` takes every level of an SDE with levels.
            spacing: The spacing of the times, an object or a name in
                `scoresde.sde.spacings.SPACINGS`; `None` takes this SDE's default. An SDE with
                levels takes no spacing, since its times are its levels.

        Raises:
            InvalidValueError: `steps` is missing for a continuous SDE, is not in [1, 10,000,000],
                or is more than the levels allow; a spacing is given for an SDE with levels; or the
                spacing does not give decreasing times.
            UnknownNameError: There is no spacing of this name.
        """
        if steps is not None:
            steps = operator.index(steps)
            if not 1 <= steps <= _MOST:
                raise InvalidValueError(f"steps must lie in [1, {_MOST:,}], got {steps:,}")
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
            InvalidValueError: The SDE has no levels, or a time lies outside [0, T].
        """
        if self.levels is None:
            raise InvalidValueError(f"{type(self).__name__} is continuous: it has no levels")
        position = (self.as_time(t) - self.eps) / (self.T - self.eps) * (self.levels - 1)
        return position.round().long().clamp(0, self.levels - 1)

    @door
    def sample_times(
        self,
        n: int,
        *,
        law: time_laws.TimeLaw | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return random training times `(n,)` and their importance weights `(n,)`, in float64.

        Args:
            n: The number of times.
            law: The distribution of the times; `None` takes this SDE's default.
            generator: A generator on the CPU; `None` takes torch's global one.
            device: The device of the results.
        """
        check_integer("the number of times", n, 0)
        law = self.time_law if law is None else law
        device = None if device is None else named_device(device)
        u = torch.rand(n, generator=generator, dtype=torch.float64)
        t, weight = law(self, u)
        self.as_time(t)
        check_finite("the weights of a law of times", weight)
        return t.to(device), weight.to(device)

    def reverse(
        self,
        score: Score,
        *,
        moments: Moments | None = None,
        condition: Condition | None = None,
        check_finite: bool = True,
        withheld: Sequence[str] = (),
    ) -> ReverseSDE:
        """Return the reverse-time SDE with this score, the object on which samplers work.

        Args:
            score: A score `(x, t)` or `(x, t, condition)`.
            moments: The data's moments, where known.
            condition: The condition of the samples, passed to the score.
            check_finite: Raise an error if the score returns a NaN or an infinity.
            withheld: The names of conditions that only the sampler uses and the score does not get.
        """
        from scoresde.sde.reverse import ReverseSDE

        return ReverseSDE(
            self, score, moments=moments, condition=condition, check_finite=check_finite,
            withheld=withheld,
        )  # fmt: skip


def _agree(a: Tensor, b: Tensor) -> bool:
    """Return True if all values are equal or differ by at most 1e-6 of the larger."""
    near = (a - b).abs() <= 1e-6 * torch.maximum(a.abs(), b.abs())
    return bool((near | (a == b)).all())

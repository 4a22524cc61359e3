r"""Compare an SDE's closed forms with those derived from its $\alpha$ and $\sigma$.

A subclass may override the derived `METHODS` for speed. A subclass that changes only `alpha` and
inherits the old closed forms would give wrong samples without an error. Therefore the constructor
of an SDE compares every overridden method with the derived one at seven times between `eps` and
`T`. Only the prior without moments may differ, since it may assume a variance of the data, such as
1 for a VP SDE.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scoresde.checks import quoted
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.sde.moments import Moments

if TYPE_CHECKING:
    from scoresde.sde.process import SDE

__all__ = ["METHODS", "check_closed_forms", "of_shape", "two_of_shape"]

METHODS = (
    "coefficients", "drift", "diffusion", "log_snr", "time", "transition", "at", "marginal",
    "perturb",
)  # fmt: skip
"""The methods of an SDE that follow from `alpha` and `sigma`."""
_OTHERS = ("prior_std", "prior", "times")
# The largest variance of data that an overridden prior may assume.
_LARGEST_VARIANCE = 1e4
# Positions in [eps, T], denser near eps. They are irrational, so that none lies on a level of a
# ladder, where the slope of an interpolated table jumps.
_SHARES = ((torch.arange(7, dtype=torch.float64) + 0.5**0.5) / 7) ** 3
_TOLERANCE = 1e-6


def check_closed_forms(sde: SDE, base: type[Any]) -> None:
    r"""Raise unless the overridden methods of an SDE agree with its `alpha` and `sigma`.

    The relative tolerance is $10^{-6}$, plus the rounding error of $\sigma^2 = 1 - \alpha^2$ where
    $\alpha$ or $\sigma$ is tiny. If autograd cannot differentiate `alpha` and `sigma`, `drift` and
    `diffusion` are compared with `coefficients`, and `coefficients` is not checked.

    Args:
        sde: An SDE.
        base: The class whose methods are the derived ones.

    Raises:
        InvalidValueError: A method disagrees with `alpha` and `sigma`, or no SDE has this `alpha`
            and `sigma`.
        InvalidTypeError: A value is not a tensor of floating point numbers.
        ShapeError: The result of `alpha`, `sigma` or a method has another shape than its argument.
    """
    names = (*METHODS, *_OTHERS)
    overridden = [name for name in names if getattr(type(sde), name) is not getattr(base, name)]
    with torch.inference_mode(False), torch.no_grad():
        comparison = _Comparison(sde, base)
        comparison.check_kernel()
        for name in overridden:
            getattr(comparison, name)()


def of_shape(sde: SDE, name: str, value: Any, t: Tensor) -> Tensor:
    """Return what a method of an SDE returned; raise unless it is a tensor of the shape of `t`."""
    if getattr(value, "shape", None) != t.shape:
        raise ShapeError(
            f"{name} of {type(sde).__name__} must return a tensor of the shape of its argument, "
            f"{tuple(t.shape)}, got {quoted(value)}"
        )
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise InvalidTypeError(
            f"{name} of {type(sde).__name__} must return a floating-point tensor, since its "
            f"argument is float64; got {quoted(value)}"
        )
    return value


def two_of_shape(sde: SDE, name: str, values: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two results of a method; raise unless both are tensors of the shape of `t`."""
    if not isinstance(values, tuple) or len(values) != 2:
        raise ShapeError(
            f"{name} of {type(sde).__name__} must return two tensors of the shape of its argument, "
            f"got {quoted(values)}"
        )
    return of_shape(sde, name, values[0], t), of_shape(sde, name, values[1], t)


class _Comparison:
    """Compare each method of an SDE with the derived method, in a comparison of the same name."""

    def __init__(self, sde: SDE, base: type[Any]) -> None:
        self.sde, self.base = sde, base
        self.t = sde.eps + (sde.T - sde.eps) * _SHARES
        self.variance = self.shaped("sigma", sde.sigma(self.t)) ** 2
        self.alpha2 = self.shaped("alpha", sde.alpha(self.t)) ** 2

    def check_kernel(self) -> None:
        """Raise unless alpha and sigma are finite and at least 0 and their ratio never rises."""
        for name in ("alpha", "sigma"):
            value = getattr(self.sde, name)(self.t)
            if (bad := ~((value >= 0) & (value**2).isfinite())).any():
                i = int(bad.nonzero()[0])
                raise InvalidValueError(
                    f"{name} of {type(self.sde).__name__} must be positive and have a finite "
                    f"square, but it is {float(value[i]):.6g} at t = {float(self.t[i]):.6g}"
                )
        # if sigma is 0 at both times, the difference is NaN, and this comparison accepts a NaN
        rises = self.known_log_snr.diff() > _TOLERANCE + self.rounding[1:] + self.rounding[:-1]
        if rises.any():
            t = float(self.t[1:][rises][0])
            raise InvalidValueError(self.sde._not_a_diffusion(t))

    @cached_property
    def known_log_snr(self) -> Tensor:
        """Return the derived log-SNR."""
        return self.alpha2.log() - self.variance.log()

    @cached_property
    def rounding(self) -> Tensor:
        r"""Return the relative rounding error of the smaller of $\alpha^2$ and $1 - \alpha^2$."""
        return 1e-15 * (self.alpha2 / self.variance + self.variance / self.alpha2)

    @cached_property
    def derivatives(self) -> tuple[Tensor, Tensor] | None:
        r"""Return the derived $f$ and $g^2$, or None where autograd cannot differentiate."""
        try:
            known: tuple[Tensor, Tensor] = self.base.coefficients(self.sde, self.t)
        except InvalidValueError:
            return None
        return known

    def coefficients(self) -> None:
        """Compare f and the square of g with the derivatives of alpha and sigma."""
        name = "coefficients"
        f, g2 = two_of_shape(self.sde, name, self.sde.coefficients(self.t), self.t)
        if self.derivatives is not None:
            drift, diffusion = self.derivatives
            self.compare(name, "f", f, drift, 1e-9 / self.sde.T)
            self.compare(name, "g^2", g2, diffusion, 1e-12 * drift.abs() * self.variance)

    def drift(self) -> None:
        """Compare the drift of a state with f times the state."""
        f, _ = self.derivatives or self.sde.coefficients(self.t)
        given = self.sde.drift(torch.full_like(self.t, 2.0), self.t)
        self.compare("drift", "f x at x = 2", given, 2 * f, 1e-9 / self.sde.T)

    def diffusion(self) -> None:
        """Compare the diffusion with the root of the square of g."""
        _, g2 = self.derivatives or self.sde.coefficients(self.t)
        self.compare("diffusion", "g", self.sde.diffusion(self.t), g2.sqrt(), 0.0)

    def log_snr(self) -> None:
        """Compare the log-SNR with the log-SNR computed from alpha and sigma."""
        given = self.sde.log_snr(self.t)
        self.compare("log_snr", "log_snr(t)", given, self.known_log_snr, _TOLERANCE)

    def time(self) -> None:
        """Compare the time of each log-SNR with the time at which it was computed."""
        given = self.shaped("time", self.sde.time(self.known_log_snr))
        # if the log-SNR hardly falls, different times have the same rounded log-SNR; so compare the
        # log-SNRs of the two times as well
        again = 2 * (self.sde.alpha(given).log() - self.sde.sigma(given).log())
        near = _TOLERANCE * self.known_log_snr.abs().clamp(min=1) + self.rounding
        vague = (again - self.known_log_snr).abs() <= near
        known = self.t.where(~vague & self.known_log_snr.isfinite(), math.nan)
        self.compare("time", "time(log_snr(t))", given, known, 0.0)

    def transition(self) -> None:
        """Compare the transition from each time to the next."""
        s, t = self.t.roll(1), self.t
        s[0] = self.t[0]
        a, v = two_of_shape(self.sde, "transition", self.sde.transition(s, t), t)
        known_a, known_v = self.base.transition(self.sde, s, t)
        self.compare("transition", "a", a, known_a, 0.0)
        rounding = (1e-12 + self.rounding) * self.variance
        self.compare("transition", "v", v, known_v, rounding)

    def at(self) -> None:
        """Compare the two factors that `at` returns with alpha and sigma."""
        given = two_of_shape(self.sde, "at", self.sde.at(self.t, torch.ones_like(self.t)), self.t)
        self.compare("at", "alpha", given[0], self.alpha2.sqrt(), 0.0)
        self.compare("at", "sigma", given[1], self.variance.sqrt(), 0.0)

    def marginal(self) -> None:
        """Compare mean and standard deviation of the kernel for x_0 = 2 with 2 alpha and sigma."""
        values = self.sde.marginal(torch.full_like(self.t, 2.0), self.t)
        mean, std = two_of_shape(self.sde, "marginal", values, self.t)
        self.compare("marginal", "the mean at x0 = 2", mean, 2 * self.alpha2.sqrt(), 0.0)
        self.compare("marginal", "sigma", std, self.variance.sqrt(), 0.0)

    def perturb(self) -> None:
        """Compare a draw of the kernel for x_0 = 2 and the noise z = 3 with alpha x_0 + sigma z."""
        x, z = torch.full_like(self.t, 2.0), torch.full_like(self.t, 3.0)
        known = 2 * self.alpha2.sqrt() + 3 * self.variance.sqrt()
        self.compare("perturb", "x0 = 2 with noise 3", self.sde.perturb(x, self.t, z), known, 0.0)

    def prior_std(self) -> None:
        """Raise unless `prior_std` is the std at T of data with some variance from 0 to 1e4."""
        alpha2, variance = self._at_end()
        given = float(self.sde.prior_std) ** 2
        least, most = (
            variance * (1 - _TOLERANCE),
            variance * (1 + _TOLERANCE) + _LARGEST_VARIANCE * alpha2,
        )
        if not least <= given <= most:
            raise InvalidValueError(
                f"prior_std of {type(self.sde).__name__} is not the std of any data at T: it is "
                f"{given**0.5:.6g} where sigma(T) = {variance**0.5:.6g} and alpha(T) = "
                f"{alpha2**0.5:.3g}; leave it out, or let it be sqrt(alpha(T)^2 v + sigma(T)^2) "
                "for data of variance v"
            )

    def prior(self) -> None:
        """Compare `prior()` with prior_mean and prior_std, `prior(moments)` with alpha, sigma."""
        alpha2, variance = self._at_end()
        for moments, mean, var in (
            (None, float(self.sde.prior_mean), float(self.sde.prior_std) ** 2),
            (Moments(1.0, var=2.0), alpha2**0.5, 2 * alpha2 + variance),
        ):
            given = self.sde.prior(moments)
            if not isinstance(given, Moments):
                raise InvalidTypeError(
                    f"prior of {type(self.sde).__name__} must return Moments, got {quoted(given)}"
                )
            gap = abs(float(given.mean) - mean), abs(given.mean_variance() - var)
            if not (gap[0] <= _TOLERANCE * var**0.5 and gap[1] <= _TOLERANCE * var):
                raise InvalidValueError(
                    f"prior of {type(self.sde).__name__} disagrees with its alpha and sigma: for "
                    f"moments={moments} it returns {given}, but alpha and sigma give the mean "
                    f"{mean:.8g} and the variance {var:.8g}; override both, or neither"
                )

    def times(self) -> None:
        """Raise unless the grid of four steps, or of all levels, falls from T to eps."""
        sde, steps = self.sde, 4 if self.sde.levels is None else self.sde.levels - 1
        grid: Any = sde.times(steps)
        name = f"times of {type(sde).__name__}"
        if not isinstance(grid, Tensor) or grid.dtype != torch.float64:
            raise InvalidTypeError(f"{name} must return a float64 tensor, got {quoted(grid)}")
        if grid.shape != (steps + 1,):
            raise ShapeError(
                f"{name} must return {steps + 1} times for {steps} steps, got {tuple(grid.shape)}"
            )
        if not (grid.diff() < 0).all() or float(grid[0]) != sde.T or float(grid[-1]) != sde.eps:
            raise InvalidValueError(
                f"{name} must go down from T = {sde.T} to eps = {sde.eps}, both exact; got "
                f"{quoted(grid)}"
            )

    def _at_end(self) -> tuple[float, float]:
        """Return the squares of alpha and sigma at T."""
        end = self.t.new_tensor(self.sde.T)
        return float(self.sde.alpha(end)) ** 2, float(self.sde.sigma(end)) ** 2

    def shaped(self, name: str, value: Any) -> Tensor:
        """Return the value of a method, checked to be a tensor `(N,)`."""
        return of_shape(self.sde, name, value, self.t)

    def compare(
        self, name: str, what: str, given: Tensor, known: Tensor, rounding: Tensor | float
    ) -> None:
        """Raise unless a method's values equal the derived ones, up to the tolerance."""
        gap = (self.shaped(name, given) - known).abs()
        judged = known.isfinite() & (self.rounding < 1e-3)
        bad = judged & ~(gap <= (_TOLERANCE + self.rounding) * known.abs() + rounding)
        if bad.any():
            i = int(bad.nonzero()[0])
            raise InvalidValueError(
                f"{name} of {type(self.sde).__name__} disagrees with its alpha and sigma: at t = "
                f"{float(self.t[i]):.6g} it gives {what} = {float(given[i]):.8g}, but alpha and "
                f"sigma give {float(known[i]):.8g}; override both, or neither"
            )

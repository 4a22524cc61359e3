r"""Derive an SDE from its Gaussian perturbation kernel.

$$ p(x_t \mid x_0) = \mathcal N(\alpha_t x_0, \sigma_t^2 I), \qquad dx = f(t) x\,dt + g(t)\,dw $$

on $[0, T]$, with $f = \frac{d}{dt}\log\alpha$ and $g^2 = \frac{d\sigma^2}{dt} - 2 f \sigma^2$
(Song et al. 2021, arXiv:2011.13456, section 3; Kingma et al. 2021, arXiv:2107.00630). A subclass
gives `alpha` and `sigma`; drift, diffusion and the transition between any two times are derived
here. Schedules are computed on the CPU in float64 and cast once, to the dtype of the state.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.checks import as_numbers, check_fields, check_integer, unreadable
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.sde.cpu_times import cpu_time_of, per_sample
from scoresde.sde.shapes import expand

__all__ = ["Kernel"]


@dataclass(frozen=True, kw_only=True)
class Kernel(abc.ABC):
    r"""Derive drift, diffusion and transitions from `alpha` and `sigma`: the base of `SDE`.

    Examples:
        >>> from scoresde.sde import VPSDE
        >>> a, v = VPSDE().transition(0.2, 0.7)
        >>> print(f"{a**2 + v:.6f}")  # the variance of standard normal data is preserved
        1.000000
    """

    T: float = 1.0
    eps: float = 1e-3
    levels: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, finite=True)
        if not 0 <= self.eps < self.T:
            raise InvalidValueError(f"need 0 <= eps < T, got eps = {self.eps}, T = {self.T}")
        if self.levels is not None:
            object.__setattr__(self, "levels", check_integer("levels", self.levels, 2))

    @abc.abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        r"""Return the signal scale $\alpha_t > 0$, of the shape of `t`, which may be any."""

    @abc.abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        r"""Return the noise scale $\sigma_t \ge 0$, of the shape of `t`, which may be any."""

    # Times and states

    def as_time(self, t: Tensor | float | Sequence[float]) -> Tensor:
        """Return times as a float64 CPU tensor of their shape; raise unless they lie in [0, T].

        A time up to $10^{-6} T$ above T is accepted, since it may be T rounded to float32.

        Raises:
            InvalidTypeError: `t` is not a number, a tensor or a sequence of numbers.
            InvalidValueError: A time lies outside [0, T].
        """
        time = self.cpu_time(t)
        return time.expand(t.shape) if isinstance(t, Tensor) else time

    def cpu_time(self, t: Tensor | float | Sequence[float]) -> Tensor:
        """Return times as `as_time` does, but as `()` if `t` was made from a single time.

        A score calls this on the times that it receives from `ReverseSDE`, which keeps a CPU copy
        of them (`scoresde.sde.cpu_times`). So nothing is read back from a device. In a graph of
        `torch.compile` or `torch.export` and under `torch.func.vmap`, where the values of times
        cannot be read, a time outside [0, T] becomes NaN.
        """
        # with dtype, since torch would convert a Python float to float32
        known = cpu_time_of(t)
        t = as_numbers("a time", t, dtype=torch.float64, device="cpu") if known is None else known
        last = self.T * (1 + 1e-6)
        if unreadable(t):
            return torch.where((t >= 0) & (t <= last), t, torch.nan)
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
        time = self.cpu_time(t)
        pair = self.alpha(time), self.sigma(time)
        if time.ndim < getattr(t, "ndim", 0):  # `t` is `(1,)`, but the coefficients must be `(B,)`
            pair = per_sample(pair[0], x, x.dtype), per_sample(pair[1], x, x.dtype)
        return expand(pair[0], x), expand(pair[1], x)

    # The kernel and the process

    def marginal(self, x0: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
        r"""Return mean $\alpha_t x_0$ and std $\sigma_t$ of $p(x_t | x_0)$, in `x0`'s dtype."""
        alpha, sigma = self.at(t, x0)
        return alpha * x0, sigma

    def perturb(self, x0: Tensor, t: Tensor | float, noise: Tensor) -> Tensor:
        r"""Return a draw $x_t = \alpha_t x_0 + \sigma_t z$ of $p(x_t | x_0)$ with `noise` for z."""
        mean, std = self.marginal(x0, t)
        if noise.shape != x0.shape:
            raise ShapeError(
                f"noise must have the shape of x0, {tuple(x0.shape)}; got {tuple(noise.shape)}"
            )
        return mean + std * noise

    def transition(self, s: Tensor | float, t: Tensor | float) -> tuple[Tensor, Tensor]:
        r"""Return the scale $a$ and variance $v$ of $p(x_t | x_s) = N(a x_s, v I)$, in float64.

        $$ a = \alpha_t / \alpha_s, \qquad
           v = -\sigma_t^2 \operatorname{expm1}(\lambda_t - \lambda_s) $$

        with $s \le t$ and $\lambda$ the log signal-to-noise ratio; $(1, 0)$ at $s = t$. This form
        takes no difference of squares, so transitions over intermediate times compose up to
        rounding.

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
        # between two close times, rounding alone may raise the ratio by this much
        if not (rise <= 1e-9).all():
            raise InvalidValueError(self._not_a_diffusion(_first(t, ~(rise <= 1e-9))))
        a = self.alpha(t) / self.alpha(s)
        v = -(self.sigma(t) ** 2) * torch.expm1(rise.clamp(max=0))
        return torch.where(same, 1.0, a), torch.where(same, 0.0, v)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f = \frac{d}{dt}\log\alpha$ and $g^2 = \frac{d\sigma^2}{dt} - 2 f\sigma^2$.

        Both have the shape of `t`. This method uses autograd. Override it if closed forms are
        known, or if torch cannot differentiate `alpha` or `sigma`.

        Raises:
            InvalidValueError: Autograd cannot differentiate `alpha` or `sigma`.
        """
        try:
            with torch.inference_mode(False), torch.enable_grad():
                u = t.detach().clone().requires_grad_()
                alpha, sigma = self._traced("alpha", u), self._traced("sigma", u)
                log_alpha, var = alpha.log(), sigma**2
                (f,) = torch.autograd.grad(log_alpha.sum(), u)
                (dvar,) = torch.autograd.grad(var.sum(), u)
        except RuntimeError as error:  # as from u.numpy()
            raise self._not_differentiable("alpha or sigma") from error
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
        r"""Return $\lambda_t = \log(\alpha_t^2 / \sigma_t^2)$, decreasing in `t`, of its shape."""
        return 2 * (self.alpha(t).log() - self.sigma(t).log())

    def time(self, log_snr: Tensor) -> Tensor:
        r"""Return the time at which $\lambda_t$ has this value, the inverse of `log_snr`.

        This method bisects in [0, T], and returns 0 or T for values that no time there has.
        Override it with a closed form.
        """
        target = log_snr.to(torch.float64)
        low, high = torch.zeros_like(target), torch.full_like(target, self.T)
        for _ in range(64):
            middle = (low + high) / 2
            later = self.log_snr(middle) > target
            low, high = torch.where(later, middle, low), torch.where(later, high, middle)
        return (low + high) / 2

    def _traced(self, name: str, u: Tensor) -> Tensor:
        """Return alpha or sigma at `u` with an autograd graph, also if it is constant in time."""
        value: Tensor = getattr(self, name)(u)
        if not value.requires_grad:
            first, last = getattr(self, name)(u.new_tensor([self.eps, self.T]))
            if first != last:
                raise self._not_differentiable(name)
        return value + 0 * u

    def _not_differentiable(self, name: str) -> InvalidValueError:
        return InvalidValueError(
            f"autograd cannot differentiate {name} of {type(self).__name__}, which the drift and "
            "diffusion need; write it with torch functions of t, or override coefficients"
        )

    def _finite_coefficients(self, t: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return f and g^2 at checked times; raise unless both are finite and g^2 >= 0."""
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
            f"the signal-to-noise ratio alpha / sigma of {type(self).__name__} must fall with t, "
            f"but rises at t = {t}, and no diffusion has such a kernel; correct alpha or sigma"
        )


def _first(t: Tensor, bad: Tensor) -> float:
    """Return the first time at which `bad` is true; `t` is `()` or has the shape of `bad`."""
    return float(t.expand_as(bad)[bad][0])

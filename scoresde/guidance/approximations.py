r"""Approximate $\nabla \log p(y \mid x_t)$, the score of a measurement given a noisy state.

The score gives $\hat x = E[x_0 | x_t]$ and $V = \mathrm{Cov}[x_0 | x_t] = \frac{\sigma^2}{\alpha^2}
(I + \sigma^2\,\partial s/\partial
x)$ (Efron 2011). Each approximation replaces the denoised state $\hat x$ by $\hat x + w$. If $x_0 |
x_t$ were $N(\hat x, V)$, $w$ would be the Kalman update

$$ w = V A^T u, \qquad (A V A^T + \Sigma)\,u = y - A \hat x, $$

and the score changes by $\alpha w / \sigma^2$. This is exact for Gaussian data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.attention import twice_differentiable
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.guidance.krylov import column, dot, solve
from scoresde.guidance.linear import Linear

__all__ = ["OF_A_FUNCTION", "OF_LINEAR", "Denoised", "LogLikelihood", "Update"]

# The largest number of products with A A^T, which cost no network pass.
_PRODUCTS = 50
# The log-likelihood of a row is computed alone and within a batch. A relative difference of up to
# this number can be rounding in float32.
_ROUNDING = 1e-3
# The largest number of iterations that search for the length of a step.
_HALVINGS = 20


@dataclass(frozen=True, eq=False)
class Denoised:
    r"""Hold the moments of $x_0$ given $x_t$ that follow from the score.

    Attributes:
        x0: $\hat x = E[x_0 | x_t]$, `(B, *event)`.
        spread: The function that multiplies by $V$; one product costs a backward pass of the
            network.
        var: $v$, the variance of an entry of $x_0$ given $x_t$, for data $N(0, c I)$.
        guess: The function that multiplies by the $V$ of Gaussian data with the known moments,
            without a network pass.
    """

    x0: Tensor
    spread: Callable[[Tensor], Tensor]
    var: Tensor
    guess: Callable[[Tensor], Tensor]


class Update(NamedTuple):
    r"""Hold the shift of the denoised state that a measurement causes.

    Attributes:
        w: The shift, `(B, *event)`.
        log_likelihood: $\log p(y | x_t)$ up to a function of t, `(B,)`.
        residual: The relative residual of the linear system, `(B,)`; None if no system is solved.
    """

    w: Tensor
    log_likelihood: Tensor
    residual: Tensor | None = None


def mmps(measured: Linear, y: Tensor, at: Denoised, iterations: int) -> Update:
    r"""Match moments with $V$ from the score's Jacobian (Rozet et al. 2024, arXiv:2405.13712).

    The preconditioner is the same system with `guess` in place of $V$, which costs no network pass.
    The $V$ of a network may have negative eigenvalues, and then the solution can be arbitrarily
    large. So $w$ is shortened to the maximum of the likelihood along $w$, and the log-likelihood is
    limited to the range between its values for $V = 0$ and for $V = \infty$. If $V$ is a
    covariance, these limits do not change the result.
    """
    r = measured.gap(y, at.x0)
    found = measured.solved(r, at.spread, at.x0, ~y.isnan(), iterations, at.guess)
    unit, variance = measured.unit(r), measured.variance(r)
    change = torch.where(y.isnan(), 0.0, measured.slope(found.w)) / unit
    w = _bounded(found.w, dot(r / unit, change), dot(change, change))
    least = -torch.where(variance > 0, (r / unit) ** 2, math.inf).flatten(1).sum(1) / 2
    return Update(w, (-dot(r, found.u) / 2).clamp(max=0).maximum(least), found.residual)


def pigdm(measured: Linear, y: Tensor, at: Denoised, iterations: int) -> Update:
    r"""Match moments with $V = v I$ ($\Pi$GDM, Song et al. 2023)."""
    r = measured.gap(y, at.x0)
    var = column(at.var.to(r), at.x0)
    found = measured.solved(r, lambda v: var * v, at.x0, ~y.isnan(), _PRODUCTS)
    w = at.spread(measured.adjoint(found.u, at.x0))
    return Update(w, -dot(r, found.u) / 2, found.residual)


def dps(measured: Linear, y: Tensor, at: Denoised, iterations: int) -> Update:
    r"""Use the likelihood of $\hat x$, that is $V = 0$ (DPS, Chung et al. 2023).

    $w$ is shortened to the maximum of the likelihood along $w$.
    """
    r = measured.gap(y, at.x0)
    u = r / measured.variance(r)
    w = at.spread(measured.adjoint(u, at.x0))
    change = torch.where(y.isnan(), 0.0, measured.slope(w))
    return Update(_bounded(w, dot(r, change), dot(change, change)), -dot(r, u) / 2)


# Any likelihood


@dataclass(frozen=True, eq=False)
class LogLikelihood:
    """Expand a log-likelihood `(y, x0) -> (B,)` to second order in `x0`.

    Args:
        function: The log-likelihood. Autograd must be able to differentiate it in `x0`, and for
            `laplace` (the method "mmps") or with `grad=True` a second time.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    # holds True after the values for a batch have been compared with the values for single rows
    seen: list[bool] = field(default_factory=list, repr=False)

    def at(self, y: Tensor, x0: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        """Return the value `(B,)`, the gradient, and the product with minus the Hessian."""
        recording = torch.is_grad_enabled()
        with torch.enable_grad(), twice_differentiable(True):
            at = x0 if recording and x0.requires_grad else x0.detach().requires_grad_()
            value = self._value(y, at)
            (g,) = torch.autograd.grad(value.sum(), at, create_graph=True)

        def bend(v: Tensor) -> Tensor:
            if not g.requires_grad:  # the log-likelihood is affine
                return torch.zeros_like(v)
            (found,) = torch.autograd.grad(
                g, at, v, create_graph=recording, retain_graph=True, materialize_grads=True
            )
            return -found

        return (value, g, bend) if recording else (value.detach(), g.detach(), bend)

    def _value(self, y: Tensor, x0: Tensor) -> Tensor:
        value = self.function(y, x0)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise InvalidTypeError(
                f"a log-likelihood must return a tensor (B,) of real numbers, got {got}"
            )
        if value.shape != x0.shape[:1]:
            raise ShapeError(
                f"a log-likelihood must return one number for each sample, ({len(x0)},), got "
                f"{tuple(value.shape)}; sum over the measurement"
            )
        if not value.requires_grad:
            raise InvalidValueError(
                "the log-likelihood cannot be differentiated in x0; write it in torch, without "
                "detach or no_grad"
            )
        if len(x0) > 1 and not self.seen:
            self.seen.append(True)
            self._check_rows(y[:2], x0.detach()[:2])
        return value

    def _check_rows(self, y: Tensor, x0: Tensor) -> None:
        """Raise InvalidValueError if the value of a sample depends on other samples."""
        draw = torch.Generator().manual_seed(0)
        x = x0 + torch.randn(x0.shape, generator=draw, dtype=torch.float64, device="cpu").to(x0)
        with torch.no_grad():
            alone, beside = self.function(y[:1], x[:1])[0], self.function(y, x)[0]
        # a NaN raises an error elsewhere
        if (alone - beside).abs() > _ROUNDING * (1 + beside.abs()):
            raise InvalidValueError(
                "the log-likelihood of a sample depends on the other samples of the batch, or on "
                "random numbers; compute each value from its own row"
            )


def laplace(likelihood: LogLikelihood, y: Tensor, at: Denoised, iterations: int) -> Update:
    r"""Match moments with a log-likelihood expanded to second order about $\hat x$.

    Let $g$ be the gradient and $H$ the negative Hessian of the log-likelihood. The solution $w$ of
    $(I + V H)\,w = V g$ is a step of Newton's method. It is shortened to the maximum of
    $p(y | \hat x + c w)\,N(c w; 0, V)$ over $0 \le c \le 1$. For `Linear` measurements the result
    is that of `mmps`, with one more backward pass.
    """
    value, g, bend = likelihood.at(y, at.x0)
    start = at.spread(g)
    found = solve(start, lambda p: (p, p + at.spread(bend(p))), iterations)
    w = found.w
    # w^T V^-1 w, without another network pass; it is negative only if V is not a covariance
    share = _share(likelihood, y, at.x0, w, dot(g - bend(w), w).clamp(min=0))
    w = column(share, w) * w
    return Update(w, value + dot(g, w).clamp(min=0) / 2, found.residual)


def plain(likelihood: LogLikelihood, y: Tensor, at: Denoised, iterations: int) -> Update:
    r"""Use the likelihood of $\hat x$ (DPS), with $w$ shortened to its maximum along $w$."""
    value, g, _ = likelihood.at(y, at.x0)
    w = at.spread(g)
    share = _share(likelihood, y, at.x0, w, torch.zeros_like(value))
    return Update(column(share, w) * w, value)


def _share(
    likelihood: LogLikelihood, y: Tensor, x0: Tensor, w: Tensor, stiffness: Tensor
) -> Tensor:
    r"""Return the fraction $c$ of a step that maximises $\log p(y | \hat x + c w) - c^2 k / 2$.

    Args:
        likelihood: The log-likelihood.
        y: The measurement.
        x0: $\hat x$.
        w: The step.
        stiffness: $k$, `(B,)`.

    Returns:
        Numbers in [0, 1], `(B,)`.
    """

    def slope(c: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return the derivative in c, and the product with minus the Hessian."""
        _, g, bend = likelihood.at(y, x0 + column(c, w) * w)
        return dot(g, w) - c * stiffness, bend

    low, high = torch.zeros_like(stiffness), torch.ones_like(stiffness)
    with torch.no_grad():
        for i in range(_HALVINGS):
            # try the whole step first, since it is usually the result
            middle = high if i == 0 else (low + high) / 2
            rises = slope(middle)[0] > 0
            low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
    if not torch.is_grad_enabled():
        return low
    rise, bend = slope(low)  # one more step of Newton's method, through which gradients go
    bent = (dot(w, bend(w)) + stiffness).detach().clamp(min=1e-30)
    return torch.where(low < 1, low + rise / bent, low)


def _bounded(w: Tensor, gain: Tensor, bend: Tensor) -> Tensor:
    r"""Shorten a step to the maximum of a quadratic log-likelihood along the step.

    A longer step would decrease the likelihood of $\hat x + w$. The full step grows as the noise of
    the measurement decreases, and would make samplers with few steps unstable.

    Args:
        w: The step.
        gain: The first derivative of the log-likelihood along the step, `(B,)`.
        bend: Minus the second derivative along the step, `(B,)`.
    """
    share = torch.where(bend > 0, gain / torch.where(bend > 0, bend, 1.0), 1.0).clamp(0, 1)
    return column(share, w) * w


Approximation = Callable[..., Update]

OF_LINEAR: Mapping[str, Approximation] = MappingProxyType(
    {"mmps": mmps, "pigdm": pigdm, "dps": dps}
)
"""The approximations for `Linear` measurements by name."""

OF_A_FUNCTION: Mapping[str, Approximation] = MappingProxyType({"mmps": laplace, "dps": plain})
"""The approximations for other log-likelihoods by name."""

r"""Compute the kernel of an SDE from its drift and diffusion, by quadrature.

With $F_t = \int_0^t f$ the kernel of $dx = f(t) x\,dt + g(t)\,dw$ is

$$ \alpha_t = e^{F_t}, \qquad
   \sigma_t^2 = \alpha_t^2 \Big(\sigma_0^2 + \int_0^t \frac{g^2}{\alpha^2}\Big)
              = e^{2 F_t} \sigma_0^2 + \int_0^t g_s^2\, e^{2 (F_t - F_s)}\,ds. $$

$[0, T]$ is cut into panels whose lengths halve towards both ends. A panel is halved if its integral
differs from the sum of the integrals over two parts of it. The weights of Gauss-Legendre quadrature
are positive, so $\sigma^2$ is a sum of positive terms and keeps its relative precision where it is
small; the last form of $\sigma^2$ cannot overflow.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_range
from scoresde.errors import InvalidValueError
from scoresde.quadrature import NODES, gauss_legendre, lagrange_integrals
from scoresde.sde.closed_forms import two_of_shape
from scoresde.sde.process import SDE

__all__ = ["ItoSDE"]

_GRADED = 24  # the number of times that the first panels are halved towards each end of [0, T]
# the length of the smallest panel at 0, relative to T; elsewhere float64 limits the length
_DEEPEST = 2.0**-1000
_MAX_PANELS = 4096
_TOLERANCE = 1e-12  # the error of a panel, absolute in log alpha and relative in sigma^2
_HALVES = 0.5 ** torch.arange(1, 25, dtype=torch.float64)
_ROWS = 4096  # the number of times that are computed at once, which bounds the memory


def _running_integrals() -> Tensor:
    """Return the matrix `(Q, Q)` that integrates values at the nodes of [0, 1] up to each node."""
    zero = torch.zeros(1, 1, dtype=torch.float64)
    nodes, _ = gauss_legendre(zero, zero + 1)
    return lagrange_integrals(nodes.expand(NODES, NODES), zero.expand(NODES, 1)[:, 0], nodes[0])


_RUNNING = _running_integrals()


class _Kernel(torch.autograd.Function):
    r"""Return $F_t$ and $\sigma_t^2$, with the derivatives $f$ and $2 f \sigma^2 + g^2$."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, sde: ItoSDE) -> tuple[Tensor, Tensor]:
        r"""Compute $F_t$ and $\sigma_t^2$ by quadrature, of the shape of `t` in float64."""
        ctx.save_for_backward(t)
        ctx.sde = sde
        return sde._by_panels(t)

    @staticmethod
    def backward(ctx: Any, by_f: Tensor, by_variance: Tensor) -> tuple[Tensor, None]:
        """Multiply by the derivatives; second derivatives need differentiable coefficients."""
        (t,) = ctx.saved_tensors
        f, g2 = ctx.sde.coefficients(t)
        _, variance = _Kernel.apply(t, ctx.sde)
        return by_f * f + by_variance * (2 * f * variance + g2), None


@dataclass(frozen=True)
class ItoSDE(SDE):
    r"""Define an SDE by its drift $f(t) x$ and diffusion $g(t)$; $\alpha$ and $\sigma$ follow.

    A subclass is a frozen dataclass with a method `coefficients`, a smooth function that computes
    in float64, the dtype of its argument. The relative error of $\alpha$ and $\sigma$ is at most
    $10^{-10}$ on $[\epsilon, T]$.

    Args:
        sigma0: $\sigma$ at time 0, such as `sigma_min` of `VESDE`.

    Raises:
        InvalidValueError: $f$ or $g^2 / \alpha^2$ cannot be integrated over [0, T], or $g^2$ is
            negative; the message names the time.

    Examples:
        >>> @dataclass(frozen=True)
        ... class OrnsteinUhlenbeck(ItoSDE):
        ...     rate: float = 5.0
        ...
        ...     def coefficients(self, t):
        ...         rate = torch.full_like(t, self.rate)
        ...         return -rate, 2 * rate
        >>> sde = OrnsteinUhlenbeck()
        >>> alpha, sigma = sde.at(0.5, torch.zeros(1, 2))
        >>> print(f"alpha {alpha:.6f}, sigma {sigma:.6f}")  # e^-2.5, (1 - e^-5)^0.5
        alpha 0.082085, sigma 0.996625
    """

    sigma0: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("sigma0", self.sigma0, "[0, inf)")

    @abc.abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f$ and $g^2 \ge 0$, each float64 of the shape of `t`, which may be any."""

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return $\alpha_t = e^{F_t}$."""
        return self._kernel(t)[0].exp().to(t)

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return $\sigma_t$, the square root of the kernel's variance."""
        return self._kernel(t)[1].sqrt().to(t)

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return $2 F_t - \log \sigma_t^2$."""
        log_alpha, variance = self._kernel(t)
        return (2 * log_alpha - variance.log()).to(t)

    def _kernel(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $F_t$ and $\sigma_t^2$ in float64, of the shape of `t`, differentiable."""
        log_alpha, variance = _Kernel.apply(t.double(), self)
        return log_alpha, variance

    def _by_panels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $F_t$ and $\sigma_t^2$, integrated from the start of the panel of each time."""
        edges, log_alpha, variance = self._panels
        parts = []
        for time in torch.split(t.flatten(), _ROWS):
            i = torch.searchsorted(edges, time, right=True).sub(1)
            i = i.clamp(0, len(edges) - 2)
            rise, added = self._integrals(edges[i], time)
            parts.append((log_alpha[i] + rise, variance[i] * torch.exp(2 * rise) + added))
        whole = (torch.cat(values).reshape(t.shape) for values in zip(*parts, strict=True))
        return next(whole), next(whole)

    def _integrals(self, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $F_b - F_a$ and $\int_a^b g_s^2 e^{2 (F_b - F_s)} ds$ for N intervals [a, b]."""
        nodes, weights = gauss_legendre(start[:, None], end[:, None])
        f, g2 = self._checked_coefficients(nodes)
        rise = (f * weights).sum(1)
        # not a matrix product, whose rounding depends on the number of rows
        before = (end - start)[:, None] * (f[:, None, :] * _RUNNING).sum(2)
        return rise, (g2 * torch.exp(2 * (rise[:, None] - before)) * weights).sum(1)

    def _checked_coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return f and the square of g; raise unless both have the shape of `t`."""
        return two_of_shape(self, "coefficients", self.coefficients(t), t)

    @cached_property
    def _panels(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return the ends of all panels `(N,)`, and $F$ and $\sigma^2$ there."""
        with torch.inference_mode(False), torch.no_grad():
            halves = self.T * _HALVES[:_GRADED]
            inner = torch.cat([halves.flip(0), self.T - halves[1:]])
            edges = torch.cat([inner.new_tensor([0.0]), inner, inner.new_tensor([self.T])])
            while True:
                log_alpha, variance, wrong = self._accumulated(edges)
                if not wrong.any():
                    return edges, log_alpha, variance
                new = (edges[:-1] + edges[1:])[wrong] / 2
                if wrong[0]:  # refine towards 0 by many halvings at once
                    new = torch.cat([new, edges[1] * _HALVES[1:20]])
                edges = torch.cat([edges, new]).sort().values

    def _accumulated(self, edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return $F$ and $\sigma^2$ at the ends of the panels, and a mask of the panels to halve.

        Raises:
            InvalidValueError: A panel to halve is too small, or g squared is negative.
        """
        start, end = edges[:-1], edges[1:]
        # not cut in the middle: the rule is symmetric about it, so a jump there would not be
        # detected
        cut = torch.lerp(start, end, 2**0.5 - 1)
        self._check_sign(start, end)
        rise, added = self._integrals(start, end)
        rise1, added1 = self._integrals(start, cut)
        rise2, added2 = self._integrals(cut, end)
        log_alpha = torch.cat([edges.new_zeros(1), rise.cumsum(0)])
        variances = [self.sigma0**2]
        for gain, more in zip(torch.exp(2 * rise).tolist(), added.tolist(), strict=True):
            variances.append(variances[-1] * gain + more)
        variance = edges.new_tensor(variances)
        # an error before eps counts as much as it changes the kernel at eps
        near = max(self.eps, 1e-6 * self.T)
        i = min(int(torch.searchsorted(edges, near)), len(edges) - 1)
        at_eps = variance[i] * torch.exp(2 * (log_alpha - log_alpha[i]))
        scale = torch.where(edges < near, at_eps, variance)[1:]
        f_exact = (rise1 + rise2 - rise).abs() <= _TOLERANCE * rise.abs().clamp(min=1)
        g_exact = (added1 * torch.exp(2 * rise2) + added2 - added).abs() <= _TOLERANCE * scale
        # a jump just after an edge lies before the first node of the panel and of its first part
        across, _ = self._integrals(cut[:-1], cut[1:])
        jump = (rise2[:-1] + rise1[1:] - across).abs() > _TOLERANCE * across.abs().clamp(min=1)
        f_exact[:-1] &= ~jump
        f_exact[1:] &= ~jump
        wrong = ~(f_exact & g_exact)
        failed = wrong & ~(rise.isfinite() & added.isfinite())
        failed |= wrong & ((cut <= start) | (cut >= end) | (end < _DEEPEST * self.T))
        if len(edges) > _MAX_PANELS:
            failed |= wrong & ((end - start) == (end - start)[wrong].min())
        if failed.any():
            i = int(failed.nonzero()[0])
            where = 0.0 if i == 0 else self.T if i == len(rise) - 1 else float(cut[i])
            what = "f" if (wrong & ~f_exact).any() else "g^2 / alpha^2"
            raise InvalidValueError(
                f"{what} of {type(self).__name__} cannot be integrated at t = {where:.6g}: it is "
                "infinite or not smooth there; correct coefficients, or choose a smaller T"
            )
        return log_alpha, variance, wrong

    def _check_sign(self, start: Tensor, end: Tensor) -> None:
        """Raise unless the square of g is at least 0 at the nodes of all panels."""
        t, _ = gauss_legendre(start[:, None], end[:, None])
        _, g2 = self._checked_coefficients(t)
        if (g2 < 0).any():
            raise InvalidValueError(
                f"g^2 of {type(self).__name__} is negative at t = {float(t[g2 < 0][0]):.6g}; the "
                "second value that `coefficients` returns must be the square of the diffusion"
            )

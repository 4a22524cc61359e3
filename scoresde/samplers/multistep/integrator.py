r"""Exponential multistep methods: one integrator behind most of the field's fast samplers.

Every linear SDE is variance exploding in $y = x / \alpha$, with noise $\rho = \sigma/\alpha$ and
level $\ell = -\log\rho$. Take off the denoiser its value for Gaussian data $\mathcal N(\mu, c I)$,
known in closed form, and call what is left the residual

$$ R = E[x_0 | x_t] - \mu - \frac{c}{c + \rho^2} (y - \mu). $$

With $U^2 = c + \rho^2$ and a stochasticity $\tau \ge 0$ (0: the probability flow, 1: the reverse
SDE) the step from $t$ down to $s$ is, with no approximation but the noise inside the integral,

$$ y_s - \mu = \frac{\varphi_s}{\varphi_t} (y_t - \mu)
   + \varphi_s \int_{\ell_t}^{\ell_s} (1 + \tau^2) \frac{R}{\varphi}\, d\ell
   + \sqrt{U_s^2 - \frac{\varphi_s^2}{\varphi_t^2} U_t^2}\; z, \qquad \varphi = U^{1 + \tau^2}. $$

A method is a choice of $c$ (0 is data prediction, infinity noise prediction, the data's own
variance solves the Gaussian part exactly), of how the residual is continued from the levels where
it has been evaluated (see `scoresde.samplers.multistep.interpolation`), and of $\tau$. A corrector
repeats the last step with the evaluation that ends it: it costs nothing, since the next step needs
that evaluation anyhow. Lu et al. (2022), arXiv:2211.01095; Zhang & Chen (2023), arXiv:2204.13902;
Xue et al. (2023), arXiv:2309.05019.

All coefficients are computed before the loop, in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.quadrature import NODES, gauss_legendre
from scoresde.samplers.multistep.frame import Frame, frame_of
from scoresde.samplers.multistep.interpolation import Interpolation, Polynomial
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Moments, ReverseSDE
from scoresde.sde.spacings import even_times

__all__ = ["ExponentialMultistep"]

# Coefficients that are held at one time: steps x quadrature x dimensions.
_ENTRIES = 2**21


Step = tuple[Tensor, tuple[Tensor, ...], Tensor]
"""What one step keeps of the state, what it adds of each residual, the newest first, and noise."""


class ExponentialMultistep(Sampler):
    r"""The base of exponential multistep methods; a subclass says which one.

    Its `step` alone is its first step, of first order.
    """

    steps: ClassVar[int] = 30

    order: int
    """How many residuals a step uses, at least 1."""
    corrector: int = 0
    """How many residuals the corrector uses beside the newest; 0 is no corrector."""

    @property
    def stochastic(self) -> bool:
        """Return whether noise is added."""
        return False

    def interpolation(self, sde: SDE, moments: Moments | None) -> Interpolation:
        """Return how the residual is continued."""
        return Polynomial()

    def gaussian(self, sde: SDE, moments: Moments | None) -> Moments:
        r"""The Gaussian that is solved exactly; by default a point, which is data prediction."""
        return Moments(0.0, var=0.0)

    def log_phi(self, rho: Tensor, log_u: Tensor, ends: Tensor) -> Tensor:
        r"""Return $\log\varphi$ up to a constant of the step.

        Args:
            rho: Noise-to-signal ratios `(N, Q, 1)`.
            log_u: $\log(U / U_s)$ there, `(N, Q, C)`.
            ends: The noise-to-signal ratios at the start and the end of each step, `(N, 1, 2)`.
        """
        return log_u

    def rate(self, rho: Tensor, ends: Tensor) -> Tensor:
        r"""$1 + \tau^2 = \frac{d\log\varphi}{d\log\rho}\,\frac{U^2}{\rho^2}$, `(N, Q, 1)`."""
        return torch.ones_like(rho)

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """A grid that is uniform in the level; on a ladder its levels nearest to that."""
        return even_times(sde, steps)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_t becomes a draw of p_s, by the first-order start of the method."""
        (state,) = self.trajectory(rsde, x, torch.stack((t, s)), noise)
        return state.x

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states at `times[1:]`; a correction shows in the states that follow from it."""
        sde = rsde.sde
        levels = sde.log_snr(times) / 2
        frame = frame_of(self.gaussian(sde, rsde.moments), sde, times, torch.exp(-levels), x)
        rule = self.interpolation(sde, rsde.moments)
        predict = _table(self, levels, frame, rule, self.order)
        correct = _table(self, levels, frame, rule, self.corrector, new=True)
        memory = max(self.order, self.corrector)
        known: list[Tensor] = []
        state = before = frame.from_state(x, 0)
        drawn: Tensor | None = None
        for i, (t, s) in enumerate(itertools.pairwise(times)):
            residual = frame.residual(rsde.score(frame.to_state(state, i), t), state, i)
            if self.corrector and i:
                state = _advance(correct[i - 1], before, [residual, *known], drawn)
            known = [residual, *known[: memory - 1]]
            if self.stochastic:
                drawn = frame.rotate(noise.normal(x, t))
            before, state = state, _advance(predict[i], state, known, drawn)
            yield State.of(rsde, s, frame.to_state(state, i + 1))


def _advance(step: Step, state: Tensor, residuals: list[Tensor], noise: Tensor | None) -> Tensor:
    keep, weights, spread = step
    state = keep * state
    for weight, residual in zip(weights, residuals, strict=False):
        state.addcmul_(weight, residual)
    return state if noise is None else state.addcmul_(spread, noise)


def _table(
    method: ExponentialMultistep,
    levels: Tensor,
    frame: Frame,
    rule: Interpolation,
    order: int,
    *,
    new: bool = False,
) -> list[Step]:
    """The steps in a frame's units; `new` counts the residual at their end among the known ones."""
    if order == 0:
        return []
    key = tuple(levels.tolist()), tuple(frame.variances.tolist())
    build = _weights if len(key[1]) == 1 else _weights.__wrapped__
    n, scale, table = len(levels) - 1, frame.scale[:, None], list[Step]()
    for keep, residuals, noise in build(method, rule, *key, order, new):
        steps = torch.arange(len(table), len(table) + len(keep))
        before, after = scale[steps], scale[steps + 1]
        columns = [frame.coefficients(after * column) for column in residuals.unbind(1)]
        table += zip(
            frame.coefficients(keep * after / before),
            zip(*columns, strict=True),
            frame.coefficients(after * noise),
            strict=True,
        )
    if len(table) < n:
        # where no noise is left the step is the denoiser itself
        (keep,) = frame.coefficients(scale[n] / scale[n - 1] * frame.gains(n - 1)[None])
        one, zero = frame.coefficients(torch.cat((scale[n:], 0 * scale[n:])))
        table.append((keep, (one,), zero))
    return table


@lru_cache(maxsize=64)
def _weights(
    method: ExponentialMultistep,
    rule: Interpolation,
    levels: tuple[float, ...],
    variances: tuple[float, ...],
    order: int,
    new: bool,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    r"""Return the weights of state `(n, C)`, m residuals `(n, m, C)` and noise `(n, C)`.

    They come in groups of n steps which know as many residuals; a last step to no noise is missing.
    """
    grid = torch.tensor(levels, dtype=torch.float64)
    c = torch.tensor(variances, dtype=torch.float64)
    n = len(grid) - 1 - int(grid[-1].isinf())
    groups, first = [], 0
    while first < n:
        m = min(order, first + 1)
        last = first + 1 if m < order else n
        last = min(last, first + max(_ENTRIES // (NODES * len(c)), 1))
        groups.append(_group(method, rule, grid, c, torch.arange(first, last), m, int(new)))
        first = last
    return groups


def _group(
    method: ExponentialMultistep,
    rule: Interpolation,
    levels: Tensor,
    c: Tensor,
    steps: Tensor,
    m: int,
    new: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of some steps, with m known residuals each."""
    t, s = levels[steps, None], levels[steps + 1, None]
    at, width = gauss_legendre(t, s)
    matrix = rule.matrix(levels[steps[:, None] + new - torch.arange(m + new)], at)
    everywhere = torch.cat((t, s, at), 1)[..., None]
    rho, end = torch.exp(-everywhere), torch.exp(-s)[..., None]
    # log(U / U_s) without a difference of squares
    rise = end**2 * torch.expm1(2 * (s[..., None] - everywhere))
    log_u = torch.log1p(rise / (c + end**2)) / 2
    ends = torch.exp(-torch.stack((t, s), -1))
    log_phi = method.log_phi(rho, log_u, ends)
    fall = log_phi[:, 1:2] - log_phi
    weights = width[..., None] * method.rate(rho[:, 2:], ends) * fall[:, 2:].exp()
    shrink = 2 * (fall[:, 0] + log_u[:, 0])
    u = (c + end[:, 0] ** 2).sqrt()
    return (
        fall[:, 0].exp(),
        torch.einsum("nqc,nqm->nmc", weights, matrix),
        u * (-torch.expm1(shrink.clamp(max=0))).sqrt(),
    )

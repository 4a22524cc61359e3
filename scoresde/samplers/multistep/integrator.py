r"""Integrate the reverse SDE by exponential multistep methods, which include most fast samplers.

Every linear SDE is variance exploding in $y = x / \alpha$, with noise $\rho = \sigma/\alpha$ and
half log-SNR $\ell = -\log\rho$. The residual is the denoiser minus the denoiser of Gaussian data
$\mathcal N(\mu, c I)$,

$$ R = E[x_0 | x_t] - \mu - \frac{c}{c + \rho^2} (y - \mu). $$

With $U^2 = c + \rho^2$ and a stochasticity $\tau \ge 0$ (0: the probability flow, 1: the reverse
SDE), the step from $t$ down to $s$ is exact, except that the effect on $R$ of the noise inside the
step is neglected:

$$ y_s - \mu = \frac{\varphi_s}{\varphi_t} (y_t - \mu)
   + \varphi_s \int_{\ell_t}^{\ell_s} (1 + \tau^2) \frac{R}{\varphi}\, d\ell
   + \sqrt{U_s^2 - \frac{\varphi_s^2}{\varphi_t^2} U_t^2}\; z, \qquad \varphi = U^{1 + \tau^2}. $$

Instead of noise inside the step, a method can follow the probability flow beyond the end of the
step, and then add noise up to the noise level of the end (`ExponentialMultistep.reach`).

A method is a choice of $c$, of $\tau$, and of the interpolation of the residual between its
evaluations (`scoresde.samplers.multistep.interpolation`). With $c = 0$ it is data prediction, with
$c = \infty$ noise prediction; with the variance of the data the Gaussian part is solved exactly. A
corrector repeats the last step with the evaluation at its end, which the next step needs anyway.
The step and its repetition are weighted sums of the same terms, so a correction adds to the
predicted state the residuals times the differences of the weights, and no noise. Lu et al. (2022),
arXiv:2211.01095; Zhang & Chen (2023), arXiv:2204.13902; Xue et al. (2023), arXiv:2309.05019.

All coefficients are computed before the loop, in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
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

__all__ = ["ExponentialMultistep", "Step", "Update", "integrate", "weighted_sum"]

# The largest number of coefficients that are computed at once: steps x quadrature nodes x
# dimensions.
_ENTRIES = 2**21


Step = tuple[Tensor, tuple[Tensor, ...], Tensor]
"""The weights of one step: for the state, for each `Frame.excess` (newest first), for the noise."""
Update = Callable[[Step, Tensor, list[Tensor], Tensor | None, Frame, int], Tensor]
"""A function that makes a prediction or a correction, with the arguments of `weighted_sum`."""


class ExponentialMultistep(Sampler):
    r"""Define the base class of exponential multistep methods.

    A single call of `step`, like the first step of a run, has no earlier residuals, so it has order
    1. The error of the first step is proportional to the square of its length, or to the cube with
    a corrector. This error is small if the noise at T is far larger than the data: on a mixture
    under `VPSDE()` orders 3 and 4 were measured up to 1,600 steps. If the noise at T is twice the
    data, orders above 2 fall to 2 (with a corrector to 3) for more than 50 steps. If noise is
    added, the distribution of the samples converges with order 2 at most.
    """

    steps: ClassVar[int] = 30

    order: int
    """The number of residuals that a step uses, at least 1."""
    corrector: int = 0
    """The number of residuals that the corrector uses besides the newest; 0 for no corrector."""

    @property
    def stochastic(self) -> bool:
        """Return False, since by default the method solves the probability flow."""
        return False

    def interpolation(self, sde: SDE, moments: Moments | None) -> Interpolation:
        """Return the interpolation of the residual."""
        return Polynomial()

    def gaussian(self, sde: SDE, moments: Moments | None) -> Moments:
        r"""Return the Gaussian whose part is solved exactly; by default its variance is 0."""
        return Moments(0.0, var=0.0)

    def log_phi(self, rho: Tensor, log_u: Tensor, ends: Tensor) -> Tensor:
        r"""Return $\log\varphi$ up to a constant of the step.

        Args:
            rho: Noise-to-signal ratios `(N, Q, 1)`.
            log_u: $\log(U / U_s)$ there, `(N, Q, C)`, with s at the $\ell$ of `reach`.
            ends: The noise-to-signal ratios at the start of each step and at the $\ell$ of `reach`,
                `(N, 1, 2)`.
        """
        return log_u

    def rate(self, rho: Tensor, ends: Tensor) -> Tensor:
        r"""Return $1 + \tau^2 = \frac{d\log\varphi}{d\log\rho} \frac{U^2}{\rho^2}$, `(N, Q, 1)`."""
        return torch.ones_like(rho)

    def reach(self, ell: Tensor) -> Tensor:
        r"""Return the $\ell$ up to which each step is integrated, by default its end.

        If it is beyond the end, noise is added afterwards up to the noise level of the end.

        Args:
            ell: The $\ell$ at the start and the end of each step, `(N, 2)`.

        Returns:
            Values `(N, 1)`, not below those at the ends.
        """
        return ell[:, 1:]

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return a grid even in log-SNR, `(steps + 1,)`; on a ladder the levels nearest to it."""
        return even_times(sde, steps)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Turn a draw `x` from p_t into a draw from p_s, by a step of order 1."""
        (state,) = self.trajectory(rsde, x, torch.stack((t, s)), noise)
        return state.x

    def for_run(self, sde: SDE, times: Tensor) -> ExponentialMultistep:
        """Return the method with the order and corrector that it uses for a run over `times`."""
        return self

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states at `times[1:]`, each before the corrector."""
        return integrate(self.for_run(rsde.sde, times), rsde, x, times, noise)


def integrate(
    method: ExponentialMultistep,
    rsde: ReverseSDE,
    x: Tensor,
    times: Tensor,
    noise: NoiseLike,
    update: Update | None = None,
) -> Iterator[State]:
    """Yield the states of a method at `times[1:]`, each before the corrector.

    `update` makes the predictions and corrections of a method without noise, a correction from the
    state before the step. By default a correction changes the predicted state, so that the state
    before the step need not be kept.
    """
    sde, dtype = rsde.sde, x.dtype
    ell = sde.log_snr(times) / 2
    # the factors of a frame may overflow in half precision
    x = x.to(torch.promote_types(dtype, torch.float32))
    frame = frame_of(method.gaussian(sde, rsde.moments), sde, times, x.new_empty(0, *x.shape[1:]))
    rule = method.interpolation(sde, rsde.moments)
    predict = _table(method, ell, frame, rule, method.order)
    correct = _table(method, ell, frame, rule, method.corrector, new=True)
    changes = [_change(new, old) for new, old in zip(correct, predict, strict=False)]
    most = max(method.order, method.corrector)
    known, before = list[Tensor](), None
    state = frame.from_state(x, 0)
    del x  # do not keep the initial state in memory
    for i, (t, s) in enumerate(itertools.pairwise(times)):
        excess = frame.excess(rsde.score(frame.to_state(state, i).to(dtype), t), state, i)
        if update is not None and before is not None:
            state = update(correct[i - 1], before, [excess, *known], None, frame, i)
        elif i and changes:
            state = _changed(state, changes[i - 1], [excess, *known])
        known = [excess, *known][:most]
        drawn = frame.rotate(noise.normal(state, t)) if method.stochastic else None
        before = state if update is not None and method.corrector else None
        state = (update or weighted_sum)(predict[i], state, known, drawn, frame, i + 1)
        del excess, drawn  # do not keep them in memory
        if not changes:
            del known[method.order - 1 :]
        yield State.of(rsde, s, frame.to_state(state, i + 1).to(dtype))


def weighted_sum(
    step: Step, state: Tensor, excesses: list[Tensor], noise: Tensor | None, frame: Frame, i: int
) -> Tensor:
    """Return the weighted sum of a state, excesses and noise: the coordinates at time i."""
    keep, weights, spread = step
    state = keep * state
    for weight, excess in zip(weights, excesses, strict=False):
        state.addcmul_(weight, excess)
    return state if noise is None else state.addcmul_(spread, noise)


def _changed(state: Tensor, weights: tuple[Tensor, ...], excesses: list[Tensor]) -> Tensor:
    """Return the state plus a weighted sum of excesses."""
    (weight, excess), *others = zip(weights, excesses, strict=False)
    state = state.addcmul(weight, excess)
    for weight, excess in others:
        state.addcmul_(weight, excess)
    return state


def _change(correct: Step, predict: Step) -> tuple[Tensor, ...]:
    """Return the weights with which excesses are added to a prediction, to correct it."""
    none = torch.zeros_like(correct[1][0])
    before = (none, *predict[1])  # the prediction does not use the evaluation at its end
    pairs = itertools.zip_longest(correct[1], before, fillvalue=none)
    return tuple(new - old for new, old in pairs)


def _table(
    method: ExponentialMultistep,
    ell: Tensor,
    frame: Frame,
    rule: Interpolation,
    order: int,
    *,
    new: bool = False,
) -> list[Step]:
    """Return the weights of all steps in a frame.

    If `new` is True, the steps also use the evaluation at their end, as a corrector does.
    """
    if order == 0:
        return []
    key = tuple(ell.tolist()), tuple(frame.variances.tolist())
    build = _weights if len(key[1]) == 1 else _weights.__wrapped__
    n, alpha, denoising, table = len(ell) - 1, frame.alpha[:, None], frame.denoising, list[Step]()
    for keep, residuals, noise in build(method, rule, *key, order, new):
        steps = torch.arange(len(table), len(table) + len(keep))
        known = steps[:, None] + int(new) - torch.arange(residuals.shape[1])
        after = alpha[steps + 1]
        weights = after[:, None] * denoising[known] * residuals
        table += zip(
            frame.coefficients(keep * after / alpha[steps]),
            zip(*map(frame.coefficients, weights.unbind(1)), strict=True),
            frame.coefficients(after * noise),
            strict=True,
        )
    if len(table) < n:
        # the step to sigma = 0 returns the denoised state
        last = torch.stack((frame.gains(n - 1) / alpha[n - 1], denoising[n - 1], 0 * denoising[n]))
        keep_last, weight, none = frame.coefficients(alpha[n] * last)
        table.append((keep_last, (weight,), none))
    return table


@lru_cache(maxsize=64)
def _weights(
    method: ExponentialMultistep,
    rule: Interpolation,
    ell: tuple[float, ...],
    variances: tuple[float, ...],
    order: int,
    new: bool,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    r"""Return the weights of state `(n, C)`, m residuals `(n, m, C)` and noise `(n, C)`.

    Return groups of steps; the steps of a group have equally many residuals. A last step to
    sigma = 0 is left out.
    """
    grid = torch.tensor(ell, dtype=torch.float64)
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
    ell: Tensor,
    c: Tensor,
    steps: Tensor,
    m: int,
    new: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of all steps with m known residuals."""
    pairs = ell.unfold(0, 2, 1)[steps]
    t, s = pairs[:, :1], method.reach(pairs)
    at, width = gauss_legendre(t, s)
    matrix = rule.matrix(ell[steps[:, None] + new - torch.arange(m + new)], at)
    everywhere = torch.cat((t, s, at), 1)[..., None]
    rho, end = torch.exp(-everywhere), torch.exp(-s)[..., None]
    # log(U / U_s) without cancellation
    rise = end**2 * torch.expm1(2 * (s[..., None] - everywhere))
    log_u = torch.log1p(rise / (c + end**2)) / 2
    ends = torch.exp(-torch.stack((t, s), -1))
    log_phi = method.log_phi(rho, log_u, ends)
    fall = log_phi[:, 1:2] - log_phi
    weights = width[..., None] * method.rate(rho[:, 2:], ends) * fall[:, 2:].exp()
    shrink = 2 * (fall[:, 0] + log_u[:, 0])
    inside = -(c + end[:, 0] ** 2) * torch.expm1(shrink.clamp(max=0))
    after = -torch.exp(-2 * pairs[:, 1:]) * torch.expm1(2 * (pairs[:, 1:] - s))
    return (
        fall[:, 0].exp(),
        torch.einsum("nqc,nqm->nmc", weights, matrix),
        (inside + after).sqrt(),
    )

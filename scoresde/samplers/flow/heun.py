r"""Solve the probability flow by second-order methods, with two evaluations for each step.

Both methods solve $dy / d\tilde\sigma = \epsilon_t(x)$, the flow of `scoresde.samplers.flow.euler`.
A step to $\sigma_s = 0$, where the score does not exist, is an Euler step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import check_range
from scoresde.errors import InvalidValueError
from scoresde.samplers.flow.euler import flow_step, predicted_noise
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Moments, ReverseSDE, expand
from scoresde.sde.spacings import even_times, usual_times

__all__ = ["DPM2", "Heun"]

# With this number of steps or more, an even grid had the smallest errors on the arena's tuning
# problems.
_EVEN_FROM = 9


@dataclass(frozen=True)
class Heun(Sampler):
    r"""Solve the probability flow by Heun's method, optionally with the churn of Karras et al.

    $$ y_s = y_t + (\tilde\sigma_s - \tilde\sigma_t)
       \frac{\epsilon_t(x_t) + \epsilon_s(x'_s)}{2} $$

    where $x'_s$ is the result of Euler's step. With churn, a step first adds noise by the
    transition of the SDE, up to the level $(1 + \gamma)\,\tilde\sigma_t$,
    $\gamma = \min(\text{churn} / N, \sqrt 2 - 1)$, but at most up to T. So the score is evaluated
    between the times of the grid. A single call of `step` counts as a run with N = 1. Karras et al.
    (2022), algorithms 1 and 2, arXiv:2206.00364.

    Args:
        churn: $S_\text{churn}$, the noise added in a whole run, at least 0.
        sigma_min: $S_\text{tmin}$, the smallest $\tilde\sigma$ at which noise is added.
        sigma_max: $S_\text{tmax}$, the largest $\tilde\sigma$ at which noise is added.
        s_noise: $S_\text{noise}$, the factor on the standard deviation of the added noise,
            positive; above 1 it compensates for a denoiser that removes too much noise.
    """

    steps: ClassVar[int] = 50
    nfe_per_step = 2
    order = 2
    conditional = False
    churn: float = 0.0
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("churn", self.churn, "[0, inf)")
        if not 0 <= self.sigma_min < self.sigma_max:
            raise InvalidValueError(
                "need 0 <= sigma_min < sigma_max, "
                f"got sigma_min = {self.sigma_min}, sigma_max = {self.sigma_max}"
            )
        check_range("s_noise", self.s_noise, "(0, inf)")

    @property
    def stochastic(self) -> bool:
        """Return True if `churn` > 0."""
        return self.churn > 0

    @property
    def between(self) -> bool:
        """Return True if `churn` > 0, so that steps start between the times of the grid."""
        return self.churn > 0

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return a grid even in log-SNR for 9 or more steps, else the default grid of the SDE."""
        return usual_times(sde, steps, even_from=_EVEN_FROM)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_s from the draw `x` of p_t."""
        x, t = self._raise_noise(rsde, x, t, noise)
        epsilon = predicted_noise(rsde, x, t)
        end = flow_step(rsde.sde, x, t, s, epsilon)
        if rsde.sde.sigma(s) == 0:
            return end
        return flow_step(rsde.sde, x, t, s, (epsilon + predicted_noise(rsde, end, s)) / 2)

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states at `times[1:]`; the churn is divided equally among the steps."""
        share = replace(self, churn=self.churn / max(len(times) - 1, 1))
        yield from Sampler.trajectory(share, rsde, x, times, noise)

    def _raise_noise(
        self, rsde: ReverseSDE, x: Tensor, t: Tensor, noise: NoiseLike
    ) -> tuple[Tensor, Tensor]:
        """Add the churn's noise, and return the state and the time from which the step starts."""
        sde, gamma = rsde.sde, min(self.churn, math.sqrt(2) - 1)
        if gamma == 0 or not self.sigma_min <= sde.sigma(t) / sde.alpha(t) <= self.sigma_max:
            return x, t
        raised = sde.time(sde.log_snr(t) - 2 * math.log1p(gamma)).clamp(max=sde.T)
        top = torch.maximum(t, raised)
        a, v = sde.transition(t, top)
        return expand(a, x) * x + expand(self.s_noise * v.sqrt(), x) * noise.normal(x, t), top


@dataclass(frozen=True)
class DPM2(Sampler):
    r"""Solve the probability flow by the midpoint rule in $\log\tilde\sigma$ (DPM-Solver-2, DPM2).

    $$ y_s = y_t + (\tilde\sigma_s - \tilde\sigma_t)\,\epsilon_m(x_m), \qquad
       x_m / \alpha_m = y_t + (\tilde\sigma_m - \tilde\sigma_t)\,\epsilon_t(x_t), \qquad
       \tilde\sigma_m = \sqrt{\tilde\sigma_s\,\tilde\sigma_t} $$

    The second evaluation is between the times of the grid. Lu et al. (2022), algorithm 1 with
    $r_1 = 1/2$, arXiv:2206.00927.
    """

    steps: ClassVar[int] = 50
    nfe_per_step = 2
    order = 2
    stochastic = False
    between = True

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return a grid even in log-SNR, `(steps + 1,)`."""
        return even_times(sde, steps)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_s from the draw `x` of p_t."""
        sde, epsilon = rsde.sde, predicted_noise(rsde, x, t)
        if sde.sigma(s) == 0:
            return flow_step(sde, x, t, s, epsilon)
        m = sde.time((sde.log_snr(s) + sde.log_snr(t)) / 2)
        x_m = flow_step(sde, x, t, m, epsilon)
        return flow_step(sde, x, t, s, predicted_noise(rsde, x_m, m))

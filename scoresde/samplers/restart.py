r"""Restart: back up by fresh noise and down the probability flow again, a few times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.errors import InvalidValueError
from scoresde.grids import span
from scoresde.samplers.base import NoiseLike, Sampler, State, check_part
from scoresde.samplers.heun import Heun
from scoresde.sde import SDE, ReverseSDE, expand

__all__ = ["Restart"]


@dataclass(frozen=True)
class Restart(Sampler):
    r"""A sampler that goes over one stretch of the way `k` times more.

    At the noise $\tilde\sigma_\min$ the transition of the SDE carries the sample back up to
    $\tilde\sigma_\max$, from where the sampler, without noise of its own, comes down again: fresh
    noise contracts the errors that were made above, while the way down keeps the accuracy of a
    flow. Xu et al. (2023), algorithm 2, arXiv:2306.14878, whose setting for CIFAR-10 (data in [-1,
    1]) is the default.

    The run of N steps restarts from the time of its grid nearest to $\tilde\sigma_\min$, the start
    left out, and goes up at least to the time before it, at most to T. The `inner` steps down are
    spaced as by `Karras()`, so on an SDE with levels they stand between the levels. It costs what
    N + k `inner` steps do. `step` alone does not restart.

    Args:
        sampler: What goes down; meant is one of the probability flow.
        sigma_min: $\tilde\sigma_\min = \sigma / \alpha$ where the stretch ends, positive.
        sigma_max: $\tilde\sigma_\max$ where it starts, above `sigma_min`.
        k: How often it is gone over again, at least 0.
        inner: Steps each time, at least 1.
    """

    steps: ClassVar[int] = 50
    sampler: Sampler = field(default_factory=Heun)
    sigma_min: float = 0.06
    sigma_max: float = 0.3
    k: int = 2
    inner: int = 3

    def __post_init__(self) -> None:
        check_part("Restart", self.sampler)
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise InvalidValueError(
                "need 0 < sigma_min < sigma_max, both finite, "
                f"got sigma_min = {self.sigma_min}, sigma_max = {self.sigma_max}"
            )
        if self.k < 0 or self.inner < 1:
            raise InvalidValueError(
                f"need k >= 0 and inner >= 1, got k = {self.k}, inner = {self.inner}"
            )

    @property
    def nfe_per_step(self) -> int:  # type: ignore[override]  # the class attribute of most samplers
        """The sampler's own."""
        return self.sampler.nfe_per_step

    def steps_for(self, nfe: int) -> int:
        """What is left when the steps of the restarts are paid for."""
        return max(self.sampler.steps_for(nfe - self.k * self.inner * self.nfe_per_step), 0)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """The sampler's step."""
        return self.sampler.step(rsde, x, t, s, noise)

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """The states at `times[1:]`; the one at the end of the stretch is that after all passes."""
        sde = rsde.sde
        log_ratio = -sde.log_snr(times[1:]) / 2
        end = 1 + int((log_ratio - math.log(self.sigma_min)).abs().argmin())
        for state in self.sampler.trajectory(rsde, x, times[: end + 1], noise):
            x = state.x
            if state.t > times[end]:
                yield state
        stretch = self._stretch(sde, times[end - 1], times[end])
        a, v = sde.transition(stretch[-1], stretch[0])
        for j in range(self.k):
            again = noise.fork(1 + j)
            # drawn at a time of the grid, which is the same number however the top is computed
            x = expand(a, x) * x + expand(v.sqrt(), x) * again.normal(x, times[end])
            for state in self.sampler.trajectory(rsde, x, stretch, again.fork(0)):
                x = state.x
        yield State(times[end], x, None, rsde.nfe)
        yield from self.sampler.trajectory(rsde, x, times[end:], noise)

    def _stretch(self, sde: SDE, before: Tensor, end: Tensor) -> Tensor:
        """The times `(inner + 1,)` of the way down that ends at `end`."""
        highest = torch.tensor(-2 * math.log(self.sigma_max), dtype=torch.float64)
        top = torch.maximum(sde.time(highest).clamp(max=sde.T), before)
        high, low = (float(sde.sigma(t) / sde.alpha(t)) for t in (top, end))
        t = sde.time(-2 * span(high, low, self.inner, power=1 / 7).log())
        t[0], t[-1] = top, end
        return t

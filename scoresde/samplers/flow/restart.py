r"""Define Restart sampling: add noise and solve again (Xu et al. 2023, arXiv:2306.14878)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_increasing, check_integer, quoted
from scoresde.errors import InvalidTypeError
from scoresde.samplers.around import Around
from scoresde.samplers.flow.heun import Heun
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, ReverseSDE, expand
from scoresde.sde.spacings import span

__all__ = ["Restart", "RestartInterval"]


@dataclass(frozen=True)
class RestartInterval:
    r"""Define an interval of noise levels that is sampled again `k` times, in `steps` steps each.

    Args:
        sigma_min: $\tilde\sigma_\min$, the ratio $\sigma / \alpha$ at the end of the interval,
            positive.
        sigma_max: $\tilde\sigma_\max$, the ratio at the start of the interval, above `sigma_min`.
        k: The number of restarts, at least 0.
        steps: The number of steps of each restart, at least 1.
    """

    sigma_min: float = 0.06
    sigma_max: float = 0.3
    k: int = 2
    steps: int = 3

    def __post_init__(self) -> None:
        check_fields(self)
        check_increasing(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        check_integer("k", self.k, 0)
        check_integer("steps", self.steps, 1)

    def end(self, sde: SDE, times: Tensor) -> int:
        """Return the index, at least 1, of the time nearest to `sigma_min`; 0 for a single time."""
        if len(times) == 1:
            return 0
        log_ratio = -sde.log_snr(times[1:]) / 2
        return 1 + int((log_ratio - math.log(self.sigma_min)).abs().argmin())

    def times(self, sde: SDE, before: Tensor, end: Tensor) -> Tensor:
        """Return times `(steps + 1,)` down to `end`, from `before` or the time of `sigma_max`.

        The larger of the two is the first time.
        """
        highest = torch.tensor(-2 * math.log(self.sigma_max), dtype=torch.float64)
        top = torch.maximum(sde.time(highest).clamp(max=sde.T), before)
        high, low = (float(sde.sigma(t) / sde.alpha(t)) for t in (top, end))
        t = sde.time(-2 * span(high, low, self.steps, power=1 / 7).log())
        t[0], t[-1] = top, end
        return t


@dataclass(frozen=True)
class Restart(Around):
    r"""Sample with restarts: add noise and solve the probability flow again, a few times.

    At the noise level $\tilde\sigma_\min$, the transition of the SDE adds noise up to
    $\tilde\sigma_\max$, and the sampler solves the flow again from there. The added noise reduces
    earlier errors, and the flow adds only small errors. The default is the smallest setting of Xu
    et al. (2023), algorithm 2, arXiv:2306.14878, for CIFAR-10 (data in [-1, 1]); for larger images
    they use several intervals.

    A run restarts at the time of its grid nearest to $\tilde\sigma_\min$, but not at the first
    time. It goes back at least to the previous time of the grid, and at most to T. The steps of a
    restart are spaced by `Karras()` between its start and its end. The cost is that of all N steps
    and all restarts. A single call of `step` does not restart.

    Args:
        sampler: The solver, usually of the probability flow.
        intervals: The intervals; intervals that end at the same time are sampled in the given
            order.

    Raises:
        InvalidTypeError: The sampler does more than take steps along a grid.
    """

    steps: ClassVar[int] = 50
    sampler: Sampler = field(default_factory=Heun)
    intervals: tuple[RestartInterval, ...] = (RestartInterval(),)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sampler.stepwise:
            raise InvalidTypeError(
                f"{quoted(self.sampler)} does more than take steps along a grid, but a restart "
                "would repeat only the steps; take its inner sampler, such as Heun()"
            )

    @property
    def order(self) -> None:
        """Return None, since the number of steps of a restart is fixed."""
        return None

    @property
    def stochastic(self) -> bool:
        """Return True if there are restarts or the solver adds noise."""
        return self._restarts or self.sampler.stochastic

    @property
    def between(self) -> bool:
        """Return True if there are restarts; their steps lie between the times of the grid."""
        return self._restarts or self.sampler.between

    @property
    def stepwise(self) -> bool:
        """Return True if there are no restarts, since a single step does not restart."""
        return not self._restarts

    @property
    def _restarts(self) -> bool:
        return any(part.k for part in self.intervals)

    def cost(self, steps: int) -> int:
        """Return the evaluations of all steps and restarts."""
        restarts = sum(part.k * self.sampler.cost(part.steps) for part in self.intervals)
        return self.sampler.cost(steps) + len(self.intervals) * self.sampler.cost(0) + restarts

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states at `times[1:]`, at the end of an interval after its restarts."""
        ends, here = [part.end(rsde.sde, times) for part in self.intervals], 0
        for end in sorted({*ends} - {0}):
            for state in self.sampler.trajectory(rsde, x, times[here : end + 1], noise):
                x = state.x
                if state.t > times[end]:
                    yield state
            for j, part in enumerate(self.intervals):
                if ends[j] == end:
                    grid = part.times(rsde.sde, times[end - 1], times[end])
                    x = self._restart(rsde, x, grid, part.k, noise.fork(1 + j))
            yield State.of(rsde, times[end], x)
            here = end
        yield from self.sampler.trajectory(rsde, x, times[here:], noise)

    def _restart(
        self, rsde: ReverseSDE, x: Tensor, grid: Tensor, k: int, noise: NoiseLike
    ) -> Tensor:
        """Add noise from `grid[-1]` to `grid[0]` and solve the flow back, `k` times."""
        a, v = rsde.sde.transition(grid[-1], grid[0])
        for j in range(k):
            independent = noise.fork(j)
            # draw the noise at grid[-1], which is exactly a time of the user's grid; grid[0] is
            # rounded
            x = expand(a, x) * x + expand(v.sqrt(), x) * independent.normal(x, grid[-1])
            for state in self.sampler.trajectory(rsde, x, grid, independent.fork(0)):
                x = state.x
        return x

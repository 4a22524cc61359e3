r"""Restart: back up by fresh noise and down the probability flow again, a few times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_increasing, check_integer
from scoresde.samplers.flow.heun import Heun
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Facts, ReverseSDE, expand
from scoresde.sde.spacings import span

__all__ = ["Restart", "Stretch"]


@dataclass(frozen=True)
class Stretch:
    r"""A part of the way that is gone over again, `k` times in `steps` steps.

    Args:
        sigma_min: $\tilde\sigma_\min = \sigma / \alpha$ where it ends, positive.
        sigma_max: $\tilde\sigma_\max$ where it starts, above `sigma_min`.
        k: How often it is gone over again, at least 0.
        steps: Steps each time, at least 1.
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
        """The index of the time at which it ends, the nearest but the first; 0 if there is none."""
        if len(times) == 1:
            return 0
        log_ratio = -sde.log_snr(times[1:]) / 2
        return 1 + int((log_ratio - math.log(self.sigma_min)).abs().argmin())

    def way(self, sde: SDE, before: Tensor, end: Tensor) -> Tensor:
        """Return the times `(steps + 1,)` down to `end`, from `before` or from higher up."""
        highest = torch.tensor(-2 * math.log(self.sigma_max), dtype=torch.float64)
        top = torch.maximum(sde.time(highest).clamp(max=sde.T), before)
        high, low = (float(sde.sigma(t) / sde.alpha(t)) for t in (top, end))
        t = sde.time(-2 * span(high, low, self.steps, power=1 / 7).log())
        t[0], t[-1] = top, end
        return t


@dataclass(frozen=True)
class Restart(Sampler):
    r"""A sampler that goes over stretches of the way again.

    At the noise $\tilde\sigma_\min$ the transition of the SDE carries the sample back up to
    $\tilde\sigma_\max$, from where the sampler, without noise of its own, comes down again: fresh
    noise contracts the errors that were made above, while the way down keeps the accuracy of a
    flow. Xu et al. (2023), algorithm 2, arXiv:2306.14878, whose smallest setting for CIFAR-10
    (data in [-1, 1]) is the default; for larger images they use several stretches.

    A run restarts from the time of its grid nearest to $\tilde\sigma_\min$, the start left out, and
    goes up at least to the time before it, at most to T. The steps down are spaced as by
    `Karras()`, so on an SDE with levels they stand between the levels. The cost is that of N steps
    and of those of all passes. `step` alone does not restart.

    Args:
        sampler: What goes down; meant is one of the probability flow.
        stretches: What is gone over again; those that end at one time follow each other as given.
    """

    steps: ClassVar[int] = 50
    sampler: Sampler = field(default_factory=Heun)
    stretches: tuple[Stretch, ...] = (Stretch(),)

    def __post_init__(self) -> None:
        super().__post_init__()

    @property
    def nfe_per_step(self) -> int:
        """Return the sampler's own."""
        return self.sampler.nfe_per_step

    @property
    def order(self) -> None:
        """None: the passes have steps of their own."""
        return None

    @property
    def stochastic(self) -> bool:
        """Return whether there is a stretch to go over again, or the sampler adds noise."""
        return self._restarts or self.sampler.stochastic

    @property
    def adaptive(self) -> bool:
        """Return whether the sampler is."""
        return self.sampler.adaptive

    @property
    def coupled(self) -> bool:
        """Return whether the sampler is."""
        return self.sampler.coupled

    @property
    def between(self) -> bool:
        """True where it restarts: the steps of a stretch are between the times of the grid."""
        return self._restarts or self.sampler.between

    @property
    def uses_pilot(self) -> bool:
        """Return whether the sampler does."""
        return self.sampler.uses_pilot

    @property
    def _restarts(self) -> bool:
        return any(stretch.k for stretch in self.stretches)

    def cost(self, steps: int) -> int:
        """That of the steps, which each stretch parts once more, and of all passes."""
        passes = sum(stretch.k * self.sampler.cost(stretch.steps) for stretch in self.stretches)
        return self.sampler.cost(steps) + len(self.stretches) * self.sampler.cost(0) + passes

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> Restart:
        """Return it with the sampler set up for a score."""
        return replace(self, sampler=self.sampler.prepared(facts, sde))

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return the sampler's step."""
        return self.sampler.step(rsde, x, t, s, noise)

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """The states at `times[1:]`; the one at the end of a stretch is that after all passes."""
        ends, here = [stretch.end(rsde.sde, times) for stretch in self.stretches], 0
        for end in sorted({*ends} - {0}):
            for state in self.sampler.trajectory(rsde, x, times[here : end + 1], noise):
                x = state.x
                if state.t > times[end]:
                    yield state
            for j, stretch in enumerate(self.stretches):
                if ends[j] == end:
                    way = stretch.way(rsde.sde, times[end - 1], times[end])
                    x = self._again(rsde, x, way, stretch.k, noise.fork(1 + j))
            yield State.of(rsde, times[end], x)
            here = end
        yield from self.sampler.trajectory(rsde, x, times[here:], noise)

    def _again(self, rsde: ReverseSDE, x: Tensor, way: Tensor, k: int, noise: NoiseLike) -> Tensor:
        """Go `k` times up from the last to the first of the times `way`, and down them."""
        a, v = rsde.sde.transition(way[-1], way[0])
        for j in range(k):
            own = noise.fork(j)
            # drawn at a time of the grid, which is the same number however the top is computed
            x = expand(a, x) * x + expand(v.sqrt(), x) * own.normal(x, way[-1])
            for state in self.sampler.trajectory(rsde, x, way, own.fork(0)):
                x = state.x
        return x

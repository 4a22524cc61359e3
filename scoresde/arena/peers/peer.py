r"""Run samplers of other libraries on the same problems as the samplers of this package.

A peer is a sampler of another library. It receives the state $y = x / \alpha$, the noise levels
$\rho = \sigma / \alpha$ and the exact denoiser. In these coordinates every SDE is variance
exploding. The peer takes its own steps from $\rho_T$ to $\rho_\epsilon$ on one of several published
grids. As for all samplers, Tweedie's estimate follows at the end and counts as one evaluation; the
other libraries compute it by a last step, to $\rho = 0$.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.errors import NonFiniteError
from scoresde.noise.global_rng import forked_rng
from scoresde.sde import spacings

if TYPE_CHECKING:
    from scoresde.arena.problem import Problem
    from scoresde.sde import SDE

__all__ = ["GRIDS", "Beta", "Denoiser", "Method", "Peer", "on_all_grids"]

Denoiser = Callable[[Tensor, Tensor], Tensor]
r"""A function `(y, rho)` of states `(B, *)` and noise `()` that returns $E[x_0 | y]$."""


@dataclass(frozen=True)
class Beta(spacings.Spacing):
    r"""Space $\sigma / \alpha$ by the quantiles of a Beta(a, a) distribution, between both ends.

    Lee et al. (2024), *Beta sampling is all you need*, arXiv:2407.12173, as in diffusers.

    Args:
        a: Both parameters of the distribution, positive.
    """

    a: float = 0.6

    def __call__(self, sde: SDE, steps: int) -> Tensor:
        """Return times `(steps + 1,)`, decreasing, float64."""
        from scipy.stats import beta

        ends = torch.tensor([sde.T, sde.eps], dtype=torch.float64)
        high, low = torch.exp(-0.5 * sde.log_snr(ends))
        u = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        rho = low + torch.from_numpy(beta.ppf(u.numpy(), self.a, self.a)) * (high - low)
        return sde.time(-2 * rho.log())


GRIDS: Mapping[str, spacings.Spacing] = MappingProxyType(
    {
        "karras": spacings.Karras(),
        "exp": spacings.LogSNR(),
        "time": spacings.EqualSteps(),
        "beta": Beta(),
    }
)
"""The grids that libraries publish: Karras's with rho = 7, geometric noise, equal times, Beta."""


@dataclass(frozen=True)
class Method:
    """Hold one method of a library.

    Args:
        run: A function `(denoiser, rho, y)` of decreasing noise levels `(steps + 1,)`, and a state
            `(B, *)` at the first level. It returns the state at the last level. Its noise comes
            from torch's global generator.
        steps: The number of steps as a function of the number of evaluations before the last one.
        grids: The names of the grids on which it is run, from `GRIDS`.
    """

    run: Callable[[Denoiser, Tensor, Tensor], Tensor]
    steps: Callable[[int], int] = int
    grids: tuple[str, ...] = tuple(GRIDS)


@dataclass(frozen=True)
class Peer:
    """Run a method of another library on one grid, as a contender."""

    method: Method
    spacing: spacings.Spacing

    def __call__(
        self, problem: Problem, x: Tensor, budget: int, seed: int
    ) -> tuple[Tensor, int] | None:
        """Return the samples and their evaluations, or None if the budget is too small."""
        steps = self.method.steps(budget - 1)
        if steps < 1:
            return None
        sde = problem.sde
        times = sde.times(steps, spacing=self.spacing)
        alpha = sde.alpha(times[[0, -1]])
        calls = 0

        def denoiser(y: Tensor, rho: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if not (rho.isfinite() and y.isfinite().all()):
                raise NonFiniteError(
                    f"the state of the peer is NaN or infinite at evaluation {calls}; give it more "
                    "evaluations"
                )
            return problem.denoise(y, rho)

        with forked_rng(seed), torch.no_grad(), _quiet():
            y = self.method.run(denoiser, problem.rho(times), x.double() / alpha[0])
        return problem.finish((alpha[1] * y).to(problem.dtype)), calls + 1


def on_all_grids(library: str, methods: Mapping[str, Method]) -> dict[str, Peer]:
    """Return each method on each of its grids, called `library:method@grid`."""
    return {
        f"{library}:{name}@{grid}": Peer(method, GRIDS[grid])
        for name, method in methods.items()
        for grid in method.grids
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Python warnings, and all logs up to the level WARNING, in the block."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

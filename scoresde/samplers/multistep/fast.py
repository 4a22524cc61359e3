r"""The fast sampler: a multistep method whose weights and steps are those that suit the model.

Of the exponential integrator of `scoresde.samplers.multistep.integrator` three things are left
to choose, and here all three follow from what is known of the model.

- The Gaussian that is solved exactly is the data's own.
- The residual is continued by its best linear prediction under the covariance that a pilot run has
  measured (`scoresde.score.pilot`), or, without a pilot, under that of Gaussians of all variances.
- The same covariance foretells the error of every step of every grid. The grid is the one on which
  each step has an equal share in the error at the end, which makes that least.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.quadrature import gauss_legendre
from scoresde.samplers.multistep.interpolation import Interpolation, Measured
from scoresde.samplers.multistep.methods import TauMultistep
from scoresde.score import Pilot
from scoresde.sde import SDE, Facts, Moments
from scoresde.sde.coordinates import level_range
from scoresde.sde.spacings import snapped, times_of_levels, uniform_times

__all__ = ["Fast"]

# The grid: rounds of equidistribution, how far each goes, and the share of steps that are uniform.
_ROUNDS, _DAMPING, _UNIFORM = 12, 0.5, 0.1
# More steps than these share the cells of their grid evenly.
_FINEST = 256


@dataclass(frozen=True)
class Fast(TauMultistep):
    r"""Multistep with measured weights on a measured grid, and a free corrector.

    A pilot of 64 evaluations serves every number of steps. `scoresde.sample(model, sde, "fast")`
    takes the model's own (`model.pilot`); without any, the weights are those for Gaussian data of
    unknown variances. Guided and conditioned scores may use the pilot of their model: it sets
    weights and steps, and not (to a millionth part) what they converge to.

    Args:
        order: Residuals that a step uses, 1 to 6.
        corrector: Residuals that the corrector uses beside the newest.
        tau: $\tau$, 0 for the probability flow.
        window: The noise-to-signal ratios between which noise is added.
        pilot: What `scoresde.pilot` measured, or `None`.
    """

    steps: ClassVar[int] = 20
    uses_pilot = True
    order: int = 4
    corrector: int = 3
    pilot: Pilot | None = None

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> Fast:
        """Return it with the score's pilot, if it has one and none was given."""
        return self if self.pilot else replace(self, pilot=facts.pilot)

    def gaussian(self, sde: SDE, moments: Moments | None) -> Moments:
        """Return the pilot's, or the data's own; standardised data where neither is known."""
        if self.pilot is not None:
            return self.pilot.moments
        return Moments(0.0, var=1.0) if moments is None else moments

    def interpolation(self, sde: SDE, moments: Moments | None) -> Interpolation:
        """Return the best linear prediction."""
        return Measured(self._pilot(sde, moments), self.tau)

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """The grid whose steps share the error equally; on a ladder the levels nearest to it."""
        plain = uniform_times(sde, steps)
        n = len(plain) - 1
        if n == 1 or n + 1 == sde.levels:
            return plain
        ends = tuple(level_range(sde).tolist())
        pilot = self._pilot(sde, moments)
        m = min(n, _FINEST)
        grid = _grid(pilot, ends, m, self.order, self.corrector)
        position = torch.linspace(0, m, n + 1, dtype=torch.float64)
        cell = position.long().clamp(max=m - 1)
        t = times_of_levels(sde, torch.lerp(grid[cell], grid[cell + 1], position - cell))
        return t if sde.levels is None else snapped(sde, t)

    def _pilot(self, sde: SDE, moments: Moments | None) -> Pilot:
        if self.pilot is not None:
            return self.pilot
        low, high = level_range(sde).tolist()
        return _prior(low, high, None if moments is None else moments.mean_variance())


_prior = lru_cache(maxsize=64)(Pilot.prior)


@lru_cache(maxsize=64)
def _grid(pilot: Pilot, ends: tuple[float, float], n: int, order: int, corrector: int) -> Tensor:
    """Levels `(n + 1,)` on which the steps' shares of the end's error are equal (de Boor 1973)."""
    low, high = ends
    grid = torch.linspace(low, high, n + 1, dtype=torch.float64)
    best, least = grid, float("inf")
    for _ in range(_ROUNDS):
        u = (pilot.moments.mean_variance() + torch.exp(-2 * grid[1:])).sqrt()
        errors = u**pilot.growth * step_errors(pilot, grid, order, corrector)
        if float(errors.sum()) < least:
            best, least = grid, float(errors.sum())
        h = grid.diff()
        density = errors.clamp(min=1e-300) ** (1 / (order + 1)) / h
        density = density + _UNIFORM * (density * h).sum() / (high - low)
        if n > 6:
            padded = torch.cat((density[:1], density, density[-1:]))
            density = (padded[:-2] + 2 * density + padded[2:]) / 4
        mass = torch.cat((grid.new_zeros(1), (density * h).cumsum(0)))
        wanted = torch.linspace(0, float(mass[-1]), n + 1, dtype=torch.float64)
        cell = torch.searchsorted(mass, wanted[1:-1]).clamp(1, n) - 1
        inner = grid[cell] + (wanted[1:-1] - mass[cell]) / density[cell]
        grid = torch.cat((grid[:1], torch.lerp(grid[1:-1], inner, _DAMPING), grid[-1:]))
    return best


def step_errors(pilot: Pilot, levels: Tensor, order: int, corrector: int) -> Tensor:
    r"""Return the foretold root mean square error of each step, in units of $U$.

    Args:
        pilot: What was measured.
        levels: The grid, `(N + 1,)`, increasing.
        order: Residuals that a step uses.
        corrector: Residuals that its corrector uses beside the newest; the last step has none.

    Returns:
        The errors `(N,)`.
    """
    n, first = len(levels) - 1, 0
    c = pilot.moments.mean_variance()
    errors = levels.new_zeros(n)
    while first < n:
        new = int(corrector > 0 and first < n - 1)
        full = corrector if new else order
        m = min(full, first + 1)
        # all steps with a full memory at once, but for the last one, which has no corrector
        last = max(n - int(corrector > 0), first + 1) if m == full else first + 1
        steps = torch.arange(first, last)
        at, weight = gauss_legendre(levels[steps, None], levels[steps + 1, None])
        nodes = levels[steps[:, None] + new - torch.arange(m + new)]
        gap = pilot.features(at) - pilot.predict(nodes, at) @ pilot.features(nodes)
        weight = weight / (c + torch.exp(-2 * at)).sqrt()
        errors[steps] = torch.einsum("nq,nqr->nr", weight, gap).norm(dim=-1)
        first = last
    return errors

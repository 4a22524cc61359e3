r"""Define the fast sampler: a multistep method with weights and steps computed for the model.

The exponential integrator of `scoresde.samplers.multistep.integrator` leaves three choices. They
are made here from the moments of the data and a pilot run of the model:

- The Gaussian whose part is solved exactly has the moments of the data.
- The residual is extrapolated by its best linear prediction. The covariance for this was measured
  in a pilot run (`scoresde.score.pilot`); without a pilot, it is the average over Gaussians of many
  variances.
- The same covariance predicts the error of every step of any grid. The grid is chosen such that
  every step contributes the same error to the samples, which minimises the total error.

For few steps, corrections that were fitted to the trajectories of the pilot run are added to the
weights (`scoresde.sampling.fit`).

With noise, a step follows the probability flow beyond its end, and then noise is added up to the
noise level of the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from scoresde.quadrature import gauss_legendre
from scoresde.samplers.multistep.integrator import (
    ExponentialMultistep,
    Step,
    integrate,
    weighted_sum,
)
from scoresde.samplers.multistep.interpolation import Interpolation, Measured
from scoresde.samplers.multistep.methods import DPMSolverPP, TauMultistep
from scoresde.samplers.sampler import NoiseLike, State
from scoresde.score import Fit, Pilot, Setting
from scoresde.sde import SDE, Facts, Moments, ReverseSDE
from scoresde.sde.coordinates import half_log_snr_range
from scoresde.sde.spacings import even_times, snapped, times_of_half_log_snr, uniform_times

__all__ = ["SETTINGS", "Fast", "usual_setting", "with_numbers"]

SETTINGS = (
    Setting(4, 0, 0.0),
    Setting(2, 3, 0.0),
    Setting(3, 3, 0.0),
    Setting(4, 3, 0.0),
    Setting(3, 3, 1.0),
    Setting(4, 0, 1.5),
    Setting(3, 0, 0.0),
    Setting(2, 1, 0.0),
)
"""The settings that are tried for a model. They were the best on the arena's tuning problems, and
order 3 with growth 1 also on a learned model of digits."""

# Pairs of a number of steps, and the setting that had the smallest errors up to this number.
_USUAL = ((7, SETTINGS[0]), (11, SETTINGS[1]), (29, SETTINGS[2]))
# With this number of steps or more, the weights for unknown variances were never worse than the
# weights of "dpmpp_2m". So `Fast` without a pilot uses them.
_MANY = 45
# For the grid: the number of rounds that equalise the errors of the steps, the fraction of the way
# that each round moves, and the share of uniform steps.
_ROUNDS, _DAMPING, _UNIFORM = 12, 0.5, 0.1
# If noise is added, the grid is a mixture, with this share of the pilot's grid. The pilot's grid
# alone has too few steps for a mode that is much narrower than the others.
_SHARE = 0.7
# The largest number of steps for which a grid is computed. For more steps, the steps of this grid
# are divided evenly.
_FINEST = 256
# Fitted numbers are used if each time equals that of their grid up to this relative difference.
_SAME_GRID = 1e-4


@dataclass(frozen=True)
class Fast(TauMultistep):
    r"""Sample by a multistep method with a corrector, with weights and grid made for the model.

    `scoresde.sample(model, sde, "fast")` uses the pilot of the model, `model.pilot`; measuring it
    takes 64 evaluations. For few steps it uses the orders and the grid with which the samples were
    nearest to the samples of the pilot run. Without a pilot, without noise and with the default
    `order` and `corrector` it is `"dpmpp_2m"` up to 44 steps. Otherwise, without a pilot it uses
    weights for Gaussian data of unknown variances.

    Guided and conditioned scores may use the pilot of their model, since the pilot affects only
    weights and steps: it changes the limit of many steps by less than one part in a million. The
    corrector uses the evaluation that the next step needs anyway, so it costs nothing.

    Args:
        order: The number of residuals that a step uses, 1 to 6. By default it is chosen with the
            pilot, or for the number of steps.
        corrector: The number of residuals that the corrector uses besides the newest residual. By
            default it is chosen in the same way as `order`.
        tau: $\tau$, 0 for the probability flow.
        window: The noise-to-signal ratios between which noise is added.
        pilot: The result of `scoresde.pilot`, or `None`.
        fit: Correct the weights by numbers that were fitted to the pilot run. The numbers are left
            out under guidance, on another grid than in the fit, and if noise is added.
    """

    steps: ClassVar[int] = 20
    uses_pilot = True
    conditional = False  # a step draws from p_s, but not given the state at t
    order: int = Setting.order
    corrector: int = Setting.corrector
    pilot: Pilot | None = None
    fit: bool = True

    @property
    def auditioned(self) -> bool:
        """Return True if no noise is added and neither order nor corrector is given."""
        return not self.stochastic and self._open

    @property
    def _open(self) -> bool:
        return (self.order, self.corrector) == (Setting.order, Setting.corrector)

    def prepared(self, facts: Facts, sde: SDE, *, nfe: int | None = None) -> Fast:
        """Return this sampler with the pilot of the score, unless it already has a pilot."""
        own = self.pilot or callable(facts.pilot)
        return replace(
            self, pilot=self.pilot if own else facts.pilot,
            fit=self.fit and facts.density is not False,
        )  # fmt: skip

    def gaussian(self, sde: SDE, moments: Moments | None) -> Moments:
        """Return the moments of the pilot, or else of the data, or else mean 0 and variance 1."""
        if self.pilot is not None:
            return self.pilot.moments
        return Moments(0.0, var=1.0) if moments is None else moments

    def log_phi(self, rho: Tensor, log_u: Tensor, ends: Tensor) -> Tensor:
        r"""Return $\log U$, as for the probability flow."""
        return log_u

    def rate(self, rho: Tensor, ends: Tensor) -> Tensor:
        """Return 1, as for the probability flow."""
        return torch.ones_like(rho)

    def reach(self, ell: Tensor) -> Tensor:
        r"""Return $\ell_s + w \tau^2 (\ell_s - \ell_t)$ for a step from t to s.

        Here w is the share of the step in the window. So the noise has the variance
        $\rho_s^2 (1 - (\rho_s / \rho_t)^{2 w \tau^2})$, for data of any variance. Noise within the
        step, as in the other methods, would have that of the mean variance of the data, which may
        be much more than $\rho_s^2$. It moved mass from narrow modes to wide ones.
        """
        return ell[:, 1:] + self.noise(torch.exp(-ell)) * ell.diff()

    def interpolation(self, sde: SDE, moments: Moments | None) -> Interpolation:
        """Return the best linear prediction with the pilot's covariance.

        If noise is added, return the prediction for Gaussians of many variances, since the pilot
        measured its covariance along the probability flow, without noise.
        """
        pilot = self._pilot(sde, moments) if not self.stochastic else self._assumed(sde, moments)
        return Measured(pilot, self.tau)

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return the grid with equal errors of all steps, or the nearest levels of a ladder."""
        plain = uniform_times(sde, steps)
        n = len(plain) - 1
        if n == 1 or n + 1 == sde.levels:
            return plain
        if self._plain(n):
            return even_times(sde, steps)
        ends = tuple(half_log_snr_range(sde).tolist())
        pilot = self._pilot(sde, moments)
        m = min(n, _FINEST)
        fit = self._fit(sde, n)
        grid = _grid(pilot, ends, m, fit.setting if fit else self._setting(n))
        if self.stochastic:
            grid = torch.lerp(_grid(self._assumed(sde, moments), ends, m, Setting()), grid, _SHARE)
        position = torch.linspace(0, m, n + 1, dtype=torch.float64)
        cell = position.long().clamp(max=m - 1)
        t = times_of_half_log_snr(sde, torch.lerp(grid[cell], grid[cell + 1], position - cell))
        return t if sde.levels is None else snapped(sde, t)

    def for_run(self, sde: SDE, times: Tensor) -> ExponentialMultistep:
        """Return this sampler with the setting for a run, or "dpmpp_2m"."""
        if self._plain(len(times) - 1):
            return _PLAIN
        setting, _ = self._fitted(sde, times)
        return replace(self, order=setting.order, corrector=setting.corrector)

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states at `times[1:]`, each before its correction."""
        _, rows = self._fitted(rsde.sde, times)
        left = iter(rows)

        def fitted(step: Step, *arguments: Any) -> Tensor:
            return weighted_sum(with_numbers(step, next(left, ())), *arguments)

        method = self.for_run(rsde.sde, times)
        return integrate(method, rsde, x, times, noise, fitted if rows else None)

    def _fitted(self, sde: SDE, times: Tensor) -> tuple[Setting, tuple[tuple[float, ...], ...]]:
        """Return the setting of a run, and the numbers that were fitted on the same grid."""
        n = len(times) - 1
        fit = self._fit(sde, n)
        if fit and torch.allclose(times, self.times(sde, n), rtol=_SAME_GRID, atol=0):
            return fit.setting, fit.rows
        return self._setting(n), ()

    def _fit(self, sde: SDE, n: int) -> Fit | None:
        """Return the fit for n steps, if the SDE has the noise levels of the pilot, else None."""
        if not (self.fit and self.auditioned and self.pilot and n in self.pilot.fits):
            return None
        ends = self.pilot.ell[[0, -1]]
        same = torch.allclose(half_log_snr_range(sde), ends, rtol=0, atol=_SAME_GRID)
        return self.pilot.fits[n] if same else None

    def _plain(self, n: int) -> bool:
        """Return True if "dpmpp_2m" is used for n steps: without a pilot it may be better."""
        return self.pilot is None and self.auditioned and n < _MANY

    def _setting(self, n: int) -> Setting:
        """Return the setting for n steps: given, or chosen with the pilot, or the usual setting."""
        if not self._open or self.stochastic:
            return Setting(self.order, self.corrector, self.pilot.growth if self.pilot else 0.0)
        return (self.pilot.choices if self.pilot else {}).get(n, usual_setting(n))

    def _pilot(self, sde: SDE, moments: Moments | None) -> Pilot:
        return self._assumed(sde, moments) if self.pilot is None else self.pilot

    def _assumed(self, sde: SDE, moments: Moments | None) -> Pilot:
        """Return a pilot for the known moments that is assumed if none was measured."""
        known = moments if self.pilot is None else self.pilot.moments
        low, high = half_log_snr_range(sde).tolist()
        return _prior(low, high, None if known is None else known.mean_variance())


# The method that "fast" uses without a pilot.
_PLAIN = DPMSolverPP()

_prior = lru_cache(maxsize=64)(Pilot.prior)


@lru_cache(maxsize=64)
def _grid(pilot: Pilot, ends: tuple[float, float], n: int, setting: Setting) -> Tensor:
    r"""Return a grid $\ell$, `(n + 1,)`, whose steps contribute equal errors (de Boor 1973)."""
    low, high = ends
    grid = torch.linspace(low, high, n + 1, dtype=torch.float64)
    best, least = grid, float("inf")
    for _ in range(_ROUNDS):
        u = (pilot.moments.mean_variance() + torch.exp(-2 * grid[1:])).sqrt()
        errors = u**setting.growth * step_errors(pilot, grid, setting.order, setting.corrector)
        if float(errors.sum()) < least:
            best, least = grid, float(errors.sum())
        h = grid.diff()
        density = errors.clamp(min=1e-300) ** (1 / (setting.order + 1)) / h
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


def with_numbers(step: Step, numbers: Sequence[float]) -> Step:
    """Return the weights of a step with a number added to each; missing numbers are 0."""
    if not numbers:
        return step
    keep, weights, spread = step
    added = (*numbers[1:], *[0.0] * len(weights))
    weights = tuple(weight + number for weight, number in zip(weights, added, strict=False))
    return keep + numbers[0], weights, spread


def usual_setting(n: int) -> Setting:
    """Return the setting for n steps if the pilot has no choice for n."""
    return next((setting for most, setting in _USUAL if n <= most), Setting())


def step_errors(pilot: Pilot, ell: Tensor, order: int, corrector: int) -> Tensor:
    r"""Return the predicted root mean square error of each step, in units of $U$.

    Args:
        pilot: The pilot, or a pilot that is assumed if none was measured.
        ell: The grid $\ell$, `(N + 1,)`, increasing.
        order: The number of residuals that a step uses.
        corrector: The number of residuals that the corrector uses besides the newest residual; the
            last step has no corrector.

    Returns:
        The errors `(N,)`.
    """
    n, first = len(ell) - 1, 0
    c = pilot.moments.mean_variance()
    errors = ell.new_zeros(n)
    while first < n:
        new = int(corrector > 0 and first < n - 1)
        full = corrector if new else order
        m = min(full, first + 1)
        # compute all steps with m residuals together, except the last step, which has no corrector
        last = max(n - int(corrector > 0), first + 1) if m == full else first + 1
        steps = torch.arange(first, last)
        at, weight = gauss_legendre(ell[steps, None], ell[steps + 1, None])
        nodes = ell[steps[:, None] + new - torch.arange(m + new)]
        gap = pilot.unpredicted(nodes, at)
        weight = weight / (c + torch.exp(-2 * at)).sqrt()
        errors[steps] = torch.einsum("nq,nqr->nr", weight, gap).norm(dim=-1)
        first = last
    return errors

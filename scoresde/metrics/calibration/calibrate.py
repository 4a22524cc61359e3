r"""Whether conditional samples are of the posterior, by simulated data whose truth is known.

Draw $\theta \sim p(\theta)$, $y \sim p(y | \theta)$ and $\theta_1, \dots, \theta_L$ for $y$. If the
draws are of $p(\theta | y)$, the truth is one more of them, so that its place among them in any
number $f(\theta, y)$ is uniform (Cook, Gelman & Rubin 2006, doi:10.1198/106186006X136976; Talts et
al. 2018, arXiv:1804.06788). Entries and projections of $\theta$ do not see draws of the prior,
which ignore y. So two numbers depend on y: the log-likelihood $\log p(y | \theta)$, where it is
given (Modrák et al. 2023, arXiv:2211.02383), and the distance to a point that y decides (TARP,
Lemos et al. 2023, arXiv:2302.03026), here the parameter of the simulation with the nearest data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from scoresde.checks import check_integer, check_range, door, quoted, seeded
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.metrics.calibration.ranks import Directions, energy_scores, nearest, position
from scoresde.metrics.calibration.result import Calibration, Quantity
from scoresde.metrics.checks import finite
from scoresde.metrics.interval import mean_interval
from scoresde.metrics.resampling import Estimate

__all__ = ["calibrate"]

Draw = Callable[[Tensor, int, int], Tensor]
"""`draw(y, k, seed)`: k draws for each of the data sets y `(m, *)`: `(m, k, *event)`."""
Simulate = Callable[[int, int], tuple[Tensor, Tensor]]
"""`simulate(n, seed)`: parameters `(n, *event)` of the prior, and data `(n, *)` for each."""
LogDensity = Callable[[Tensor, Tensor], Tensor]
"""`f(theta, y)`: one number for each row, `(m,)`."""

# The most entries of a parameter that are looked at one by one, and how many projections.
_ENTRIES, _PROJECTIONS = 16, 8
# How many more data sets a second run has, after an alarm.
_MORE = 4


@door
def calibrate(
    draw: Draw,
    simulate: Simulate,
    *,
    n: int = 6000,
    draws: int = 99,
    log_likelihood: LogDensity | None = None,
    log_density: LogDensity | None = None,
    level: float = 0.01,
    rerun: bool = True,
    batch_size: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> Calibration:
    r"""Test whether draws are of the posterior of a simulator.

    Looked at are up to 16 entries of the parameter and 8 random projections, the distance to a
    point that depends on y, and the log-likelihood. Each is tested four ways: the distribution of
    the truth's places (a simultaneous band), the sum of the squares of their normal deviates
    ($\chi^2$), and the coverage of central intervals of 50 and 90 %. All are exact, and Holm's
    adjustment makes `level` the probability of a false alarm in all. An alarm is followed by one
    more run, of four times as many other data sets, which decides.

    Args:
        draw: `draw(y, k, seed)`, k samples for each row of y `(m, *)`, `(m, k, *event)`.
        simulate: `simulate(n, seed)`, parameters `(n, *event)` and their data `(n, *)`.
        n: Data sets, at least 20. With 6,000 draws that are .9 of their width, or .1 of it off in
            one entry, are found more than 99 times in 100.
        draws: Draws for each, at least 2.
        log_likelihood: `f(theta, y)`, $\log p(y | \theta)$ up to a function of y, `(m,)`.
        log_density: `f(theta, y)`, the log-density of the posterior that is tested, whose mean at
            the truth tells how sharp it is.
        level: The probability that draws of the posterior raise an alarm, in (0, 1).
        rerun: Whether an alarm is looked into once more.
        batch_size: Data sets for which draws are made at once.
        seed: The randomness, that of `draw` and `simulate` too.
        progress: Whether to show a bar; None shows it on a terminal.

    Raises:
        InvalidValueError: A number is out of range.
        InvalidTypeError, ShapeError, NonFiniteError: A function returned something else.

    Examples:
        >>> def simulate(n, seed):
        ...     g = torch.Generator().manual_seed(seed)
        ...     theta = torch.randn(n, 1, generator=g)
        ...     return theta, theta + torch.randn(n, 1, generator=g)
        >>> def draw(y, k, seed):  # of the exact posterior, N(y / 2, 1 / 2)
        ...     g = torch.Generator().manual_seed(seed)
        ...     return y[:, None] / 2 + 0.5**0.5 * torch.randn(len(y), k, 1, generator=g)
        >>> calibrate(draw, simulate, n=500).passed
        True
    """
    check_integer("n", n, 20)
    check_integer("draws", draws, 2)
    check_integer("batch_size", batch_size, 1)
    check_range("level", level, "(0, 1)")
    study = _Study(draw, simulate, draws, log_likelihood, log_density, level, batch_size, progress)
    first, second = torch.randint(2**62, (2,), generator=seeded(seed)).tolist()
    found = study.run(n, first)
    if found.passed or not rerun:
        return found
    return replace(study.run(_MORE * n, second), first=found)


@dataclass(frozen=True)
class _Study:
    """What is tested, and how."""

    draw: Draw
    simulate: Simulate
    draws: int
    log_likelihood: LogDensity | None
    log_density: LogDensity | None
    level: float
    batch_size: int
    progress: bool | None

    def run(self, n: int, seed: int) -> Calibration:
        """Return what n data sets say."""
        g = seeded(seed)
        own, other, third = torch.randint(2**62, (3,), generator=g).tolist()
        theta, y = self._pairs(n, own)
        others, data = self._pairs(n, other)
        scale, size = (_spread(part.reshape(n, -1)) for part in (others, data))
        near = nearest(y.reshape(n, -1) / size, data.reshape(n, -1) / size)
        directions = Directions.of(scale, _ENTRIES, _PROJECTIONS, g)
        blind = torch.randint(n, (n, self.draws), generator=g)  # of the prior
        ties: dict[str, Tensor] = {}
        places: dict[str, list[Tensor]] = {}
        scores: list[Tensor] = []
        for rows, drawn in self._drawn(theta, y, seeded(third)):
            truth, flat = theta[rows].flatten(1), drawn.flatten(2)
            found = directions.numbers(truth, flat)
            point = others[near[rows]].flatten(1)
            found["distance"] = (
                ((truth - point) / scale).norm(dim=1),
                ((flat - point[:, None]) / scale).norm(dim=2),
            )
            if self.log_likelihood is not None:
                found["log-likelihood"] = self._likelihoods(theta[rows], y[rows], drawn)
            for name, (true, of_draws) in found.items():
                if name not in ties:
                    ties[name] = torch.rand(n, generator=g, dtype=torch.float64)
                places.setdefault(name, []).append(position(true, of_draws, ties[name][rows]))
            prior = others[blind[rows]].flatten(2)
            pair = [energy_scores(truth / scale, part / scale) for part in (flat, prior)]
            scores.append(torch.stack(pair))
        energy, before = torch.cat(scores, 1)
        known = None
        if self.log_density is not None:
            known = _estimate(_numbers("log_density", self.log_density(theta, y), n))
        return Calibration(
            quantities=tuple(Quantity.of(name, torch.cat(u)) for name, u in places.items()),
            n=n,
            draws=self.draws,
            level=self.level,
            energy=_estimate(energy),
            skill=_skill(energy, before),
            log_density=known,
        )

    def _pairs(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return parameters and data of the simulator, checked."""
        found = self.simulate(n, seed)
        if not isinstance(found, tuple) or len(found) != 2:
            raise InvalidTypeError(
                f"simulate(n, seed) must return parameters and data, got {quoted(found)}"
            )
        theta, y = (finite(name, part) for name, part in zip(("theta", "y"), found, strict=True))
        if theta.ndim < 2 or y.ndim < 1 or len(theta) != n or len(y) != n or not theta.numel():
            raise ShapeError(
                f"simulate({n}, seed) must return parameters ({n}, *event) and data ({n}, *), got "
                f"{tuple(theta.shape)} and {tuple(y.shape)}"
            )
        return theta.cpu(), y.cpu()

    def _drawn(
        self, theta: Tensor, y: Tensor, g: torch.Generator
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows, and the draws `(m, L, *event)` for their data."""
        n, event = len(theta), theta.shape[1:]
        hidden = None if self.progress is None else not self.progress
        with tqdm(total=n, desc="calibrating", unit="data set", disable=hidden, leave=False) as bar:
            for first in range(0, n, self.batch_size):
                rows = slice(first, min(first + self.batch_size, n))
                seed = int(torch.randint(2**62, (), generator=g))
                part = y[rows]
                drawn = finite("the draws", self.draw(part, self.draws, seed))
                expected = (len(part), self.draws, *event)
                if drawn.shape != expected:
                    raise ShapeError(
                        "draw(y, k, seed) must return k draws for each data set, shape "
                        f"{expected}, got {tuple(drawn.shape)}"
                    )
                yield rows, drawn.cpu()
                bar.update(len(part))

    def _likelihoods(self, theta: Tensor, y: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-likelihoods of truths `(m,)` and draws `(m, L)`."""
        assert self.log_likelihood is not None
        m, count = drawn.shape[:2]
        many = self.log_likelihood(drawn.flatten(0, 1), y.repeat_interleave(count, 0))
        own = self.log_likelihood(theta, y)
        what = "log_likelihood"
        return _numbers(what, own, m), _numbers(what, many, m * count).reshape(m, count)


def _numbers(name: str, value: object, n: int) -> Tensor:
    """Return a function's values, `(n,)` float64; minus infinity is where nothing can be."""
    if not isinstance(value, Tensor) or value.is_complex():
        raise InvalidTypeError(f"{name}(theta, y) must return numbers, got {quoted(value)}")
    if value.shape != (n,):
        raise ShapeError(
            f"{name}(theta, y) must return one number for each of {n} rows, got shape "
            f"{tuple(value.shape)}"
        )
    value = value.detach().double().cpu()
    if value.isnan().any() or (value == math.inf).any():
        raise NonFiniteError(f"{name}(theta, y) returned NaN or infinity")
    return value


def _spread(x: Tensor) -> Tensor:
    """Return the standard deviations of columns, 1 where a column is constant."""
    std = x.std(0)
    return torch.where(std > 0, std, 1.0)


def _estimate(values: Tensor) -> Estimate:
    if not values.isfinite().all():
        raise InvalidValueError("the log-density of the truth is minus infinity for some data sets")
    return Estimate(float(values.mean()), *mean_interval(values))


def _skill(energy: Tensor, before: Tensor) -> Estimate:
    """Return 1 less the ratio of two means, with its interval to first order."""
    ratio, scale = energy.mean() / before.mean(), before.mean()
    low, high = mean_interval((energy - ratio * before) / scale)
    value = float(1 - ratio)
    return Estimate(value, value - high, value - low)

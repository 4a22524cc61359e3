r"""Run a calibration once: make draws for the data of each pair, and test them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.checks import as_numbers, check_integer, check_range, quoted, seeded
from scoresde.errors import (
    DataError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
)
from scoresde.metrics.calibration.ranks import Directions, energy_scores, nearest, position
from scoresde.metrics.calibration.result import Calibration, Quantity
from scoresde.metrics.checks import check_squares, finite
from scoresde.metrics.interval import mean_interval
from scoresde.metrics.resampling import Estimate
from scoresde.progress import showing

__all__ = ["Draw", "LogDensity", "Pairs", "Study", "checked"]

Draw = Callable[[Tensor, int, int], Tensor]
"""`draw(y, k, seed)` returns `(m, k, *event)`: k draws for each of the m data sets y `(m, *)`."""
LogDensity = Callable[[Tensor, Tensor], Tensor]
"""`f(theta, y)` returns one number for each row, `(m,)`."""
Pairs = tuple[Tensor, Tensor]
"""Parameters `(n, *event)` and data `(n, *)`, both finite."""

# At most this many entries of a parameter are tested; the number of random projections.
_ENTRIES, _PROJECTIONS = 16, 8
_REMEDY = "divide the parameters, and likewise the data, by their standard deviation"


@dataclass(frozen=True)
class Study:
    """Hold the arguments of `calibrate` or `calibrate_pairs`.

    Raises:
        InvalidValueError: A number is out of range.
    """

    draw: Draw
    draws: int
    log_likelihood: LogDensity | None
    log_density: LogDensity | None
    level: float
    batch_size: int
    progress: bool | None
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_integer("draws", self.draws, 2)
        check_integer("batch_size", self.batch_size, 1)
        check_range("level", self.level, "(0, 1)")

    def run(self, tested: Pairs, other: Pairs, g: torch.Generator) -> Calibration:
        """Make the draws for some pairs, and return their calibration.

        Args:
            tested: The pairs whose parameters are ranked among the draws.
            other: Further independent pairs, which give the reference points, the standard
                deviations of the parameters and data, and draws from the prior.
            g: The generator of all random numbers and of the seeds for `draw`.
        """
        draw_seed = int(torch.randint(2**62, (), generator=g))
        (theta, y), (others, data) = tested, other
        n = len(theta)
        if not others.std(0).any():
            raise DataError(
                "all parameters are equal, so there is nothing to test; give parameters that vary"
            )
        scale, size = (_spread(part.reshape(len(part), -1)) for part in (others, data))
        near = nearest(y.reshape(n, -1) / size, data.reshape(len(data), -1) / size)
        if self.names and len(self.names) != len(scale):
            raise ShapeError(f"need a name for each of {len(scale)} entries, got {len(self.names)}")
        entries = [f"entry {name}" if _is_taken(name) else name for name in self.names]
        directions = Directions.of(scale, _ENTRIES, _PROJECTIONS, g, entries)
        # the rows of `other` that serve as draws from the prior
        blind = torch.randint(len(others), (n, self.draws), generator=g)
        order = torch.rand(n, self.draws, generator=g, dtype=torch.float32).argsort(1)
        ties: dict[str, Tensor] = {}
        places: dict[str, list[Tensor]] = {}
        scores: list[Tensor] = []
        for rows, drawn in self._drawn(theta, y, seeded(draw_seed)):
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
            pair = [
                energy_scores(truth / scale, part / scale, order[rows]) for part in (flat, prior)
            ]
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

    def _drawn(
        self, theta: Tensor, y: Tensor, g: torch.Generator
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of m rows, each with the draws `(m, L, *event)` for their data."""
        n, event = len(theta), theta.shape[1:]
        with showing(n, "calibrating", unit="data set", show=self.progress) as bar:
            for first in range(0, n, self.batch_size):
                rows = slice(first, min(first + self.batch_size, n))
                seed = int(torch.randint(2**62, (), generator=g))
                part = y[rows]
                given = as_numbers("the draws", self.draw(part.clone(), self.draws, seed))
                drawn = finite("the draws", given)
                check_squares("the draws", drawn, _REMEDY)
                expected = (len(part), self.draws, *event)
                if drawn.shape != expected:
                    raise ShapeError(
                        "draw(y, k, seed) must return k draws for each data set, shape "
                        f"{expected}, got {tuple(drawn.shape)}"
                    )
                yield rows, drawn.cpu()
                bar.update(len(part))

    def _likelihoods(self, theta: Tensor, y: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-likelihoods of the true parameters `(m,)` and of the draws `(m, L)`."""
        assert self.log_likelihood is not None
        m, count = drawn.shape[:2]
        many = self.log_likelihood(drawn.flatten(0, 1), y.repeat_interleave(count, 0))
        true = self.log_likelihood(theta, y)
        what = "log_likelihood"
        return _numbers(what, true, m), _numbers(what, many, m * count).reshape(m, count)


def checked(theta: Tensor, y: Tensor, demand: str, n: int | None = None) -> Pairs:
    """Check parameters and data, and return them in float64 on the CPU.

    Args:
        theta: `(n, *event)`.
        y: `(n, *)`.
        demand: The beginning of the message of a ShapeError.
        n: The required number of pairs; None for any.

    Raises:
        InvalidTypeError, ShapeError: A type or a shape is wrong.
        NonFiniteError: A number is NaN or infinite, or its square overflows or underflows.
    """
    theta, y = (finite(k, as_numbers(k, part)) for k, part in (("theta", theta), ("y", y)))
    n = len(theta) if n is None and theta.ndim else n
    if theta.ndim < 2 or y.ndim < 1 or len(theta) != n or len(y) != n or not theta.numel():
        count = "n" if n is None else n
        raise ShapeError(
            f"{demand} parameters ({count}, *event) and data ({count}, *), got "
            f"{tuple(theta.shape)} and {tuple(y.shape)}"
        )
    check_squares("theta", theta, _REMEDY)
    check_squares("y", y, _REMEDY)
    return theta.cpu(), y.cpu()


def _is_taken(name: str) -> bool:
    """Return True if another tested quantity already has this name."""
    return name in ("distance", "log-likelihood") or name.startswith("projection ")


def _numbers(name: str, value: object, n: int) -> Tensor:
    """Check the values of a function, `(n,)`, which may be -inf, and return them in float64."""
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
    """Return the standard deviation of each column, or 1 if the column is constant."""
    std = x.std(0)
    return torch.where(std > 0, std, 1.0)


def _estimate(values: Tensor) -> Estimate:
    if not values.isfinite().all():
        raise InvalidValueError(
            "log_density(theta, y) is minus infinity for some of the true parameters; it must be "
            "finite for every true parameter"
        )
    return Estimate(float(values.mean()), *mean_interval(values))


def _skill(energy: Tensor, before: Tensor) -> Estimate:
    """Return 1 minus the ratio of two means, with an interval from the linearised ratio."""
    ratio, scale = energy.mean() / before.mean(), before.mean()
    low, high = mean_interval((energy - ratio * before) / scale)
    value = float(1 - ratio)
    return Estimate(value, value - high, value - low)

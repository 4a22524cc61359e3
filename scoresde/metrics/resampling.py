r"""How sure a comparison is: its spread over random halves of both sets.

A bootstrap gives the rows of a sample random weights. The weights here are 0 and 2, each on a half:
with $\theta_n$ the figure of n rows, and $\theta_b$ that of the half b, the law of
$\theta_b - \bar\theta$ is to first order that of $\theta_n - E \theta_n$ (Praestgaard & Wellner
1993, doi:10.1214/aop/1176989011; in its variance, the jackknife that leaves out half of the rows,
Shao & Wu 1989, doi:10.1214/aos/1176347263). Hence, with s the standard deviation of $\theta_b$ and
t a quantile of Student's law, the interval $\theta_n \pm t\, s$ for $E \theta_n$, within the values
that it can have. Its degrees of freedom are $1 / (1 / (B - 1) + 7 / n)$: $s^2$ is that of B halves,
of n rows, and errs by the second term where the rows' parts in the figure have a kurtosis of 15, as
the square of a normal number has.

Most distances here are squares, $\theta = \|m\|^2$ of the mean m of something. Then the variance of
$\theta_n$ is not that at the truth $\theta$, but grows with it: about as $s^2 \theta / \theta_n$
far from 0, and is nearly constant near 0. Asking, as Wilson (1927,
doi:10.1080/01621459.1927.10502953) did of shares, which $\theta$ have $\theta_n$ within t of
their own standard deviations, at the variance

$$ s^2 \Big(1 + \frac{\theta - \theta_n}{\sqrt{\theta_n^2 + 9 s^2}}\Big) \quad\text{gives}\quad
   \theta_n + \delta \pm \sqrt{t^2 s^2 + \delta^2}, \qquad
   \delta = \frac{t^2 s^2}{2 \sqrt{\theta_n^2 + 9 s^2}}, $$

cut off where a square cannot be: below 0, or below the bias $\bar\theta_b - \theta_n$ of a figure
that has one, less half of s for the error of that bias. Where two laws are equal, $\theta_n$ has no
term of first order and s is up to $\sqrt 3$ times too large; the cut makes up for it. The 9 was
chosen on a dozen pairs of laws at n = 100.

Drawing rows with replacement repeats them, which no comparison here stands: a row repeated is its
own neighbour at distance 0, pairs of one row enter the means over different pairs, and the bias of
the Fréchet distance is added once more. How often the intervals hold the truth is counted by
`examples/benchmarks/intervals`.

Halves agree where all samples, or none, are of one kind, as they are for a precision of 1. A share
of n samples has at least the uncertainty of n independent cases: its interval holds that of Wilson,
and the interval of the difference of two such shares that of Newcombe (`metrics.interval`). Of
other figures on which all halves agree nothing is known, and no difference is said to be one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_range, door
from scoresde.data import order
from scoresde.errors import InvalidValueError, NonFiniteError
from scoresde.metrics.interval import student

__all__ = ["Estimate", "check_resamples", "estimate", "halves"]

# How many spreads from 0 the variance of a square begins to grow with it.
_FLAT = 3


class Estimate(NamedTuple):
    """A figure, and an interval for what it is on average at this number of samples."""

    value: float
    low: float
    high: float

    def within(self, ends: tuple[float, float]) -> Estimate:
        """Return it with an interval that holds another one too."""
        return Estimate(self.value, min(self.low, ends[0]), max(self.high, ends[1]))

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@door
def halves(n: int, resamples: int, *, seed: int, stream: int = 0) -> Tensor:
    """Return all n rows, then random halves of them: `(1 + resamples, n)`, booleans.

    Args:
        n: How many rows there are, at least 2.
        resamples: How many halves: 0, or at least 2.
        seed: Their randomness, a 64-bit number.
        stream: Other halves of the same seed, for another set.

    Raises:
        InvalidValueError: A number is out of range.
    """
    check_integer("n", n, 2)
    check_resamples(resamples)
    check_integer("seed", seed, 0)
    chosen = torch.zeros(1 + resamples, n, dtype=torch.bool)
    chosen[0] = True
    for b in range(resamples):
        chosen[1 + b, order(n, seed=seed, epoch=(stream << 32) + b)[: n // 2]] = True
    return chosen


def check_resamples(resamples: int) -> None:
    """Raise InvalidValueError unless it is 0 or an integer of at least 2."""
    check_integer("resamples", resamples, 0)
    if resamples == 1:
        raise InvalidValueError("resamples must be 0 or at least 2, got 1: one half has no spread")


def estimate(
    values: Tensor,
    *,
    level: float = 0.95,
    limits: tuple[float, float] = (-math.inf, math.inf),
    square: bool = False,
    samples: float = math.inf,
) -> Estimate:
    r"""Return the figure of all rows, with the interval that its halves give.

    Args:
        values: `(1 + B,)`, the figure of all rows and those of B halves, B = 0 or at least 2.
        level: The probability that the interval is to have, in (0, 1).
        limits: The least and the largest value that the figure can have on average.
        square: Whether the figure estimates a square, whose error grows with it.
        samples: How many rows there are.

    Returns:
        The estimate; its ends are the figure where B is 0.

    Raises:
        InvalidValueError: `level` is out of range.
        NonFiniteError: A figure is NaN or infinite.
    """
    check_range("level", level, "(0, 1)")
    if not values.isfinite().all():
        raise NonFiniteError(
            f"a figure is not finite, {float(values[0])} of all rows; the features are too large "
            "or too far apart for it"
        )
    value = float(values[0])
    if len(values) < 3:
        return Estimate(value, value, value)
    parts = values[1:].double()
    size = float(parts.abs().max()) or 1.0  # their squares may leave float64
    freedom = 1 / (1 / (len(parts) - 1) + 7 / samples)
    t, spread = student(level, freedom), float((parts / size).std()) * size
    (low, high), lean = limits, 0.0
    if square and spread > 0:
        low = max(low, float(parts.mean()) - value - spread / 2)
        lean = t**2 * spread / (2 * math.hypot(max(value - low, 0) / spread, _FLAT))
    reach = math.hypot(t * spread, lean)
    ends = max(value + lean - reach, low), min(value + lean + reach, high)
    return Estimate(value, min(ends[0], value), max(ends[1], value))

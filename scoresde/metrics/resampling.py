r"""Compute intervals for figures from their spread over random halves of both sets.

A bootstrap gives the rows of a sample random weights. Here the weights are 0 and 2, each for half
of the rows. Let $\theta_n$ be the figure for all n rows, $\theta_b$ the figure for the half b, and
$\bar\theta$ the mean over B halves. To first order $\theta_b - \bar\theta$ is distributed like
$\theta_n - E \theta_n$ (Praestgaard & Wellner 1993, doi:10.1214/aop/1176989011; the variance is
that of the jackknife that leaves out half of the rows, Shao & Wu 1989, doi:10.1214/aos/1176347263).
So the interval for $E \theta_n$ is $\theta_n \pm t\, s$, where s is the standard deviation of
$\theta_b$ and t a quantile of Student's t distribution. The interval is limited to possible values.
The degrees of freedom are $1 / (1 / (B - 1) + 7 / n)$. The first term accounts for the error of
$s^2$ because there are only B halves, and the second for its error because there are only n rows.
For the second term, the contributions of the rows are assumed to have the kurtosis 15 of squared
normal numbers.

Most distances here are squares, $\theta = \|m\|^2$ with a mean m. Then the variance of $\theta_n$
depends on the true value $\theta$: it is about $s^2 \theta / \theta_n$ far from 0, and nearly
constant near 0. As Wilson (1927, doi:10.1080/01621459.1927.10502953) proposed for shares, the
interval contains all $\theta$ for which $\theta_n$ is within t standard deviations of $\theta$,
with the standard deviation that belongs to $\theta$. For the variance

$$ s^2 \Big(1 + \frac{\theta - \theta_n}{\sqrt{\theta_n^2 + 9 s^2}}\Big) \quad\text{it is}\quad
   \theta_n + \delta \pm \sqrt{t^2 s^2 + \delta^2}, \qquad
   \delta = \frac{t^2 s^2}{2 \sqrt{\theta_n^2 + 9 s^2}}. $$

This interval is limited to possible values too. Its lower end is at least 0, and at least
$\bar\theta - \theta_n - s / 2$, which is the bias minus a margin for the error of the bias. If two
distributions are equal, $\theta_n$ has no term of first order and s is up to $\sqrt 3$ times too
large; the lower limit compensates for this. The number 9 was chosen on a dozen pairs of
distributions at n = 100.

Rows are not drawn with replacement, since this would repeat rows: a repeated row would be its own
neighbour at distance 0, pairs of equal rows would enter means over different rows, and the bias of
the Fréchet distance would double. The coverage of the intervals is measured by
`examples/benchmarks/intervals`.

If a share is 0 or 1, it is the same in all halves. So the interval of a share of n samples is
extended to include Wilson's interval for n independent trials, and the interval of a difference of
two shares is extended to include Newcombe's interval (`metrics.interval`). If another figure is the
same in all halves, its interval has no width, and no difference is reported.
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

# The variance of a square grows with the square if it is above about this many s (the square root
# of the 9 above).
_FLAT = 3


class Estimate(NamedTuple):
    """Hold a value, and an interval for its expectation at the same number of samples."""

    value: float
    low: float
    high: float

    def within(self, ends: tuple[float, float]) -> Estimate:
        """Return the estimate with its interval extended to include `ends`."""
        return Estimate(self.value, min(self.low, ends[0]), max(self.high, ends[1]))

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@door
def halves(n: int, resamples: int, *, seed: int, stream: int = 0) -> Tensor:
    """Return masks `(1 + resamples, n)`: the first selects all n rows, the others random halves.

    Args:
        n: The number of rows, at least 2.
        resamples: The number of halves: 0, or at least 2.
        seed: The seed, a 64-bit number.
        stream: The number of the set; different numbers give independent halves.

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
    """Raise InvalidValueError unless `resamples` is 0 or an integer of at least 2."""
    check_integer("resamples", resamples, 0)
    if resamples == 1:
        raise InvalidValueError(
            "resamples must be 0 or at least 2, got 1; a single half gives no standard deviation"
        )


def estimate(
    values: Tensor,
    *,
    level: float = 0.95,
    limits: tuple[float, float] = (-math.inf, math.inf),
    square: bool = False,
    samples: float = math.inf,
) -> Estimate:
    r"""Return the value for all rows, with the interval from the halves.

    Args:
        values: `(1 + B,)`, the value for all rows and for B halves, B = 0 or at least 2.
        level: The confidence of the interval, in (0, 1).
        limits: The smallest and the largest possible expectation.
        square: True if the value estimates a square, whose standard error grows with the square.
        samples: The number of rows.

    Returns:
        The estimate. Without halves both ends of the interval are the value.

    Raises:
        InvalidValueError: `level` is out of range.
        NonFiniteError: A value is NaN or infinite.
    """
    check_range("level", level, "(0, 1)")
    if not values.isfinite().all():
        raise NonFiniteError(
            f"a figure is not finite ({float(values[0])} for all rows); the features are too large "
            "or too far apart"
        )
    value = float(values[0])
    if len(values) < 3:
        return Estimate(value, value, value)
    parts = values[1:].double()
    size = float(parts.abs().max()) or 1.0  # squares of large values may overflow
    freedom = 1 / (1 / (len(parts) - 1) + 7 / samples)
    t, spread = student(level, freedom), float((parts / size).std()) * size
    (low, high), lean = limits, 0.0
    if square and spread > 0:
        low = max(low, float(parts.mean()) - value - spread / 2)
        lean = t**2 * spread / (2 * math.hypot(max(value - low, 0) / spread, _FLAT))
    reach = math.hypot(t * spread, lean)
    ends = max(value + lean - reach, low), min(value + lean + reach, high)
    return Estimate(value, min(ends[0], value), max(ends[1], value))

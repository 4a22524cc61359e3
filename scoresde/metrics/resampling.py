r"""How sure a comparison is: its spread over random halves of both sets.

A bootstrap gives the rows of a sample random weights. The weights here are 0 and 2, each on a half:
with $\theta_n$ the figure of n rows, and $\theta_b$ that of the half b, the law of
$\theta_b - \bar\theta$ is to first order that of $\theta_n - E \theta_n$ (Praestgaard & Wellner
1993, doi:10.1214/aop/1176989011; in its variance, the jackknife that leaves out half of the rows,
Shao & Wu 1989, doi:10.1214/aos/1176347263). Hence the interval for $E \theta_n$

$$ \theta_n \pm z\, s, \qquad s^2 = \text{variance of } \theta_b, \quad
   z = \Phi^{-1}\big((1 + \text{level}) / 2\big), $$

within the values that the figure can have. Quantiles of $\theta_b$ in its place are no better, and
too short for shares near 0 or 1.

Drawing rows with replacement repeats them, which no comparison here stands: a row repeated is its
own neighbour at distance 0, pairs of one row enter the means over different pairs, and the bias of
the Fréchet distance is added once more. Where the laws are equal, the distances vanish to first
order and their $s^2$ is up to three times too large: the interval is then too wide, never too
narrow. Elsewhere it is right to first order: of Gaussians that differ, it held the closed forms in
0.92 of the cases at n = 60 in 2 dimensions, and in 0.95 at n = 200 in 8. It holds them less often
for heavy tails, and says nothing where all halves agree.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_range, door
from scoresde.data import order
from scoresde.errors import InvalidValueError, NonFiniteError

__all__ = ["Estimate", "check_resamples", "estimate", "halves"]


class Estimate(NamedTuple):
    """A figure, and an interval for what it is on average at this number of samples."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@door
def halves(n: int, resamples: int, *, seed: int, stream: int = 0) -> Tensor:
    """All n rows, then random halves of them: `(1 + resamples, n)`, booleans.

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
    values: Tensor, *, level: float = 0.95, limits: tuple[float, float] | None = None
) -> Estimate:
    r"""The figure of all rows, with the interval that its halves give.

    Args:
        values: `(1 + B,)`, the figure of all rows and those of B halves, B = 0 or at least 2.
        level: The probability that the interval is to have, in (0, 1).
        limits: The least and the largest value that the figure can have.

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
    reach = NormalDist().inv_cdf((1 + level) / 2) * float((parts / size).std()) * size
    low, high = (-math.inf, math.inf) if limits is None else limits
    return Estimate(value, max(value - reach, low), min(value + reach, high))

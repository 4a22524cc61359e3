r"""Test numbers for uniformity on [0, 1]."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

__all__ = ["POINTS", "band", "binomial_p", "chi_square_p", "counts_of", "ecdf_p", "holm"]

POINTS = np.arange(1, 100) / 100
"""The points at which the empirical and the uniform distribution function are compared."""


def counts_of(u: Tensor) -> np.ndarray:
    r"""Count the numbers that are at most $z_k = k / 100$, for k from 1 to 99.

    Args:
        u: Numbers in [0, 1], `(N,)`.
    """
    return np.searchsorted(np.sort(u.double().cpu().numpy()), POINTS, side="right")


def ecdf_p(counts: np.ndarray, n: int) -> float:
    r"""Return the p-value of the largest deviation of the empirical distribution function.

    At each point the count $C_k = \#\{u \le z_k\}$ is binomial. The statistic $\gamma$ is the
    smallest of the 99 two-sided binomial p-values $p_k$, and the result is the exact probability
    $P(\min_k p_k \le \gamma)$, or Bonferroni's bound where that is below 1e-8. It is below a level
    if and only if the empirical distribution function leaves the simultaneous band of that level
    (Säilynoja, Bürkner & Vehtari 2022, arXiv:2103.10522).

    Args:
        counts: The result of `counts_of`, `(99,)`.
        n: The number of numbers.
    """
    law = stats.binom(n, POINTS)
    gamma = float(_two_sided(law, counts).min())
    # Bonferroni's bound replaces probabilities that are below the rounding error
    bound = min(gamma * len(POINTS), 1.0)
    return bound if bound < 1e-8 else _leaving(*_inside(n, gamma), n)


def band(n: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and largest counts of a simultaneous band.

    Args:
        n: The number of numbers.
        level: The largest probability with which uniform numbers leave the band, in (0, 1).
    """
    low, high = level / len(POINTS), level
    for _ in range(40):
        middle = math.sqrt(low * high)
        if _leaving(*_inside(n, middle), n) > level:
            high = middle
        else:
            low = middle
    return _inside(n, low)


def _inside(n: int, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and largest count at each point with a p-value above gamma."""
    law = stats.binom(n, POINTS)
    edge = gamma * (1 + 1e-9) / 2  # a tolerance for rounding, since gamma is one of these p-values
    low, high = law.ppf(edge), law.isf(edge)
    low += law.cdf(low) <= edge
    high -= law.sf(high - 1) <= edge
    return low.astype(int), high.astype(int)


def _leaving(low: np.ndarray, high: np.ndarray, n: int) -> float:
    """Return the probability that the counts of n uniform numbers leave a band.

    The counts are distributed like partial sums of Poisson numbers, given their total.
    """
    if (low > high).any():
        return 1.0
    widest = int(max(np.diff([*low, n]).max(), np.max([*high, n] - np.array([0, *low]))))
    steps = stats.poisson(n / (len(POINTS) + 1)).pmf(np.arange(widest + 1))
    # mass[i]: the probability that the count is start + i and all counts so far lie in the band
    mass, start = np.ones(1), 0
    for a, b in zip([*low, n], [*high, n], strict=True):
        least = max(a - start - len(mass) + 1, 0)
        whole = np.convolve(mass, steps[least : b - start + 1])
        skipped = a - start - least
        mass, start = whole[skipped : skipped + b - a + 1], a
    return min(max(1 - float(mass[0]) / float(stats.poisson(n).pmf(n)), 0.0), 1.0)


def chi_square_p(u: Tensor) -> float:
    r"""Return the two-sided p-value of $\sum_i \Phi^{-1}(u_i)^2$, which is $\chi^2_N$.

    The p-value is small if u are ranks in posteriors that are too narrow or too wide (Cook, Gelman
    & Rubin 2006, doi:10.1198/106186006X136976).

    Args:
        u: Numbers in (0, 1), `(N,)`.
    """
    total = float(torch.special.ndtri(u.double()).square().sum())
    law = stats.chi2(len(u))
    return min(2 * min(float(law.cdf(total)), float(law.sf(total))), 1.0)


def binomial_p(held: int, n: int, share: float) -> float:
    """Return the two-sided p-value of `held` successes in n trials of probability `share`."""
    return float(_two_sided(stats.binom(n, share), held))


def _two_sided(law: Any, count: np.ndarray | int) -> Any:
    """Return the two-sided p-values of counts under a binomial distribution."""
    return np.minimum(2 * np.minimum(law.cdf(count), law.sf(count - 1)), 1)


def holm(p: Tensor) -> Tensor:
    """Adjust K p-values for their number (Holm 1979); the results are at most 1, `(K,)`."""
    order = p.argsort()
    factors = torch.arange(len(p), 0, -1, dtype=p.dtype)
    adjusted = torch.empty_like(p)
    adjusted[order] = (factors * p[order]).cummax(0).values.clamp(max=1)
    return adjusted

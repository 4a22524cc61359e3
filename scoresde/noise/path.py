r"""A Brownian path as a function of time alone, in independent standard normal numbers.

On $[0, 1]$, with the dyadic cells $[i, i + 1] / 2^n$, the one of level $n$ that holds $t$ having
the length $\ell_n = 2^{-n}$ and $t$ standing at the fraction $\theta_n$ of it,

$$ W(t) = t\,z + \sum_{n < L} \sqrt{\ell_n}\, \min(\theta_n, 1 - \theta_n)\, z_n
          + \sqrt{\ell_L}\, \sqrt{\theta_L (1 - \theta_L)}\, z_L . $$

The sum over all levels is the construction of Lévy (1948, *Processus stochastiques et mouvement
brownien*) and Ciesielski (1961, *Hölder conditions for realizations of Gaussian processes*). Here
it ends at a leaf, whose own number carries the variance of all levels below it. Hence every $W(t)$
has variance $t$, and any two of them the covariance $\min(s, t)$ unless both lie inside one leaf:
the increments over a grid with at most one time inside each leaf are exactly independent and
normal. Since times that differ by less than a leaf share all numbers but those below it, the values
of two grids belong to one path, up to $\sqrt{\ell_L / 4}$.

A leaf is at most $2^{-17}$ of the horizon and $2^{-15}$ of the distance to either end, where the
grids of some processes are much finer than elsewhere.

The space-time Lévy area of $[s, t]$, $h = t - s$ (Foster, Lyons & Oberhauser 2020, *An optimal
polynomial approximation of Brownian motion*, arXiv:1904.06998),

$$ H = \frac1h \int_s^t (W_u - W_s)\,du - \frac{W_t - W_s}2 \sim \mathcal N(0, h / 12), $$

is independent of the increment. Given the path at times $u_j$ in the interval it is that of the
path's chords, plus a normal number of variance $\sum_j (u_{j+1} - u_j)^3 / 12 h^2$. The $u_j$ are
the dyadic points that cut the interval into 16 to 32, fewer only where leaves are wider than that.
So at most 1 part in 256 of the variance is not the path's own.
"""

from __future__ import annotations

import math
from itertools import pairwise

__all__ = ["Weights", "area", "leaf", "resolved", "weights"]

Weights = dict[int, float]
"""A linear combination of the path's numbers: node 0 is z, node $2^n + i$ cell i of level n."""

# a leaf is at most 2**-_FINE of the distance to either end
_FINE = 15
# where a time is so near to an end that only rounding put it there
_DEEPEST = 60
# the area knows the path at 2**_CUTS points or more
_CUTS = 4


def leaf(t: float) -> int:
    """Return the level of the leaf that holds t."""
    distance = min(t, 1 - t)
    _, exponent = math.frexp(distance)
    return min(_FINE + 1 - exponent, _DEEPEST) if distance else _DEEPEST


def resolved(s: float, t: float) -> bool:
    """Return whether s < t, and not both inside one leaf."""
    level = leaf(s)
    i, theta = _cell(s, level)
    return s < t and (theta == 0 or math.ldexp(t, level) >= i + 1)


def weights(t: float) -> Weights:
    """W(t) for t in [0, 1]."""
    found, last = {0: t}, leaf(t)
    for level in range(last + 1):
        i, theta = _cell(t, level)
        if theta == 0:
            break
        hat = min(theta, 1 - theta) if level < last else math.sqrt(theta * (1 - theta))
        found[2**level + i] = 2 ** (-level / 2) * hat
    return found


def area(s: float, t: float) -> tuple[Weights, float]:
    """sqrt(12 / h) H without what the path at the points between does not tell, and its std."""
    h = t - s
    # points inside a leaf would not be exact
    level = min(_CUTS + math.ceil(-math.log2(h)), leaf(s), leaf(t))
    cells = range(math.floor(math.ldexp(s, level)) + 1, math.ceil(math.ldexp(t, level)))
    times = [s, *(math.ldexp(i, -level) for i in cells), t]
    gaps = [b - a for a, b in pairwise(times)]
    # the chords' area, each W(u) taking half of the two gaps around it
    halves = [(a + b) / 2 for a, b in pairwise([0.0, *gaps, 0.0])]
    halves[0] -= h / 2
    halves[-1] -= h / 2
    scale = math.sqrt(12 / h) / h
    chords: Weights = {}
    for half, u in zip(halves, times, strict=True):
        for node, weight in weights(u).items():
            chords[node] = chords.get(node, 0.0) + scale * half * weight
    return chords, math.sqrt(sum((gap / h) ** 3 for gap in gaps))


def _cell(t: float, level: int) -> tuple[int, float]:
    """The number of the cell of a level that holds t, and the fraction of it at which t stands."""
    position = math.ldexp(t, level)
    i = math.floor(position)
    return i, position - i

r"""Compute a Brownian path at any time from independent standard normal numbers.

On $[0, 1]$, with the dyadic cells $[i, i + 1] / 2^n$ of depth $n$ and length $\ell_n = 2^{-n}$, and
$\theta_n$ the fraction at which $t$ lies in its cell,

$$ W(t) = t\,z + \sum_{n < L} \sqrt{\ell_n}\, \min(\theta_n, 1 - \theta_n)\, z_n
          + \sqrt{\ell_L}\, \sqrt{\theta_L (1 - \theta_L)}\, z_L . $$

The sum over all depths is the construction of Lévy (1948, *Processus stochastiques et mouvement
brownien*) and Ciesielski (1961, *Hölder conditions for realizations of Gaussian processes*). Here
it ends at a leaf, the cell of depth $L$, whose number has the variance of all deeper ones. Hence
$W(t)$ has variance $t$, and $W(s), W(t)$ the covariance $\min(s, t)$ unless both times lie inside
one leaf: the increments over a grid with at most one time inside each leaf are exactly independent
and normal. Times closer than a leaf share all numbers but those of the leaf, so the values on two
grids belong to one path up to $\sqrt{\ell_L / 4}$.

A leaf is at most $2^{-17}$ of the horizon and $2^{-15}$ of the distance to either end, where the
grids of some processes are much finer than elsewhere.

The space-time Lévy area of $[s, t]$, $h = t - s$ (Foster, Lyons & Oberhauser 2020, *An optimal
polynomial approximation of Brownian motion*, arXiv:1904.06998),

$$ H = \frac1h \int_s^t (W_u - W_s)\,du - \frac{W_t - W_s}2 \sim \mathcal N(0, h / 12), $$

is independent of the increment. Given the path at times $u_j$ in the interval it is the area of the
path's chords plus a normal number of variance $\sum_j (u_{j+1} - u_j)^3 / 12 h^2$. The $u_j$ are
the dyadic points that cut the interval into 16 to 32 parts, or fewer if leaves are wider. So at
most 1/256 of the variance does not follow from the path.
"""

from __future__ import annotations

import math
from itertools import pairwise

__all__ = ["Weights", "area", "leaf", "resolved", "weights"]

Weights = dict[int, float]
"""A linear combination of the path's numbers: node 0 is z, node $2^n + i$ cell i of depth n."""

# a leaf is at most 2**-_FINE of the distance to either end
_FINE = 15
# the depth of the leaves nearest to the ends
_DEEPEST = 60
# the area uses the path at 2**_CUTS points or more
_CUTS = 4


def leaf(t: float) -> int:
    """Return the depth of the leaf that holds t."""
    distance = min(t, 1 - t)
    _, exponent = math.frexp(distance)
    return min(_FINE + 1 - exponent, _DEEPEST) if distance else _DEEPEST


def resolved(s: float, t: float) -> bool:
    """Return True if s < t, and not both lie inside one leaf."""
    depth = leaf(s)
    i, theta = _cell(s, depth)
    return s < t and (theta == 0 or math.ldexp(t, depth) >= i + 1)


def weights(t: float) -> Weights:
    """Return the weights of W(t) for t in [0, 1]."""
    found, last = {0: t}, leaf(t)
    for depth in range(last + 1):
        i, theta = _cell(t, depth)
        if theta == 0:
            break
        hat = min(theta, 1 - theta) if depth < last else math.sqrt(theta * (1 - theta))
        found[2**depth + i] = 2 ** (-depth / 2) * hat
    return found


def area(s: float, t: float) -> tuple[Weights, float]:
    """Return the weights of sqrt(12 / h) H given the path at points in [s, t], and the std left."""
    h = t - s
    # inside a leaf the path is not exact
    depth = min(_CUTS + math.ceil(-math.log2(h)), leaf(s), leaf(t))
    cells = range(math.floor(math.ldexp(s, depth)) + 1, math.ceil(math.ldexp(t, depth)))
    times = [s, *(math.ldexp(i, -depth) for i in cells), t]
    gaps = [b - a for a, b in pairwise(times)]
    # the area of the chords by the trapezoidal rule
    halves = [(a + b) / 2 for a, b in pairwise([0.0, *gaps, 0.0])]
    halves[0] -= h / 2
    halves[-1] -= h / 2
    scale = math.sqrt(12 / h) / h
    chords: Weights = {}
    for half, u in zip(halves, times, strict=True):
        for node, weight in weights(u).items():
            chords[node] = chords.get(node, 0.0) + scale * half * weight
    return chords, math.sqrt(sum((gap / h) ** 3 for gap in gaps))


def _cell(t: float, depth: int) -> tuple[int, float]:
    """Return the number of the cell of a depth that holds t, and the fraction at which t lies."""
    position = math.ldexp(t, depth)
    i = math.floor(position)
    return i, position - i

r"""Compute a Brownian path at any time from independent standard normal numbers.

The dyadic cells $[i, i + 1] / 2^n$ of depth $n$ have the length $\ell_n = 2^{-n}$. Let $\theta_n$
be the position of $t$ in its cell of depth n, from 0 to 1. On $[0, 1]$ the path is

$$ W(t) = t\,z + \sum_{n < L} \sqrt{\ell_n}\, \min(\theta_n, 1 - \theta_n)\, z_n
          + \sqrt{\ell_L}\, \sqrt{\theta_L (1 - \theta_L)}\, z_L . $$

The sum over all depths is the construction of Lévy (1948, *Processus stochastiques et mouvement
brownien*) and Ciesielski (1961, *Hölder conditions for realizations of Gaussian processes*). Here
the sum ends at a leaf, a cell of depth $L$. The number of a leaf replaces the numbers of all deeper
cells and has their total variance. Hence $W(t)$ has the variance $t$, and $W(s), W(t)$ have the
covariance $\min(s, t)$ unless both times lie inside the same leaf. So the increments over a grid
with at most one time inside each leaf are exactly independent and normal. Values at two times
inside the same leaf use the same numbers, so their covariance is not exact. Therefore the values on
two different grids belong to one path only up to an error with the standard deviation
$\sqrt{\ell_L / 4}$.

At the middle of a cell $[a, b]$, W is $(W(a) + W(b)) / 2 + \sqrt{\ell_n}\, z_n / 2$. So the value
at a time follows from the values at the ends of any cell that contains the time. It takes one
normal number for each halving of the cell.

The length of a leaf is at most $2^{-15}$ of the path, and at most $2^{-13}$ of the distance to the
nearer end of the path, but not below $2^{-60}$, since the grids of some processes are much finer
near the ends.

The space-time Lévy area of $[s, t]$, $h = t - s$ (Foster, Lyons & Oberhauser 2020, *An optimal
polynomial approximation of Brownian motion*, arXiv:1904.06998),

$$ H = \frac1h \int_s^t (W_u - W_s)\,du - \frac{W_t - W_s}2 \sim \mathcal N(0, h / 12), $$

is independent of the increment. Given the path at times $u_j$ in the interval, it is the area under
the chords of the path plus a normal number of variance $\sum_j (u_{j+1} - u_j)^3 / 12 h^2$. The
$u_j$ are the dyadic points that cut the interval into 16 to 32 parts, or into fewer if the leaves
are too wide. So the numbers of the path determine H up to 1/256 of its variance.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

__all__ = [
    "END",
    "START",
    "Form",
    "Instant",
    "Step",
    "area",
    "differences",
    "instant",
    "leaf",
    "resolved",
    "rounded",
    "steps",
    "unit",
    "worth_keeping",
]

Instant = int | float
"""A time: an integer in units of $2^{-60}$ if it is the end of a cell, otherwise a float."""

Form = dict[Instant, float]
"""A linear combination of values of the path: the coefficient of each instant."""

# the length of a leaf is at most 2**-_FINE of the distance to either end
_FINE = 13
# the depth of the leaves nearest to the ends
_DEEPEST = 60
# the area uses the path's values at 2**_CUTS points or more
_CUTS = 4
# with this number of steps or more, a grid's times may be moved by 1/8 of a step
_MANY = 32
# the largest number of values that are kept besides the last value
_KEPT = 6

START, END = 0, 2**_DEEPEST
"""The instants of the first and the last time."""


@dataclass(frozen=True)
class Step:
    r"""Define one value of the path, $(1 - \theta)\,W(low) + \theta\,W(high) + std\,z$.

    Attributes:
        instant: The instant of the value.
        low: The instant to the left, whose value is used.
        high: The instant to the right, whose value is used.
        theta: The position between `low` and `high`, from 0 to 1.
        std: The standard deviation of the value, given the values at `low` and `high`.
        node: The index of the normal number z: 0 for the end of the path, $2^n + i$ for cell i of
            depth n.
    """

    instant: Instant
    low: Instant
    high: Instant
    theta: float
    std: float
    node: int


def unit(t: float, horizon: float) -> float:
    """Return t / horizon, at most 1, without rounding if t is horizon times the end of a leaf."""
    part = min(t / horizon, 1.0)
    depth = leaf(part)
    end = math.ldexp(round(math.ldexp(part, depth)), -depth)
    return end if end * horizon == t else part


def leaf(t: float) -> int:
    """Return the depth of the leaf that holds t."""
    distance = min(t, 1 - t)
    _, exponent = math.frexp(distance)
    return min(_FINE + 1 - exponent, _DEEPEST) if distance else _DEEPEST


def resolved(s: float, t: float) -> bool:
    """Return True if s < t, and s and t do not lie inside the same leaf."""
    depth = leaf(s)
    i, theta = _cell(s, depth)
    return s < t and (theta == 0 or math.ldexp(t, depth) >= i + 1)


def instant(t: float) -> Instant:
    """Return the instant of a time in [0, 1]."""
    depth = leaf(t)
    i, theta = _cell(t, depth)
    return t if theta else i << _DEEPEST - depth


def rounded(times: Tensor, horizon: float) -> Tensor:
    """Move the inner times of a decreasing grid `(N + 1,)` to ends of long cells.

    A time is moved by at most 1/8 of the shorter step beside it, and by less if there are fewer
    than 32 steps, since then a slightly longer step may be unstable. At the end of a cell, the path
    takes no numbers of smaller cells. So a step draws about 3 numbers, in place of 11 with 100
    steps, and grids with different numbers of steps have exactly the same path.

    Args:
        times: The grid, in float64.
        horizon: The last time of the path.
    """
    parts = times / horizon
    lengths = parts[:-1] - parts[1:]
    longest = torch.minimum(lengths[:-1], lengths[1:]) * min(len(lengths), _MANY) / (4 * _MANY)
    # the next powers of two below, since the mantissa lies in [1/2, 1)
    cell = longest / (2 * longest.frexp().mantissa)
    inner = (parts[1:-1] / cell).round() * cell * horizon
    return torch.cat((times[:1], inner, times[-1:]))


def steps(wanted: Collection[Instant], known: Collection[Instant]) -> list[Step]:
    """Return the steps that compute the values at wanted instants from known values, in order.

    The results do not depend on which values are known, since each value is always computed from
    the same two other values.
    """
    found: list[Step] = []
    have = {START, *known}
    for where in wanted:
        if where not in have:
            new = list(_descent(where, have))
            found += new
            have.update(step.instant for step in new)
    return found


def area(s: float, t: float) -> tuple[Form, float]:
    """Return sqrt(12 / h) H as a linear form in the path's values, and its std given them."""
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
    where = [instant(s), *(i << _DEEPEST - depth for i in cells), instant(t)]
    form = {u: scale * half for u, half in zip(where, halves, strict=True)}
    return form, math.sqrt(sum((gap / h) ** 3 for gap in gaps))


def differences(low: Sequence[float], high: Sequence[float]) -> tuple[Tensor, Tensor]:
    r"""Return nodes and weights of the differences $W(t_i) - W(s_i)$ of N pairs of times.

    Args:
        low: The earlier times $s_i$, in [0, 1].
        high: The later times $t_i$.

    Returns:
        Nodes `(D, N)`, int64, and the weights of their numbers, `(D, N)`, float64, by the sum
        above, without the number of the path's end. Its weight is $t_i - s_i$.
    """
    times = torch.tensor([low, high], dtype=torch.float64)
    last = torch.tensor([[*map(leaf, low)], [*map(leaf, high)]])
    n = torch.arange(int(last.max()) + 1)[:, None, None]
    cells = 1 << n
    position = times * cells
    i = position.floor()
    theta = position - i
    hat, bridge = torch.minimum(theta, 1 - theta), (theta * (1 - theta)).sqrt()
    weight = torch.where(n < last, hat, bridge).where(n <= last, 0.0) / cells.double().sqrt()
    nodes = cells + i.long()
    # a node of both times is used once, whatever the nodes of other pairs
    both = nodes[:, 0] == nodes[:, 1]
    first = torch.where(both, 0.0, -weight[:, 0])
    second = weight[:, 1] - torch.where(both, weight[:, 0], 0.0)
    found = torch.stack((first, second), 1).flatten(0, 1)
    used = found.any(1)
    return nodes.flatten(0, 1)[used], found[used]


def worth_keeping(s: Instant, h: float) -> list[Instant]:
    """Return the instants whose values the next steps of about h below s use, nearest first.

    These are s, and the left ends of the cells around s that are not much smaller than h.
    """
    depth = min(max(math.ceil(-math.log2(h)) + 1, 0), _DEEPEST)
    left = dict.fromkeys(_ends(s, n)[0] for n in range(depth, -1, -1))
    return [s, *(end for end in left if end != START)][: 1 + _KEPT]


def _descent(where: Instant, have: Collection[Instant]) -> Iterator[Step]:
    """Yield the steps to an instant from the smallest cell around it with known ends, if any."""
    # the descent ends at the leaf of the instant, or at the cell with the instant as its middle
    last = leaf(where) if isinstance(where, float) else _DEEPEST - (where & -where).bit_length()
    depth = last
    while depth >= 0 and not all(end in have for end in _ends(where, depth)):
        depth -= 1
    if depth < 0:
        yield Step(END, START, START, 0.0, 1.0, 0)
    for n in range(max(depth, 0), last + 1):
        low, high = _ends(where, n)
        node = 2**n + (low >> _DEEPEST - n)
        middle = (low + high) // 2
        if n < last or middle == where:
            yield Step(middle, low, high, 0.5, 2 ** (-n / 2 - 1), node)
        else:
            _, theta = _cell(float(where), n)
            yield Step(
                where, low, high, theta, 2 ** (-n / 2) * math.sqrt(theta * (1 - theta)), node
            )


def _ends(where: Instant, depth: int) -> tuple[int, int]:
    """Return the two ends of the cell of this depth around an instant."""
    if isinstance(where, int):
        i = where >> _DEEPEST - depth
    else:
        i, _ = _cell(where, depth)
    return i << _DEEPEST - depth, i + 1 << _DEEPEST - depth


def _cell(t: float, depth: int) -> tuple[int, float]:
    """Return the number of the cell of this depth that contains t, and the position of t in it."""
    position = math.ldexp(t, depth)
    i = math.floor(position)
    return i, position - i

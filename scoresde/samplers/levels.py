r"""The noise level $\ell = \log(\alpha/\sigma)$, half the log-SNR, as the variable of a solver."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scoresde.sde import SDE

__all__ = [
    "NODES",
    "REACH",
    "ends_of",
    "even_times",
    "quadrature",
    "snapped",
    "times_at",
    "uniform_times",
]

REACH = 16.0
"""Levels further than this from the first are not told apart; no noise at all is infinitely far."""
NODES = 24
"""Gauss-Legendre nodes of a step: exact to rounding for the steps that occur."""
_X, _W = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(NODES))
_X, _W = (_X + 1) / 2, _W / 2


def quadrature(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights `(N, Q)` of intervals with ends `(N, 1)`."""
    return torch.lerp(start, end, _X), (end - start) * _W


def ends_of(sde: SDE) -> Tensor:
    r"""The first and the last level $\ell$ of an SDE, `(2,)`, both finite."""
    levels = sde.log_snr(torch.tensor([sde.T, sde.eps], dtype=torch.float64)) / 2
    return torch.minimum(levels, levels[0] + REACH)


def times_at(sde: SDE, levels: Tensor) -> Tensor:
    """The times of levels `(N + 1,)` that go from the first to the last one of an SDE."""
    t = sde.time(2 * levels).clamp(sde.eps, sde.T)
    t[0], t[-1] = sde.T, sde.eps
    return t


def uniform_times(sde: SDE, steps: int | None) -> Tensor:
    """Times `(N + 1,)` evenly spaced, also down to a noise of zero; on a ladder its levels."""
    return sde.times(steps, spacing=None if sde.levels else "uniform")


def even_times(sde: SDE, steps: int | None) -> Tensor:
    """Times `(N + 1,)` whose levels are evenly spaced; on a ladder its levels nearest to them."""
    n = len(uniform_times(sde, steps)) - 1
    low, high = ends_of(sde).tolist()
    even = times_at(sde, torch.linspace(low, high, n + 1, dtype=torch.float64))
    return even if sde.levels is None else snapped(sde, even)


def snapped(sde: SDE, t: Tensor) -> Tensor:
    """The levels of a ladder that are nearest to times `(N + 1,)`, each taken once."""
    n, levels = len(t) - 1, sde.times()
    index = sde.index(t).tolist()
    for i in range(1, n + 1):
        index[i] = max(min(index[i], index[i - 1] - 1), n - i)
    for i in range(n - 1, -1, -1):
        index[i] = max(index[i], index[i + 1] + 1)
    return levels.flip(0)[index]

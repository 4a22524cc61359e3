r"""Test whether the reverse SDE and the probability flow draw from the same distribution.

With the exact score both have the marginals $p_t$ (Song et al. 2021, eq. 13, arXiv:2011.13456). An
error of the score makes their samples differ: the noise of the SDE partly removes the effect of the
error, and the flow does not. The distance between states $X$ of the SDE and $Y$ of the flow at the
same time is

$$ H = \frac{2 E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|}{2 E\|X - Y\|} \in [0, 1], $$

where $X', Y'$ are independent copies (Székely & Rizzo 2013, doi:10.1016/j.jspi.2013.03.018). H is
estimated with an unbiased numerator, and compared with estimates for randomly permuted samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.audit.identities import matched

__all__ = ["Agreement", "agreement"]

_PERMUTATIONS = 500


@dataclass(frozen=True)
class Agreement:
    """Hold the distance between two sets of samples.

    Attributes:
        value: The estimate of $H$, which may be negative: about 0 for equal distributions, near 1
            for distributions far apart.
        floor: The 95 % quantile of the estimates for permuted samples.
        z: The standard normal number whose tail probability is the p-value of $H$.
    """

    value: float
    floor: float
    z: float


def agreement(x: Tensor, y: Tensor, generator: torch.Generator) -> Agreement:
    """Return the distance between two sets of independent samples `(m, *)`, m >= 2."""
    m = len(x)
    pooled = torch.cat([x, y]).double().reshape(2 * m, -1)
    distances = torch.cdist(pooled, pooled, compute_mode="donot_use_mm_for_euclid_dist")
    signs = torch.ones(_PERMUTATIONS + 1, 2 * m, dtype=torch.float64)
    signs[0, m:] = -1
    for row in signs[1:]:
        row[torch.randperm(2 * m, generator=generator)[m:]] = -1
    # this mean includes the zero distance of each sample to itself, which is corrected below
    raw = -((signs @ distances) * signs).sum(1) / m**2
    total = distances.sum() / m**2
    across = (total + raw) / 4
    within = (total - raw) / 2
    unbiased = 2 * across - within * m / (m - 1)
    found = unbiased / (2 * across).clamp(min=1e-300)
    null = raw[1:]
    return Agreement(
        value=float(found[0]),
        floor=float(found[1:].quantile(0.95)),
        z=matched(float(raw[0]), float(null.mean()), float(null.var())),
    )

r"""Test whether the reverse SDE and the probability flow draw from one law.

With the exact score both have the marginals $p_t$ (Song et al. 2021, eq. 13, arXiv:2011.13456). An
error of the score makes them differ, since the flow keeps it to the end, while the SDE's noise
partly removes it. The distance of the states $X$ and $Y$ of both at one time is

$$ H = \frac{2 E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|}{2 E\|X - Y\|} \in [0, 1] $$

(Székely & Rizzo 2013, doi:10.1016/j.jspi.2013.03.018), estimated without bias, and compared with
its law when the labels of the samples are permuted, whose mean is 0.
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
    """Hold the distance of two sets of samples.

    Attributes:
        value: $H$, without bias: about 0 for equal laws, 1 for laws infinitely far apart.
        floor: The 95 % quantile of $H$ under permutations.
        z: The normal deviate with the same tail probability as $H$ has for equal laws.
    """

    value: float
    floor: float
    z: float


def agreement(x: Tensor, y: Tensor, generator: torch.Generator) -> Agreement:
    """Return the distance of two sets of independent samples, `(m, *)` each, m at least 2."""
    m = len(x)
    pooled = torch.cat([x, y]).double().reshape(2 * m, -1)
    distances = torch.cdist(pooled, pooled, compute_mode="donot_use_mm_for_euclid_dist")
    signs = torch.ones(_PERMUTATIONS + 1, 2 * m, dtype=torch.float64)
    signs[0, m:] = -1
    for row in signs[1:]:
        row[torch.randperm(2 * m, generator=generator)[m:]] = -1
    # with each sample's distance to itself: not negative, and corrected below
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

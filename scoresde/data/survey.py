r"""One pass over all samples: their moments, their range, and a checksum.

The moments of the pieces are joined by

$$ \mu = \mu_a + \delta\,\frac{n_b}{n}, \qquad
   M = M_a + M_b + \delta^2\,\frac{n_a n_b}{n}, \qquad \delta = \mu_b - \mu_a, $$

which loses no digits where the mean is large (Chan, Golub & LeVeque 1983).
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.data.stores import Store, pieces
from scoresde.errors import DataError

__all__ = ["Survey", "content_of", "survey"]


@dataclass(frozen=True)
class Survey:
    """What one pass over raw samples found.

    Attributes:
        mean: The mean sample, float64 `(*event)`.
        var: The variance of every dimension, float64 `(*event)`; 0 where all numbers are equal,
            and nowhere else.
        low: The smallest number.
        high: The largest number.
        sha256: Of the shape and all numbers in their order, wherever they lie.
        sums: A checksum of each of the pieces in which samples are read.
    """

    mean: Tensor
    var: Tensor
    low: float
    high: float
    sha256: str
    sums: tuple[int, ...] = ()


def survey(store: Store) -> Survey:
    """Read all samples once.

    Raises:
        DataError: A sample cannot be read, or holds a NaN or an infinity, or they lie so far apart
            that they have no variance, or so near to each other.
    """
    digest = hashlib.sha256(str(store.shape).encode())
    mean = torch.zeros(store.shape[1:], dtype=torch.float64)
    origin, spread, varies = mean, torch.zeros_like(mean), torch.zeros_like(mean, dtype=torch.bool)
    low, high = torch.inf, -torch.inf
    sums = []
    for rows, raw in pieces(store):
        content = content_of(raw)
        digest.update(content)
        sums.append(zlib.crc32(content))
        least, most = raw.aminmax()
        if not (torch.isfinite(least) and torch.isfinite(most)):
            bad = (~raw.isfinite()).flatten(1).any(1)
            raise DataError(
                f"sample {rows.start + int(bad.nonzero()[0, 0])} holds a NaN or an infinity; "
                "`scoresde data check` counts all of them"
            )
        low, high = min(low, float(least)), max(high, float(most))
        x = raw.cpu().double()
        # from the first sample on, where a constant column is 0 and a narrow one loses no digits
        origin = x[0] if rows.start == 0 else origin
        x = x - origin
        varies |= (x != 0).any(0)
        own = x.mean(0)
        delta, n = own - mean, rows.stop
        spread += (x - own).square_().sum(0) + delta**2 * (rows.start * len(x) / n)
        mean += delta * (len(x) / n)
    for how, lost in (
        ("far apart", ~(mean.isfinite() & spread.isfinite())),
        ("near to each other", varies & (spread == 0)),
    ):
        if lost.any():
            raise DataError(
                f"the numbers lie in [{low:.4g}, {high:.4g}], so {how} that their squares are "
                "beyond float64; scale them"
            )
    var = spread / store.shape[0]
    return Survey(origin + mean, var, low, high, digest.hexdigest(), tuple(sums))


def content_of(raw: Tensor) -> memoryview:
    """The bytes of samples, in their order."""
    content: memoryview = raw.cpu().contiguous().view(-1).view(torch.uint8).numpy().data
    return content

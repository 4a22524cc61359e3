r"""Measure memorisation: compare the distances of samples and held-out data to training data.

Let x be one of n samples, y one of m held-out data, and $d(\cdot)$ the distance to the nearest
training point.

- copied: the share of samples with $d(x)$ below the q-quantile of $d(y)$. If samples and held-out
  data have the same distribution, it is about $(1 + q (m - 1)) / (m + 1)$, that is q for large m.
- nearer: the probability that $d(x) < d(y)$, where a tie counts half (the statistic of Mann &
  Whitney). It is 1/2 if samples and held-out data have the same distribution.
- c_t: the standardised form of `nearer`,

$$ C_T = \Big(\frac12 - \mathrm{nearer}\Big) \Big/ \sqrt{\frac{n + m + 1}{12\, n m}}, $$

which for large n and m is standard normal if both have the same distribution, and far below 0 for
copies (Meehan, Chaudhuri & Dasgupta 2020,
arXiv:2004.05675, here without dividing the space into cells).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_range, door
from scoresde.errors import DataError
from scoresde.metrics.checks import pair, whole
from scoresde.metrics.distances import nearest_distance

__all__ = ["Copies", "Memorisation", "memorisation"]


class Memorisation(NamedTuple):
    """Hold the shares `copied` and `nearer`, and the statistic `c_t` of the module."""

    copied: float
    nearer: float
    c_t: float


@dataclass(frozen=True, eq=False)
class Copies:
    """Compute `copied` and `nearer` for given training data.

    Args:
        train: The features of the training data, `(T, F)`.
        quantile: A sample counts as copied below this quantile of the held-out distances.

    Raises:
        InvalidValueError: `quantile` does not lie in (0, 1).
    """

    train: Tensor
    quantile: float = 0.01

    def __post_init__(self) -> None:
        check_fields(self)
        check_range("quantile", self.quantile, "(0, 1)")

    def __call__(self, x: Tensor, y: Tensor, rows: Tensor, others: Tensor) -> dict[str, Tensor]:
        """Return `copied` and `nearer` for each choice of rows, `(K,)` each.

        Args:
            x: The features of samples, `(N, F)`.
            y: The features of held-out data, `(M, F)`.
            rows: Masks for x, `(K, N)`.
            others: Masks for y, `(K, M)`.

        Raises:
            DataError: More than the share `quantile` of the held-out data are training data.
        """
        drawn, held = nearest_distance(x, self.train), nearest_distance(y, self.train)
        known = float((held == 0).double().mean())
        if known > self.quantile:
            raise DataError(
                f"{known:.1%} of the held-out data are equal to training data, so memorisation "
                "cannot be measured; give held-out data that were not used for training"
            )
        copied, nearer = [], []
        for i, j in zip(rows, others, strict=True):
            a, b = drawn[i], held[j].sort()[0]
            copied.append((a < b.quantile(self.quantile)).double().mean())
            above = len(b) - torch.searchsorted(b, a, right=True)
            equal = len(b) - above - torch.searchsorted(b, a)
            nearer.append((above + 0.5 * equal.double()).mean() / len(b))
        return {"copied": torch.stack(copied), "nearer": torch.stack(nearer)}


@door
@torch.no_grad()
def memorisation(x: Tensor, held: Tensor, train: Tensor, *, quantile: float = 0.01) -> Memorisation:
    """Measure how much nearer to the training data samples are than held-out data.

    Args:
        x: Samples or their features, `(N, *)`.
        held: Held-out data `(M, *)` from the same distribution as the training data.
        train: The training data, `(T, *)`.
        quantile: A sample counts as copied below this quantile of the held-out distances.

    Returns:
        The shares `copied` and `nearer`, and the statistic `c_t`.

    Raises:
        DataError: More than the share `quantile` of the held-out data are training data.
        ShapeError: A set is empty, or events differ in shape.
        InvalidValueError: `quantile` does not lie in (0, 1).
        InvalidTypeError: A set is not a tensor of real numbers.
        NonFiniteError: A set holds a NaN or an infinity.
    """
    metric = Copies(train, quantile)
    pair(x, held, 1, ("x", "held"))
    n, m = len(x), len(held)
    copied, nearer = (float(value) for value in metric(x, held, *whole(x, held)).values())
    return Memorisation(copied, nearer, (0.5 - nearer) / math.sqrt((n + m + 1) / (12 * n * m)))

r"""Compute distances from samples to the nearest data, and between histograms of classes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.metrics.checks import finite, pair

__all__ = ["chunks", "nearest_distance", "total_variation"]

# The largest number of pairs of rows in memory at one time.
_ENTRIES = 2**22


@door
@torch.no_grad()
def nearest_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""Return the distance from each sample to the nearest of `y`, $\min_j \|x_i - y_j\|$.

    If `x` are generated samples and `y` training data, small distances show memorisation. To judge
    them, also compute the distances of held-out data, and compare the low quantiles.

    Args:
        x: Samples, `(N, *)`.
        y: The possible neighbours, `(M, *)`, M at least 1.

    Returns:
        The distances, `(N,)`, float64.

    Raises:
        ShapeError: `y` is empty, or the events of `x` and `y` differ in shape.
        InvalidTypeError: A set is not a tensor of real numbers.
        NonFiniteError: A set holds a NaN or an infinity.
    """
    points, others = pair(x, y, 0)
    if len(others) == 0:
        raise ShapeError("y holds no sample; pass at least one")
    # subtract the mean, since a common offset would cost digits in the products below
    centre = others.mean(0)
    points, others = points - centre, others - centre
    norms = others.square().sum(1)
    distances = [points.new_zeros(0)]
    for _, part in chunks(points, len(others)):
        # Find the neighbour by products, then compute its distance by differences, which lose no
        # digits.
        nearest = (norms - 2 * part @ others.mT).argmin(1)
        distances.append((part - others[nearest]).norm(dim=1))
    return torch.cat(distances)


@door
def total_variation(p: Tensor, q: Tensor) -> float:
    r"""Return the total variation $\frac12 \sum_k |p_k - q_k|$ between two histograms.

    Args:
        p: Counts or probabilities, `(K,)`, non-negative; divided by their sum.
        q: The second histogram, in the same form.

    Returns:
        A number in [0, 1]: 0 for equal histograms, 1 for disjoint ones.

    Raises:
        ShapeError: `p` and `q` are not vectors of the same length.
        InvalidTypeError: A histogram is not a tensor of real numbers.
        InvalidValueError: A histogram has a negative entry, or its sum is 0.
        NonFiniteError: A histogram holds a NaN or an infinity.
    """
    fractions = []
    for name, value in (("p", p), ("q", q)):
        counts = finite(name, value)
        if (counts < 0).any() or counts.sum() == 0:
            raise InvalidValueError(
                f"{name} must be a histogram, no entry negative and the sum positive, got {value}"
            )
        if counts.sum().isinf():
            counts = counts / counts.max()
        fractions.append(counts / counts.sum())
    if p.ndim != 1 or p.shape != q.shape:
        raise ShapeError(
            f"p and q must be vectors of the same length, got {tuple(p.shape)} and "
            f"{tuple(q.shape)}; count classes with labels.bincount(minlength=K)"
        )
    return float(0.5 * (fractions[0] - fractions[1].to(fractions[0].device)).abs().sum())


def chunks(a: Tensor, others: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the rows of `a` in parts, each with the index of its first row.

    The size of a part limits the memory for its pairs with `others` other rows.
    """
    rows = max(1, _ENTRIES // others)
    for start in range(0, len(a), rows):
        yield start, a[start : start + rows]

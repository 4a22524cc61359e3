r"""Compute precision, recall, density and coverage: the overlap of the supports of two sets.

The support of a set is estimated by a union of balls, $\bigcup_j B(y_j, r_k(y_j))$. Each point is
the centre of a ball, whose radius is the distance to the point's k-th nearest neighbour in the set.
For n samples x and m real points y,

- precision: the share of x that lie in a ball of y; recall: the share of y that lie in a ball of x
  (Kynkäänniemi et al. 2019, arXiv:1904.06991);
- density: the mean number of balls of y that a sample lies in, divided by k; coverage: the share of
  balls of y that contain a sample (Naeem et al. 2020, arXiv:2002.09797).

An outlier among y has a large ball, which raises precision; an outlier among x raises recall.
Density and coverage are less affected. If x and y have the same continuous distribution, their
expectations are 1 for density, and $1 - \prod_{i=1}^{k} (m - i) / (m + n - i)$ for coverage.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_integer, door
from scoresde.errors import ShapeError
from scoresde.metrics.checks import pair, whole
from scoresde.metrics.distances import chunks

__all__ = ["Neighbours", "Support", "precision_recall"]


class Support(NamedTuple):
    """Hold precision, recall, density and coverage."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class Neighbours:
    """Compute precision, recall, density and coverage by the k nearest neighbours.

    Args:
        k: The radius of a ball is the distance to the k-th neighbour; at least 1.

    Raises:
        InvalidValueError: `k` is below 1.
    """

    k: int = 5

    def __post_init__(self) -> None:
        check_fields(self)
        check_integer("k", self.k, 1)

    @property
    def least(self) -> int:
        """Return the smallest number of rows that can be compared."""
        return self.k + 1

    def __call__(self, x: Tensor, y: Tensor, rows: Tensor, others: Tensor) -> dict[str, Tensor]:
        """Return the four values for each choice of rows.

        Raises:
            ShapeError: A choice has at most k rows.
        """
        least = int(min(rows.sum(1).min(), others.sum(1).min()))
        if least <= self.k:
            raise ShapeError(
                f"{self.k} neighbours and an interval need at least {2 * self.k + 2} samples on "
                f"either side, got {len(x)} and {len(y)}; give more, or a smaller k"
            )
        of_data, of_samples = _BallOverlaps(y, x, self.k), _BallOverlaps(x, y, self.k)
        found = []
        for i, j in zip(rows, others, strict=True):
            precision, coverage, pairs = of_data.shares(j, i)
            recall, _, _ = of_samples.shares(i, j)
            density = pairs / (self.k * int(i.sum()))
            values = Support(precision, recall, density, coverage)
            found.append(torch.tensor(values, dtype=torch.float64))
        return dict(zip(Support._fields, torch.stack(found).unbind(1), strict=True))


@door
@torch.no_grad()
def precision_recall(x: Tensor, y: Tensor, *, k: int = 5) -> Support:
    """Return precision, recall, density and coverage of samples against data.

    Args:
        x: Samples or their features, `(N, *)`, N above k.
        y: Data or their features, `(M, *)`, M above k.
        k: The radius of a ball is the distance to the k-th neighbour; at least 1.

    Returns:
        The four values; precision, recall and coverage lie in [0, 1].

    Raises:
        ShapeError: A set has at most k samples, or events have different shapes.
        InvalidValueError: `k` is below 1.
        InvalidTypeError: A set is not a tensor of real numbers.
        NonFiniteError: A set holds a NaN or an infinity.
    """
    metric = Neighbours(k)
    a, b = (part.cpu() for part in pair(x, y, k + 1))
    return Support(*(float(value) for value in metric(a, b, *whole(a, b)).values()))


class _BallOverlaps:
    """Find the points that lie in balls around centres, for any subset of points and centres.

    The radius of a ball is the distance to the k-th neighbour in the subset. The k-th neighbour in
    a random half of the rows is about the 2k-th neighbour among all rows. So the 4k + 40 nearest
    neighbours are stored. With a probability above 1 - 1e-10 the half contains at least k of these.
    """

    def __init__(self, centres: Tensor, points: Tensor, k: int) -> None:
        self.k, self.sizes = k, (len(centres), len(points))
        count = min(len(centres) - 1, 4 * k + 40)
        # for each centre the distances to its neighbours, in ascending order, and their indices
        to_neighbours, neighbours = [], []
        # pairs of a centre and a point that may lie in its ball, and their distances
        pairs, between = [], []
        for start, part in chunks(centres, max(self.sizes)):
            i = torch.arange(len(part))
            among_centres = _distances(part, centres)
            among_centres[i, start + i] = torch.inf
            found = among_centres.topk(count, largest=False)
            to_neighbours.append(found.values)
            neighbours.append(found.indices)
            to_points = _distances(part, points)
            ball, point = (to_points <= found.values[:, -1:]).nonzero().unbind(1)
            pairs.append(torch.stack([ball + start, point]))
            between.append(to_points[ball, point])
        self.to_neighbours, self.neighbours = torch.cat(to_neighbours), torch.cat(neighbours)
        (self.ball, self.point), self.between = torch.cat(pairs, 1), torch.cat(between)

    def shares(self, centres: Tensor, points: Tensor) -> tuple[float, float, int]:
        """Return the share of points in a ball, the share of balls with a point, and the pairs.

        Args:
            centres: The mask of the centres whose balls are used.
            points: The mask of the points that are used.

        Returns:
            The two shares, and the number of pairs of a ball and a point in it.
        """
        before = centres[self.neighbours].cumsum(1) < self.k
        last = before.sum(1).clamp(max=self.to_neighbours.shape[1] - 1)
        radius = self.to_neighbours.gather(1, last[:, None])[:, 0]
        used = centres[self.ball] & points[self.point]
        inside = used & (self.between <= radius[self.ball])
        balls, covered = (torch.zeros(size, dtype=torch.bool) for size in self.sizes)
        balls[self.ball[inside]] = True
        covered[self.point[inside]] = True
        shares = int(covered.sum()) / int(points.sum()), int(balls.sum()) / int(centres.sum())
        return *shares, int(inside.sum())


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Return distances computed by differences, so that equal rows are at distance 0."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")

r"""Estimate distances between two distributions from samples, without bias.

For equal distributions plug-in estimates of these distances are positive. The estimates here have
mean 0 instead. So they may be negative, and can be averaged over sets of samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_integer, door, seeded
from scoresde.errors import ShapeError
from scoresde.metrics.checks import pair, whole
from scoresde.metrics.kernels import Kernel

__all__ = ["Sliced", "energy_distance", "sliced_wasserstein"]


@door
@torch.no_grad()
def energy_distance(x: Tensor, y: Tensor) -> float:
    r"""Return the energy distance $2 E\|X - Y\| - E\|X - X'\| - E\|Y - Y'\|$ of two distributions.

    It is 0 for equal distributions and positive for others, in the units of the samples (Székely &
    Rizzo 2013, doi:10.1016/j.jspi.2013.03.018). The means over pairs in one set leave out the
    distance of each sample to itself, so the estimate is unbiased (a U-statistic).

    Args:
        x: Samples, `(N, *)`, N at least 2.
        y: Samples, `(M, *)`, M at least 2.

    Returns:
        An unbiased estimate, which may be negative.

    Raises:
        ShapeError: Fewer than two samples, or events of different shape.
        InvalidTypeError: A set is not a tensor of real numbers.
        NonFiniteError: A set holds a NaN or an infinity.
    """
    a, b = pair(x, y, 2)
    return float(Kernel("distance")(a, b, *whole(a, b))["energy"])


@door
@torch.no_grad()
def sliced_wasserstein(
    x: Tensor, y: Tensor, *, projections: int = 256, generator: torch.Generator | None = None
) -> float:
    r"""Estimate the squared sliced Wasserstein distance $E_u\, W_2^2(u^T X, u^T Y)$ without bias.

    The directions u are uniform on the sphere. In one dimension the distance is the distance of the
    quantile functions, $W_2^2 = \int_0^1 (Q_x - Q_y)^2$ (Rabin et al. 2011,
    doi:10.1007/978-3-642-24785-9_37). Both sets are split into halves, with the quantile functions
    $Q_{x,h}$ and $Q_{y,h}$, and the square is replaced by a product of independent differences,

    $$ \widehat{W_2^2} = \frac12 \sum_{h} \int_0^1
       (Q_{x,1} - Q_{y,h})(Q_{x,2} - Q_{y,3-h}), \qquad h \in \{1, 2\}. $$

    Its mean is the integral of the squared mean difference. For equal distributions this mean is 0,
    while the mean of the plug-in estimate is of the order of 1 / N. The samples must be
    independent.

    Args:
        x: Samples, `(N, *)`, N at least 2; one is left out if N is odd.
        y: Samples, `(N, *)`.
        projections: The number of directions, at least 1.
        generator: The generator of the directions, on the CPU; by default torch's global one.

    Returns:
        The mean over directions, which may be negative, in squared units of the samples.

    Raises:
        ShapeError: The two sets have events of different shapes, or fewer than two samples.
        InvalidValueError: `projections` is below 1.
        InvalidTypeError: A set is not a tensor of real numbers.
        NonFiniteError: A set holds a NaN or an infinity.
    """
    a, b = pair(x, y, 2)
    if len(a) != len(b):
        raise ShapeError(
            "x and y must have equal numbers of samples, whose quantiles are compared; got "
            f"{len(a)} and {len(b)}"
        )
    check_integer("projections", projections, 1)
    u = _directions(a.shape[1], projections, generator).to(a.device)
    return float(_mean_of_directions(a @ u, b @ u))


@dataclass(frozen=True)
class Sliced:
    """Compute `sliced`, the squared sliced Wasserstein-2 distance of `sliced_wasserstein`.

    The directions are the same for the samples and the floor. In many dimensions with few
    directions the value depends on the seed.

    Args:
        projections: The number of directions, at least 1.
        seed: The seed of the directions.

    Raises:
        InvalidValueError: `projections` is below 1, or the seed negative.
    """

    projections: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_integer("projections", self.projections, 1)
        check_integer("seed", self.seed, 0)

    def __call__(self, x: Tensor, y: Tensor, rows: Tensor, others: Tensor) -> dict[str, Tensor]:
        """Return `sliced` for each choice of rows, which must select as many of x as of y."""
        u = _directions(x.shape[1], self.projections, seeded(self.seed))
        a, b = x @ u, y @ u
        values = [_mean_of_directions(a[i], b[j]) for i, j in zip(rows, others, strict=True)]
        return {"sliced": torch.stack(values)}


def _directions(size: int, count: int, generator: torch.Generator | None) -> Tensor:
    u = torch.randn(size, count, generator=generator, dtype=torch.float64)
    unit: Tensor = u / u.norm(dim=0)
    return unit


def _mean_of_directions(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean of the estimate over P directions, from projected samples `(N, P)`."""
    half = len(a) // 2
    (x1, x2), (y1, y2) = (
        part[: 2 * half].mT.reshape(-1, 2, half).sort()[0].unbind(1) for part in (a, b)
    )
    return ((x1 - y1) * (x2 - y2) + (x1 - y2) * (x2 - y1)).mean() / 2

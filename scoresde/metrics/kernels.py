r"""Estimate the squared maximum mean discrepancy of two sets of samples, without bias.

$$ \widehat{\mathrm{MMD}}^2 = \frac{1}{n (n - 1)} \sum_{i \ne j} k(x_i, x_j)
   + \frac{1}{m (m - 1)} \sum_{i \ne j} k(y_i, y_j) - \frac{2}{n m} \sum_{i, j} k(x_i, y_j), $$

the U-statistic of Gretton et al. (2012, JMLR 13, lemma 6). For equal distributions its mean is 0,
so it may be negative. Three kernels are used:

- cubic, $k(a, b) = (a^T b / F + 1)^3$ of features of size F: the KID of Bińkowski et al. (2018,
  arXiv:1801.01401), here computed from all samples instead of blocks of samples; it detects only
  differences of the first three moments;
- Gaussian, $k(a, b) = \exp(-\|a - b\|^2 / 2 s^2)$: it detects every difference of distributions,
  especially differences on the length scale s;
- distance, $k(a, b) = -\|a - b\|$: the energy distance (Sejdinovic et al. 2013,
  doi:10.1214/13-AOS1140).

Terms of a kernel that depend on only one argument cancel in the estimate. The cubic kernel is
computed without such terms, which improves the precision. About a centre c, with
$p = (a - c)^T (b - c) / F$, $u = c^T (a - c) / F$, $w = c^T (b - c) / F$, $K = c^T c / F + 1$ and
$G = K + u + w$,

$$ k(a, b) - k(a, c) - k(c, b) + k(c, c) = p^3 + 3 p^2 G + 3 p G^2 + 3 u w (G + K). $$
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_range, door
from scoresde.errors import NonFiniteError
from scoresde.metrics.checks import pair, whole
from scoresde.metrics.distances import chunks

__all__ = ["Kernel", "kernel_distance", "median_distance"]

# The number of rows from which the bandwidth is computed.
_ROWS = 1000


@dataclass(frozen=True)
class Kernel:
    """Compute the squared maximum mean discrepancy for one kernel.

    Args:
        kind: The kernel: `"gaussian"` computes `mmd`, `"cubic"` `kid`, `"distance"` `energy`.
        bandwidth: The s of the Gaussian kernel; by default the median distance of the first 1000
            reference samples.

    Raises:
        UnknownNameError: There is no such kernel.
        InvalidValueError: The bandwidth is not positive.
    """

    kind: Literal["gaussian", "cubic", "distance"] = "gaussian"
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.bandwidth is not None:
            check_range("bandwidth", self.bandwidth, "(0, inf)")

    def __call__(self, x: Tensor, y: Tensor, rows: Tensor, others: Tensor) -> dict[str, Tensor]:
        """Return `mmd`, `kid` or `energy` for each choice of rows."""
        # subtract the mean, since products of numbers with a common offset lose digits
        centre = y.mean(0)
        x, y = x - centre, y - centre
        kernel: Callable[[Tensor, Tensor], Tensor]
        if self.kind == "gaussian":
            scale = self.bandwidth or median_distance(y)
            name, kernel = "mmd", partial(_gaussian, scale=scale)
        elif self.kind == "cubic":
            name, kernel = "kid", partial(_cubic, centre=centre)
        else:
            name, kernel = "energy", lambda a, b: -torch.cdist(a, b)
        v, w = rows.double(), others.double()
        n, m = v.sum(1), w.sum(1)
        within = sum(
            _sums(kernel, a, a, u, u, same=True) / (k * (k - 1))
            for a, u, k in ((x, v, n), (y, w, m))
        )
        return {name: within - 2 * _sums(kernel, x, y, v, w) / (n * m)}


@door
@torch.no_grad()
def kernel_distance(
    x: Tensor,
    y: Tensor,
    *,
    kernel: Literal["gaussian", "cubic"] = "gaussian",
    bandwidth: float | None = None,
) -> float:
    r"""Estimate the squared maximum mean discrepancy between two distributions.

    Args:
        x: Samples or features, `(N, *)`, N at least 2.
        y: Reference samples or features, `(M, *)`, M at least 2.
        kernel: `"gaussian"`, or `"cubic"` for the KID.
        bandwidth: The s of the Gaussian kernel; by default the median distance of the first 1000
            reference samples.

    Returns:
        The estimate, which may be negative, and is unbiased for a given bandwidth.

    Raises:
        ShapeError: Fewer than two samples, or events of different shape.
        UnknownNameError: There is no such kernel.
        InvalidValueError: The bandwidth is not positive.
        InvalidTypeError: A set is not a tensor of real numbers.
        NonFiniteError: A set holds a NaN or an infinity, or numbers too large for the kernel.
    """
    a, b = pair(x, y, 2)
    (found,) = Kernel(kernel, bandwidth)(a, b, *whole(a, b)).values()
    if not found.isfinite():
        raise NonFiniteError(
            f"the {kernel} kernel overflows on these numbers, up to {float(a.abs().max()):.3g} in "
            f"x and {float(b.abs().max()):.3g} in y; divide both by their scale"
        )
    return float(found)


def median_distance(y: Tensor) -> float:
    """Return the median distance between two of the first 1000 rows.

    If the median is 0, return the mean distance; if all rows are equal, return 1.
    """
    apart = torch.pdist(y[:_ROWS])
    found = float(apart.median()) or float(apart.mean())
    return found or 1.0


def _sums(
    kernel: Callable[[Tensor, Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    v: Tensor,
    w: Tensor,
    *,
    same: bool = False,
) -> Tensor:
    r"""Return $\sum_{ij} v_i w_j k(a_i, b_j)$ for each v and w; if `same`, leave out i = j."""
    total = v.new_zeros(len(v))
    for start, part in chunks(a, len(b)):
        k = kernel(part, b)
        if same:
            i = torch.arange(len(part))
            k[i, start + i] = 0
        total += ((w @ k.mT) * v[:, start : start + len(part)]).sum(1)
    return total


def _gaussian(a: Tensor, b: Tensor, scale: float) -> Tensor:
    return torch.exp(-0.5 * (torch.cdist(a, b) / scale).square())


def _cubic(a: Tensor, b: Tensor, centre: Tensor) -> Tensor:
    """Return the cubic kernel of centred arguments, without terms in only one argument."""
    size = max(len(centre), 1)
    p, u, w = a @ b.mT / size, (a @ centre / size)[:, None], b @ centre / size
    at = centre @ centre / size + 1
    g = u + (w + at)
    # in place, since the tables are large
    k = (3 * g * p).addcmul_(p, p).addcmul_(g, g, value=3).mul_(p)
    return k.addcmul_(3 * u * w, g + at)

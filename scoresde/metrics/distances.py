r"""How far samples are from data: Fréchet distance, nearest neighbours, class histograms.

Between two Gaussians the Fréchet (Wasserstein-2) distance is, squared,

$$d^2 = \|\mu_x - \mu_y\|^2 + \mathrm{tr}\big(C_x + C_y - 2 (C_x^{1/2} C_y C_x^{1/2})^{1/2}\big)$$

(Dowson & Landau 1982, doi:10.1016/0047-259X(82)90077-X). Heusel et al. (2017, arXiv:1706.08500)
take it between two sets of images, through the moments of a network's features.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.metrics.checks import finite, flat

__all__ = ["frechet_distance", "nearest_distance", "total_variation"]

# Rows that a feature map sees, and entries of a table of distances that are held, at one time.
_ROWS = 1024
_ENTRIES = 2**22


@torch.no_grad()
def frechet_distance(
    x: Tensor, y: Tensor, *, features: Callable[[Tensor], Tensor] | None = None
) -> float:
    r"""The squared Fréchet distance $d^2$ between the Gaussians fitted to two sets of samples.

    This is the figure known as FID when the features are Inception's. It is biased upwards by an
    amount that falls with the number of samples: compare only at equal numbers, and beside the
    distance between two sets of real data.

    With $C_x = R_x^T R_x$ from a QR decomposition of the centred features, the trace above is
    $\min_U \|R_x - U R_y\|_F^2$ over orthogonal $U$ (Masarotto et al. 2019, arXiv:1801.01990): a
    sum of squares, for singular covariances too, where matrix roots lose half of the digits.

    Args:
        x: samples, `(N, *)`, N at least 2.
        y: samples, `(M, *)`, M at least 2.
        features: a map from a batch `(B, *)` to its features `(B, F)`, called on at most 1024
            samples at a time; without it the samples themselves, flattened, are the features.

    Returns:
        $d^2 \ge 0$, computed in float64.

    Raises:
        ShapeError: fewer than two samples, or `x` and `y` have features of different size.
        InvalidTypeError: a sample or a feature is not a tensor of real numbers.
        NonFiniteError: a feature is NaN or infinite.
    """
    fx, fy = _features("x", x, features), _features("y", y, features)
    if fx.shape[1] != fy.shape[1]:
        raise ShapeError(
            f"x and y must have features of one size, got {fx.shape[1]} for x of shape "
            f"{tuple(x.shape)} and {fy.shape[1]} for y of shape {tuple(y.shape)}"
        )
    fy = fy.to(fx.device)
    rx, ry = _root(fx), _root(fy)
    left, _, right = torch.linalg.svd(rx @ ry.mT)
    spread = (rx - left @ right @ ry).square().sum()
    return float((fx.mean(0) - fy.mean(0)).square().sum() + spread)


@torch.no_grad()
def nearest_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""The Euclidean distance from each sample to the nearest of `y`, $\min_j \|x_i - y_j\|$.

    With `x` generated and `y` the training data it shows memorisation: compare its small quantiles
    with those of held-out data.

    Args:
        x: samples, `(N, *)`.
        y: where neighbours are sought, `(M, *)`, M at least 1.

    Returns:
        The distances, `(N,)`, float64.

    Raises:
        ShapeError: `y` is empty, or the events of `x` and `y` differ in shape.
        InvalidTypeError: one of them is not a tensor of real numbers.
        NonFiniteError: one of them holds a NaN or an infinity.
    """
    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape[1:] != y.shape[1:]:
        raise ShapeError(
            f"x and y must hold events of one shape, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    points, others = flat("x", x), flat("y", y).to(x.device)
    if len(others) == 0:
        raise ShapeError("y holds no sample to be near to; pass at least one")
    norms = others.square().sum(1)
    rows = max(1, _ENTRIES // len(others))
    distances = []
    for part in torch.split(points, rows):
        # The product finds the neighbour; the distance is then taken without its cancellation.
        nearest = (norms - 2 * part @ others.mT).argmin(1)
        distances.append((part - others[nearest]).norm(dim=1))
    return torch.cat(distances)


def total_variation(p: Tensor, q: Tensor) -> float:
    r"""The total variation $\frac12 \sum_k |p_k - q_k|$ between two histograms.

    Args:
        p: counts or probabilities, `(K,)`, non-negative; divided by their sum.
        q: likewise.

    Returns:
        A number from 0, equal, to 1, disjoint.

    Raises:
        ShapeError: `p` and `q` are not vectors of one length.
        InvalidTypeError: one of them is not a tensor of real numbers.
        InvalidValueError: a histogram has a negative entry, or nothing in it.
        NonFiniteError: one of them holds a NaN or an infinity.
    """
    fractions = []
    for name, value in (("p", p), ("q", q)):
        counts = finite(name, value)
        if (counts < 0).any() or counts.sum() == 0:
            raise InvalidValueError(
                f"{name} must be a histogram, no entry negative and the sum positive, got {value}"
            )
        fractions.append(counts / counts.sum())
    if p.ndim != 1 or p.shape != q.shape:
        raise ShapeError(
            f"p and q must be vectors of one length, got {tuple(p.shape)} and {tuple(q.shape)}; "
            "count classes with labels.bincount(minlength=K)"
        )
    return float(0.5 * (fractions[0] - fractions[1].to(fractions[0].device)).abs().sum())


def _root(features: Tensor) -> Tensor:
    """The square matrix R with R^T R the covariance of the features."""
    n, size = features.shape
    _, r = torch.linalg.qr((features - features.mean(0)) / (n - 1) ** 0.5, mode="r")
    return torch.nn.functional.pad(r, (0, 0, 0, size - len(r)))


def _features(name: str, x: Tensor, features: Callable[[Tensor], Tensor] | None) -> Tensor:
    if not isinstance(x, Tensor):
        raise InvalidTypeError(f"{name} must be a tensor of samples, got {type(x).__name__}")
    if x.ndim == 0 or len(x) < 2:
        raise ShapeError(
            f"a covariance needs at least 2 samples, got {name} of shape {tuple(x.shape)}"
        )
    if features is None:
        return flat(name, x)
    parts = [flat(f"features({name})", features(part)) for part in torch.split(x, _ROWS)]
    result = torch.cat(parts)
    if len(result) != len(x):
        raise ShapeError(
            f"features must return one row per sample, got {len(result)} rows for {len(x)} samples"
        )
    return result

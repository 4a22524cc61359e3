r"""Compute the Fréchet distance between Gaussians fitted to features, optionally batch by batch.

The squared Fréchet (Wasserstein-2) distance between two Gaussians is

$$d^2 = \|\mu_x - \mu_y\|^2 + \mathrm{tr}\big(C_x + C_y - 2 (C_x^{1/2} C_y C_x^{1/2})^{1/2}\big)$$

(Dowson & Landau 1982, doi:10.1016/0047-259X(82)90077-X). Heusel et al. (2017, arXiv:1706.08500)
apply it to two sets of images, with the mean and covariance of a network's features.

If $C = R^T R$, the trace is $\min_U \|R_x - U R_y\|_F^2$ over orthogonal $U$ (Masarotto et al.
2019, arXiv:1801.01990). This sum of squares is precise even for singular covariances, where matrix
square roots lose half of the digits. With the nuclear norm $\|\cdot\|_*$ it equals
$\|R_x\|_F^2 + \|R_y\|_F^2 - 2 \|R_x R_y^T\|_*$.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import ShapeError
from scoresde.metrics.checks import same_bytes
from scoresde.metrics.sources import Features, Source, features_of

__all__ = ["Frechet", "GaussianFit", "frechet_distance"]


@dataclass(frozen=True, eq=False)
class GaussianFit:
    r"""Hold a Gaussian fitted to features; adding two fits gives the fit to both sets together.

    The scatter S of both sets together (the sum of squares about their mean) is (Chan, Golub &
    LeVeque 1983, doi:10.1080/00031305.1983.10483115)

    $$ S = S_1 + S_2 + \tfrac{n_1 n_2}{n_1 + n_2} \delta \delta^T, \qquad
       \delta = \mu_2 - \mu_1. $$

    A root R with $S = R^T R$ is stored. The root of a sum comes from one QR decomposition of
    $(R_1; R_2; \sqrt{n_1 n_2 / (n_1 + n_2)}\, \delta^T)$.

    Attributes:
        n: The number of samples.
        mean: The mean of the features, `(F,)`, float64.
        root: The root R of the scatter, `(r, F)`; r is at most F.
    """

    n: int
    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, source: Source, features: Features | None = None) -> GaussianFit:
        """Fit a Gaussian to all samples of a source, with one batch at a time in memory.

        Args:
            source: A tensor `(N, *)`, batches, a file, or a folder of shards.
            features: A map from a batch `(B, *)` to its features `(B, F)`; without it the samples
                themselves, flattened.

        Raises:
            ShapeError: The source is empty, or its features are of different sizes.
            InvalidTypeError: A sample or a feature is not a tensor of real numbers.
            NonFiniteError: A feature is NaN or infinite.
        """
        return _fit("source", source, features)

    def __add__(self, other: GaussianFit) -> GaussianFit:
        if not isinstance(other, GaussianFit):
            return NotImplemented
        if self.mean.shape != other.mean.shape:
            raise ShapeError(
                "only fits with the same number of features can be added, got "
                f"{len(self.mean)} and {len(other.mean)}"
            )
        n = self.n + other.n
        shift = other.mean - self.mean
        apart = math.sqrt(self.n * other.n / n) * shift
        return GaussianFit(
            n,
            self.mean + shift * (other.n / n),
            _reduced(torch.cat([self.root, other.root, apart[None]])),
        )

    @property
    def cov(self) -> Tensor:
        """Return the covariance `(F, F)`, with the divisor n - 1."""
        root = self._scaled()
        return root.mT @ root

    def distance(self, other: GaussianFit) -> float:
        """Return the squared Fréchet distance between two fits.

        Raises:
            ShapeError: A fit has fewer than two samples, or their features differ in size.
        """
        rx, ry = self._scaled(), other._scaled()
        if rx.shape[1] != ry.shape[1]:
            raise ShapeError(
                f"both fits must have the same number of features, got {rx.shape[1]} and "
                f"{ry.shape[1]}"
            )
        rows = max(len(rx), len(ry))
        rx, ry = (torch.nn.functional.pad(r, (0, 0, 0, rows - len(r))) for r in (rx, ry))
        left, _, right = torch.linalg.svd(rx @ ry.mT)
        spread = (rx - left @ right @ ry).square().sum()
        return float((self.mean - other.mean).square().sum() + spread)

    def _scaled(self) -> Tensor:
        if self.n < 2:
            raise ShapeError(f"a covariance needs at least 2 samples, got {self.n}")
        return self.root / math.sqrt(self.n - 1)


@door
@torch.no_grad()
def frechet_distance(
    x: Tensor | GaussianFit, y: Tensor | GaussianFit, *, features: Features | None = None
) -> float:
    r"""Return the squared Fréchet distance $d^2$ between the Gaussians fitted to two sets.

    With Inception's features this distance is the FID. Its bias is positive and about proportional
    to 1 / N. So compare distances only at equal N, and also report the distance between two sets of
    real data.

    Args:
        x: Samples, `(N, *)`, N at least 2; or a fit.
        y: Samples, `(M, *)`, M at least 2; or a fit.
        features: A map from a batch `(B, *)` to its features `(B, F)`, called on at most 1024
            samples at a time; without it the samples themselves, flattened, are the features.

    Returns:
        $d^2 \ge 0$, computed in float64.

    Raises:
        ShapeError: Fewer than two samples, or `x` and `y` have features of different size.
        InvalidTypeError: A sample or a feature is not a tensor of real numbers.
        NonFiniteError: A feature is NaN or infinite.
    """
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        same_bytes(x=x, y=y)
    fx, fy = _given("x", x, features), _given("y", y, features)
    if fx.mean.shape != fy.mean.shape:
        raise ShapeError(
            f"x and y must have the same number of features, got {len(fx.mean)} for x{_shape(x)} "
            f"and {len(fy.mean)} for y{_shape(y)}"
        )
    return fx.distance(fy)


@dataclass(frozen=True)
class Frechet:
    r"""Compute the squared Fréchet distance of n samples, and an estimate of its limit for large n.

    To leading order the bias is proportional to 1/n. So the bias is twice as large for n/2 samples,
    and cancels in

    $$ 2 d^2_n - \overline{d^2_{n/2}}, $$

    where the mean is over random halves (Chong & Forsyth 2020, arXiv:1911.07023, here with two
    sample sizes, n and n/2). If n is below twice the number of features, the bias is not
    proportional to 1/n, and no limit is returned.
    """

    def __call__(self, x: Tensor, y: Tensor, rows: Tensor, others: Tensor) -> dict[str, Tensor]:
        """Return `frechet`, and `frechet_limit` if n is large enough."""
        pairs = zip(rows, others, strict=True)
        values = torch.stack([_squared(x[i], y[j]) for i, j in pairs])
        found = {"frechet": values}
        if len(values) > 1 and len(x) >= 2 * x.shape[1]:
            bias = values[1:].mean() - values[0]
            found["frechet_limit"] = torch.cat([values[:1] - bias, values[1:] - 2 * bias])
        return found


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """Compute the squared distance by a formula that is faster but less accurate near 0."""
    a, b = ((f - f.mean(0)) / math.sqrt(len(f) - 1) for f in (x, y))
    spread = a.square().sum() + b.square().sum()
    if len(a) > a.shape[1]:
        a, b = _reduced(a), _reduced(b)
    shift = (x.mean(0) - y.mean(0)).square().sum()
    common = torch.linalg.svdvals(a @ b.mT).sum()
    value: Tensor = shift + (spread - 2 * common).clamp(min=0)
    return value


def _reduced(rows: Tensor) -> Tensor:
    """Return a matrix R with R^T R = rows^T rows, and with at most as many rows as columns."""
    if len(rows) <= rows.shape[1]:
        return rows
    root: Tensor = torch.linalg.qr(rows, mode="r")[1]
    return root


def _fit(name: str, source: Source, features: Features | None) -> GaussianFit:
    fits = []
    for part in features_of(name, source, features):
        mean = part.mean(0)
        fits.append(GaussianFit(len(part), mean, _reduced(part - mean)))
        fits = [reduce(add, fits)]
    if not fits:
        raise ShapeError(f"{name} holds no samples; a Gaussian needs at least 2")
    return fits[0]


def _given(name: str, x: Tensor | GaussianFit, features: Features | None) -> GaussianFit:
    if isinstance(x, GaussianFit):
        return x
    if x.ndim == 0 or len(x) < 2:
        raise ShapeError(
            f"a covariance needs at least 2 samples, got {name} of shape {tuple(x.shape)}"
        )
    return _fit(name, x, features)


def _shape(x: Tensor | GaussianFit) -> str:
    return f" of shape {tuple(x.shape)}" if isinstance(x, Tensor) else ""

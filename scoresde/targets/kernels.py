r"""Define the kernel density of given points, such as images.

It is a mixture of many isotropic Gaussians with equal weights and variances. For K points in D
dimensions `Marginal` needs an array of shape (B, D, K). Here all kernels have the same variance
$v = \alpha^2 h^2 + \sigma^2$, so two matrix products suffice:

$$ r_k \propto \exp\Big(\frac{\alpha\, x \cdot \mu_k - \alpha^2 |\mu_k|^2 / 2}{v}\Big), \qquad
   \nabla \log p_t(x) = \frac{\alpha \sum_k r_k \mu_k - x}{v}. $$
"""

from __future__ import annotations

import math

from torch import Tensor

from scoresde.checks import check_range, door
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.sde import SDE, Moments
from scoresde.targets.gaussian import Numbers, numbers
from scoresde.targets.mixture import Components, Marginal
from scoresde.targets.target import Target, scales

__all__ = ["KernelDensity"]


class KernelDensity(Target):
    r"""Define the average of isotropic Gaussian densities centred at points.

    The density is $\frac1K \sum_k N(\mu_k, h^2 I)$. With real images as points, its samples
    resemble noisy images, and its score is known exactly. Because of rounding in matrix products,
    the last digits of results depend on the batch size.

    Args:
        points: The points, `(K, *)`.
        bandwidth: h, positive.

    Raises:
        InvalidTypeError: The points are not real numbers.
        ShapeError: `points` is empty, or has no event axis.
        InvalidValueError: The bandwidth is not positive, its square overflows or underflows, or a
            number is not finite.

    Examples:
        >>> target = KernelDensity(torch.eye(4).reshape(4, 1, 2, 2), bandwidth=0.1)
        >>> target.sample(3).shape
        torch.Size([3, 1, 2, 2])
    """

    @door
    def __init__(self, points: Numbers, bandwidth: float) -> None:
        means = numbers("points", points)
        check_range("bandwidth", bandwidth, "(0, inf)")
        if means.ndim < 2 or means.numel() == 0:
            raise ShapeError(
                f"a kernel density needs points (K, *), K >= 1, got {tuple(means.shape)}"
            )
        k = len(means)
        weights, variances = means.new_full((k,), 1 / k), means.new_full((k, 1), bandwidth).square()
        if not variances.all():
            raise InvalidValueError(f"the square of the bandwidth, {bandwidth:g}, underflows to 0")
        super().__init__(Components(weights, means, variances))

    def marginal(self, x: Tensor, sde: SDE | None, t: Tensor | float | None) -> _Kernels:
        """Return $p_t$ at points `(B, *)`."""
        points = x.double().reshape(len(x), math.prod(self.event_shape))
        return _Kernels(self.components.to(x.device), points, *scales(sde, t, points))

    def moments(self) -> Moments:
        """Return the mean and the covariance of the data."""
        return self.components.moments()


class _Kernels(Marginal):
    """Evaluate a kernel density at points `(B, D)`, as `Marginal` evaluates a mixture."""

    def __init__(self, components: Components, x: Tensor, alpha: Tensor, sigma: Tensor) -> None:
        self.x, self.alpha, self.means = x, alpha, components.flat_means
        self.h2 = components.variances[0, 0]
        self.v = alpha**2 * self.h2 + sigma**2

    def log_joint(self) -> Tensor:
        r"""Return $\log w_k N(x; \alpha_t \mu_k, v I)$, `(B, K)`."""
        squares = self.means.square().sum(1)
        overlap = self.alpha * (self.x @ self.means.T) - self.alpha**2 * squares / 2
        norms = self.x.square().sum(1, keepdim=True) / self.v
        size = self.x.shape[1] * (2 * math.pi * self.v).log()
        return overlap / self.v - (norms + size) / 2 - math.log(len(self.means))

    def log_prob(self) -> Tensor:
        r"""Return $\log p_t(x)$, `(B,)`."""
        return self.log_joint().logsumexp(1)

    def responsibilities(self) -> Tensor:
        r"""Return $r_k$, `(B, K)`."""
        return self.log_joint().softmax(1)

    def score(self) -> Tensor:
        r"""Return $\nabla \log p_t(x)$, `(B, D)`."""
        return (self.alpha * (self.responsibilities() @ self.means) - self.x) / self.v

    def denoise(self) -> Tensor:
        r"""Return $E[x_0 | x_t = x]$, `(B, D)`."""
        near = self.responsibilities() @ self.means
        return near + self.alpha * self.h2 * (self.x - self.alpha * near) / self.v

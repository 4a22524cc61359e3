r"""Define how much each update contributes to an average of a model's weights.

Let $\theta_{k+1}$ be the weights after update number $k = 0, 1, \dots$, which changes the average
by $\bar\theta \leftarrow d_k \bar\theta + (1 - d_k) \theta_{k+1}$. After $n$ updates the average is

$$\bar\theta_n = \sum_{k=0}^n \big(c_n(k) - c_n(k-1)\big)\,\theta_k, \qquad
  c_n(k) = \prod_{j=k}^{n-1} d_j, \quad c_n(-1) = 0,$$

where $c_n(k)$ is the total share of $\theta_0, \dots, \theta_k$ in the average, and $c_n(n) = 1$.
For the two profiles of this module the products have closed forms.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from scoresde.checks import check_fields, check_range, door

__all__ = ["Exponential", "Power", "Profile", "gamma_of", "sigma_of"]

# The range of the relative width. A narrower average of 10,000 updates would nearly equal the last
# weights; the widest has a constant density and the width 1 / sqrt(12), here rounded up.
_RANGE = "[0.0001, 0.2887]"


class Profile(abc.ABC):
    """Define the decay of an average at each update."""

    @abc.abstractmethod
    def decay_at(self, k: int) -> float:
        """Return the decay $d_k$ of update number `k`, counted from 0."""

    @abc.abstractmethod
    def share(self, k: Tensor, n: int) -> Tensor:
        r"""Return the share $c_n(k)$ of $\theta_0 \dots \theta_k$ in the average after `n` updates.

        Args:
            k: Numbers of updates, at least 0, of any shape; the share is 1 if `k` exceeds `n`.
            n: The number of updates so far, at least 1.

        Returns:
            The share, float64, in [0, 1], of the shape of `k`.
        """


@dataclass(frozen=True)
class Exponential(Profile):
    r"""Average exponentially with $d_k = d$, or $\min(d, (1 + k) / (10 + k))$ for a warm-up.

    The warm-up rule is that of TensorFlow's `ExponentialMovingAverage(num_updates=...)`, which Song
    et al. (2021, arXiv:2011.13456) used. With the warm-up the initial weights lose their influence
    in a few updates (their share is 2 % after two), not in $1/(1-d)$ updates. The warm-up ends at
    the first update m with $(1 + m) / (10 + m) \ge d$. For $n \le m$ the share is
    $\prod_{i=1}^9 (k + i) / (n + i)$.

    Args:
        decay: The decay $d$, in [0, 1).
        warmup: Start with lower decays.

    Raises:
        InvalidTypeError: `decay` is not a number.
        InvalidValueError: `decay` is outside [0, 1).
    """

    decay: float = 0.9999
    warmup: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        check_range("decay", self.decay, "[0, 1)")

    def __str__(self) -> str:
        return f"decay {self.decay}"

    def decay_at(self, k: int) -> float:
        """Return the decay $d_k$ of update number `k`, counted from 0."""
        return min(self.decay, (1 + k) / (10 + k)) if self.warmup else self.decay

    def share(self, k: Tensor, n: int) -> Tensor:
        r"""Return the share $c_n(k)$, of the shape of `k`; see `Profile.share`."""
        k = k.double().clamp(max=n)
        full = max(0, math.ceil((10 * self.decay - 1) / (1 - self.decay))) if self.warmup else 0
        late = k.clamp(min=min(full, n))
        share = self.decay ** (n - late)
        for i in range(1, 10):
            share = share * (k + i).clamp(max=min(full, n) + i) / (min(full, n) + i)
        return share


@dataclass(frozen=True)
class Power(Profile):
    r"""Average by a power function (Karras et al. 2024, arXiv:2312.02696, section 3).

    The weights after $t = k + 1$ updates count in proportion to
    $\int_{t-1}^t \tau^\gamma\,d\tau$, so that

    $$d_k = \Big(1 - \frac1t\Big)^{\gamma + 1}, \qquad
      c_n(k) = \Big(\frac kn\Big)^{\gamma + 1}.$$

    The shape of the profile does not change as the run grows. The weights before the first update
    do not count.

    Args:
        sigma: $\sigma_\text{rel}$, the profile's standard deviation divided by the length of the
            run so far, in [1e-4, 0.2887]; 0.05 to 0.25 are usual. $1/\sqrt{12}$, or 0.2887, gives
            the mean of all weights.

    Raises:
        InvalidTypeError: `sigma` is not a number.
        InvalidValueError: `sigma` is outside this range.
    """

    sigma: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self)
        gamma_of(self.sigma)

    def __str__(self) -> str:
        return f"sigma {self.sigma}"

    @cached_property
    def gamma(self) -> float:
        r"""Return the exponent $\gamma$."""
        return gamma_of(self.sigma)

    def decay_at(self, k: int) -> float:
        """Return the decay $d_k$ of update number `k`, counted from 0."""
        return float((k / (k + 1)) ** (self.gamma + 1))

    def share(self, k: Tensor, n: int) -> Tensor:
        r"""Return the share $c_n(k)$, of the shape of `k`; see `Profile.share`."""
        return (k.double().clamp(max=n) / n) ** (self.gamma + 1)


@door
def sigma_of(gamma: float) -> float:
    r"""Return the relative width $\sigma_\text{rel}$ of a power-function profile.

    $\sigma_\text{rel} = (\gamma+1)^{1/2} (\gamma+2)^{-1} (\gamma+3)^{-1/2}$, the standard deviation
    of the density $(\gamma + 1) \tau^\gamma$ on [0, 1] (Karras et al. 2024, arXiv:2312.02696).

    Raises:
        InvalidTypeError: `gamma` is not a number.
        InvalidValueError: `gamma` is below 0.
    """
    check_range("gamma", gamma, "[0, inf)")
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


@door
def gamma_of(sigma: float) -> float:
    r"""Return the exponent of a power-function profile: the inverse of `sigma_of`.

    The exponent is the largest root of
    $(\gamma + 2)^2 (\gamma + 3) = (\gamma + 1) / \sigma_\text{rel}^2$.

    Raises:
        InvalidTypeError: `sigma` is not a number.
        InvalidValueError: `sigma` is outside [1e-4, 0.2887].
    """
    check_range("sigma", sigma, _RANGE)
    t = sigma**-2.0
    return max(0.0, float(np.roots([1, 7, 16 - t, 12 - t]).real.max()))

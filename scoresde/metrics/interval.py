r"""Compute confidence intervals for means of independent values, corrected for their skewness.

Let $\bar v$ be the mean of n values, s their standard deviation, $\gamma$ their skewness and $\mu$
their expectation. The statistic $T = \sqrt n\, (\bar v - \mu) / s$ has a skewness of the order of
$G = \gamma / \sqrt n$. The cubic

$$ g(T) = T + \tfrac13 G T^2 + \tfrac1{27} G^2 T^3 + \tfrac16 G $$

removes the skewness to the order $1/n$, is increasing, and has the inverse

$$ T(g) = \frac3G \big((1 + G (g - G/6))^{1/3} - 1\big) $$

(Hall 1992, doi:10.1111/j.2517-6161.1992.tb01876.x). So the interval extends from
$\bar v - s\, T(t) / \sqrt n$ to $\bar v - s\, T(-t) / \sqrt n$, where t is a quantile of Student's
t distribution. Since $\gamma$ is estimated too, t has fewer degrees of freedom: a fifth of $n - 1$,
but at least min(3, n - 1). With $n - 1$ degrees of freedom, 95 % intervals for the means of 100
squared errors of samplers covered the mean in only 93.4 to 94.7 % of the cases.
"""

from __future__ import annotations

import math

from torch import Tensor

from scoresde.checks import check_range, door
from scoresde.errors import NonFiniteError, ShapeError
from scoresde.metrics.checks import finite

__all__ = ["difference_interval", "mean_interval", "share_interval", "student"]


@door
def mean_interval(values: Tensor, *, level: float = 0.95) -> tuple[float, float]:
    r"""Return an interval for the mean of independent values, corrected for their skewness.

    The interval is wrong if the mean is dominated by large values so rare that they may all be
    missing in the sample. So n must be several times (std / mean)^2.

    Args:
        values: `(n,)`, n at least 1.
        level: The confidence of the interval, in (0, 1).

    Returns:
        Both ends, in float64. They are infinite if n is 1, and equal if all values are equal. In
        tests, 95 % intervals of 6 or more normal, exponential or squared normal numbers contained
        the mean in at least 95 % of 1,500 cases; intervals of 2 to 5 skewed numbers, in 86 to 93 %.

    Raises:
        ShapeError: `values` is not a vector of at least one number.
        InvalidValueError: `level` is out of range.
        InvalidTypeError: `values` is not a tensor of real numbers.
        NonFiniteError: `values` holds a NaN or an infinity, or an end overflows.

    Examples:
        >>> import torch
        >>> low, high = mean_interval(torch.arange(1.0, 10.0))
        >>> round(low, 2), round(high, 2)
        (2.09, 7.91)
    """
    check_range("level", level, "(0, 1)")
    v = finite("values", values).cpu()
    if v.ndim != 1 or len(v) == 0:
        raise ShapeError(f"values must be a vector of numbers, got shape {tuple(v.shape)}")
    n, scale = len(v), float(v.abs().max()) or 1.0
    v = v / scale  # sums and powers of large or small numbers may overflow or underflow
    mean = float(v.mean())
    size = float((v - mean).abs().max())
    if n == 1:
        return -math.inf, math.inf
    if size <= 1e-15 * abs(mean):
        return mean * scale, mean * scale
    gaps = (v - mean) / size
    error = size * float(gaps.std()) / math.sqrt(n)
    skewness = float(gaps.pow(3).mean() / gaps.square().mean() ** 1.5)
    t, lean = student(level, max((n - 1) / 5, min(n - 1, 3))), skewness / math.sqrt(n)
    low, high = (scale * (mean - error * _inverse(z, lean)) for z in (t, -t))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NonFiniteError(
            "the interval of such large values overflows float64; divide the values by a large "
            "number first"
        )
    return low, high


def student(level: float, freedom: float) -> float:
    """Return t with P(|T| < t) = level for Student's t distribution."""
    from scipy.special import stdtrit  # slow to import

    return float(stdtrit(freedom, (1 + level) / 2))


def outside(t: float, freedom: float) -> float:
    """Return P(|T| > t) for Student's t distribution."""
    from scipy.special import stdtr  # slow to import

    return 2 * float(stdtr(freedom, -t))


def share_interval(share: float, n: int, level: float) -> tuple[float, float]:
    """Return Wilson's interval for a probability, given the share of successes in n trials.

    Its width is positive for shares of 0 and 1 too (Wilson 1927,
    doi:10.1080/01621459.1927.10502953).

    Examples:
        >>> low, high = share_interval(1.0, 100, 0.95)
        >>> round(low, 3), high
        (0.963, 1.0)
    """
    t = student(level, math.inf)
    middle = (share + t**2 / (2 * n)) / (1 + t**2 / n)
    reach = t * math.sqrt(share * (1 - share) / n + t**2 / (4 * n**2)) / (1 + t**2 / n)
    return min(max(middle - reach, 0.0), share), max(min(middle + reach, 1.0), share)


def difference_interval(one: float, other: float, n: int, level: float) -> tuple[float, float]:
    """Return an interval for the difference of two probabilities, given the shares in n trials.

    It combines Wilson's intervals for both probabilities (Newcombe 1998, method 10,
    doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I).
    """
    (low, high), (least, most) = (share_interval(p, n, level) for p in (one, other))
    gap = one - other
    return gap - math.hypot(one - low, most - other), gap + math.hypot(high - one, other - least)


def _inverse(g: float, lean: float) -> float:
    """Return T(g) of the module, where `lean` is G."""
    if abs(lean) < 1e-6:  # T is then the identity up to rounding
        return g
    return 3 * (math.cbrt(1 + lean * (g - lean / 6)) - 1) / lean

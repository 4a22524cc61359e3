r"""How sure a mean is: percentile intervals of the bootstrap."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_range, door
from scoresde.errors import ShapeError
from scoresde.metrics.checks import finite

__all__ = ["bootstrap"]


@door
def bootstrap(
    values: Tensor,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    r"""An interval for the mean of independent values, by resampling them with replacement.

    The ends are the quantiles $(1 \mp \text{level}) / 2$ of the means of the resamples (Efron 1979,
    doi:10.1214/aos/1176344552; the percentile interval). It is too narrow for a handful of values:
    by the factor $\sqrt{(n - 1) / n}$ at least.

    Args:
        values: `(n,)`, n at least 1.
        level: the probability that the interval is to have, in (0, 1).
        resamples: how many are drawn, at least 1.
        generator: where they come from; torch's global generator without it.

    Returns:
        Both ends, in float64; equal where n is 1.

    Raises:
        ShapeError: `values` is no vector of at least one number.
        InvalidValueError: `level` or `resamples` is out of range.
        InvalidTypeError: `values` is not a tensor of real numbers.
        NonFiniteError: it holds a NaN or an infinity.
    """
    check_range("level", level, "(0, 1)")
    check_integer("resamples", resamples, 1)
    v = finite("values", values).cpu()
    if v.ndim != 1 or len(v) == 0:
        raise ShapeError(f"values must be a vector of numbers, got shape {tuple(v.shape)}")
    rows = torch.randint(len(v), (resamples, len(v)), generator=generator)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = v[rows].mean(1).quantile(ends).tolist()
    return low, high

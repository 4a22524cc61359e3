"""Infer the units of samples from their moments."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["nearer"]


def nearer(x: Tensor, changed: Tensor, like: Tensor) -> Tensor:
    """Return `changed` if its moments are clearly nearer to the moments of `like`, else x.

    So samples that may be in one of two units can be compared with data.

    Args:
        x: Samples `(N, *)`, in the units of `like` or in other units.
        changed: The same samples, converted from the other units to the units of `like`.
        like: Data, `(M, *)`.

    Examples:
        >>> data = torch.linspace(100, 300, 20)[:, None]
        >>> x = torch.linspace(-1, 1, 20)[:, None]
        >>> nearer(x, 200 + 100 * x, data)[0].item()
        100.0
    """
    mean, var = _moments(like)
    var = var.clamp(min=1e-12 * float(mean.abs().max()) ** 2 + 1e-300)

    def gap(part: Tensor) -> float:
        centre, spread = _moments(part)
        away = float(((centre - mean).square() / var).mean().sqrt())
        return away + abs(math.log((float(spread.mean()) + 1e-300) / float(var.mean())))

    if 0 in (len(x), len(like)) or x.shape[1:] != like.shape[1:]:
        return x
    return changed if gap(x) > 1 + 3 * gap(changed) else x


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance of samples `(N, *)`, float64 `(D,)` on the CPU."""
    rows = x.detach().double().cpu().reshape(len(x), -1)
    return rows.mean(0), rows.var(0, correction=0)

r"""Fit a weighted sum of stored averages to another average.

Let $\theta_k$ be the weights after k updates, and $c(k)$ the total share of
$\theta_0, \dots, \theta_k$ in an average (see `profile`). The average $\bar\theta$ is approximated
by a sum $\sum_i x_i \bar\theta_i$ of stored averages with $\sum_i x_i = 1$. The error is

$$\sum_i x_i \bar\theta_i - \bar\theta = -\sum_{k \ge 0} r(k)\,(\theta_{k+1} - \theta_k), \qquad
  r(k) = \sum_i x_i c_i(k) - c(k).$$

If the updates of the weights are independent (a random walk), the expected squared error is
proportional to $\sum_k r(k)^2$, a sum over all updates of the run. The $x_i$ minimise this sum.
Karras et al. (2024, arXiv:2312.02696, section 3.2) leave $\sum_i x_i$ free and minimise
$\int (\sum_i x_i p_i - p)^2$ with the densities $p = c'$, which is best if the weights are a
constant plus independent noise. In two real runs with 8 to 64 snapshots the errors of that method
were 1 to 80 times as large as the errors of the method here.

Stored weights have a relative rounding error $\varepsilon$, which large $x_i$ of alternating signs
amplify. So the penalty $\rho^2 \sum_i x_i^2$ is added to the squared error, which also makes the
minimum unique. The norm of the weights is about ten times their distance from an average (8 to 40
times in measurements). Hence $\rho = 2 \varepsilon$, ten times the rms rounding error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.checks import check_finite, check_range, door
from scoresde.ema.profile import Profile
from scoresde.errors import InvalidValueError

__all__ = ["Fit", "fit"]

# The largest number of updates over which the sum runs exactly. A longer sum is approximated by a
# quadrature with about this many nodes.
_NODES = 4096


class Fit(NamedTuple):
    r"""Hold the weights of a sum of stored averages, and the expected error of the sum.

    Attributes:
        weights: $x_i$ of shape `(K,)`, float64; their sum is 1.
        error: The expected error of the sum, with the penalty for rounding. It is divided by the
            expected distance between the wanted average and the weights one update later. Both are
            for a random walk $\theta_k$. 0 is exact; at 1 the weights themselves are as good.
    """

    weights: Tensor
    error: float


@door
def fit(
    stored: Sequence[tuple[Profile, int]],
    target: Profile,
    at: int,
    *,
    epsilon: float = torch.finfo(torch.float32).eps,
) -> Fit:
    """Fit a sum of stored averages to the average with the profile `target` after `at` updates.

    Args:
        stored: The profile and the number of updates of each stored average.
        target: The wanted profile.
        at: The number of updates, from 1 to the largest number in `stored`.
        epsilon: The relative rounding error of the stored weights.

    Raises:
        InvalidTypeError: An argument has another type.
        InvalidValueError: `stored` is empty or has an average after 0 updates, or `at` or `epsilon`
            is out of range.
        NonFiniteError: A share of a profile is NaN or infinite.
    """
    if not stored:
        raise InvalidValueError("no average is stored to fit with; store at least one")
    if min(n for _, n in stored) < 1:
        raise InvalidValueError(
            "a stored average has no updates yet; store averages after the first update"
        )
    check_range("at", at, f"[1, {max(n for _, n in stored)}]")
    check_range("epsilon", epsilon, "[0, 1]")
    k, width = _updates([n for _, n in stored], at)
    wanted = target.share(k, at) * width.sqrt()
    length = wanted[k <= at].norm()
    shares = torch.stack([profile.share(k, n) for profile, n in stored], 1) * width.sqrt()[:, None]
    check_finite("a profile's share of the updates", shares)
    check_finite("the target's share of the updates", wanted)
    # one row for the rounding of each stored average
    rounding = 2 * epsilon * torch.eye(len(stored), dtype=torch.float64)
    a = torch.cat([shares / length, rounding])
    b = torch.cat([wanted / length, torch.zeros(len(stored), dtype=torch.float64)])
    # the sum of the weights is 1, so eliminate the last weight
    others = torch.linalg.lstsq(a[:, :-1] - a[:, -1:], (b - a[:, -1])[:, None]).solution[:, 0]
    x = torch.cat([others, 1 - others.sum(0, keepdim=True)])
    return Fit(x, float((a @ x - b).norm()))


def _updates(stored: Sequence[int], at: int) -> tuple[Tensor, Tensor]:
    """Return update numbers up to the last stored average, and their quadrature weights."""
    last = max(stored)
    if last < _NODES:
        k = torch.arange(last + 1)
    else:
        # the slope of a share jumps at the stored averages, and shares vary fastest just before
        # `at`
        kinks = torch.tensor(sorted({0, at, *stored}), dtype=torch.float64)
        between = torch.linspace(0, 1, max(8, _NODES // len(kinks)), dtype=torch.float64)
        even = torch.lerp(kinks[:-1, None], kinks[1:, None], between).flatten()
        near = at - torch.logspace(0, 1, _NODES // 8, base=at, dtype=torch.float64)
        after = torch.tensor([min(at + 1.0, last)])
        k = torch.unique(torch.cat([even, near, after]).round().long())
    gaps = torch.diff(k.double(), prepend=torch.tensor([-1.0]), append=k[-1:].double() + 1)
    return k, (gaps[:-1] + gaps[1:]) / 2

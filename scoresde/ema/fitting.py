r"""Which sum of stored averages comes nearest to another average.

With $c(k)$ the share of the weights up to $\theta_k$ in an average (see `profile`), the sum
$\sum_i x_i \bar\theta_i$ of stored averages with $\sum_i x_i = 1$ misses the wanted one by

$$\sum_i x_i \bar\theta_i - \bar\theta = -\sum_{k \ge 0} r(k)\,(\theta_{k+1} - \theta_k), \qquad
  r(k) = \sum_i x_i c_i(k) - c(k),$$

so for weights that walk at random, step by independent step, the expected squared miss is
$\sum_k r(k)^2$, and that is what is minimised, exactly over the updates that were made.
Karras et al. (2024, arXiv:2312.02696, section 3.2) minimise $\int (\sum_i x_i p_i - p)^2$ over the
densities $p = c'$ instead, which suits weights that do not move at all but for noise, and leave
$\sum_i x_i$ free; in two real runs, with 8 to 64 snapshots, it missed by 1 to 80 times as much.

Stored weights are rounded, by $\varepsilon$ relative to their size, and large $x_i$ of alternating
sign amplify that. So $\rho^2 \sum_i x_i^2$ is added to the mean square, which also makes its
minimum unique; weights are about ten times as long as the distance of an average from them (it was
8 to 40 times where it was measured), hence $\rho = 2 \varepsilon$: ten times the rms of a rounding.
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

# So many updates are looked at one by one; of more, so many that the rest follows from them.
_NODES = 4096


class Fit(NamedTuple):
    r"""A sum of stored averages.

    Attributes:
        weights: $x_i$ of shape `(K,)`, float64; their sum is 1.
        error: The expected miss, in units of the distance of the wanted average from the weights
            that it follows, of weights that walk at random; 0 is exact, and 1 is useless.
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
    """The sum of stored averages that comes nearest to the average `target` after `at` updates.

    Args:
        stored: Profile and number of updates of each stored average.
        target: The wanted profile.
        at: After how many updates, at least 1 and at most those of the last stored average.
        epsilon: The relative precision of the stored weights.

    Raises:
        InvalidTypeError: `target` is no profile.
        InvalidValueError: Nothing is stored, or something before its first update, or `at` is
            below 1 or beyond all that is stored, or `epsilon` is outside [0, 1].
        NonFiniteError: A profile has a share that is NaN or infinite.
    """
    if not stored:
        raise InvalidValueError("nothing is stored from which an average could be made")
    if min(n for _, n in stored) < 1:
        raise InvalidValueError("an average without an update, or less, has nothing to give")
    check_range("at", at, f"[1, {max(n for _, n in stored)}]")
    check_range("epsilon", epsilon, "[0, 1]")
    k, width = _updates([n for _, n in stored], at)
    wanted = target.share(k, at) * width.sqrt()
    length = wanted[k <= at].norm()
    shares = torch.stack([profile.share(k, n) for profile, n in stored], 1) * width.sqrt()[:, None]
    check_finite("a profile's share of the updates", shares)
    check_finite("the target's share of the updates", wanted)
    # a column of the identity for each stored average stands for the rounding of its weights
    rounding = 2 * epsilon * torch.eye(len(stored), dtype=torch.float64)
    a = torch.cat([shares / length, rounding])
    b = torch.cat([wanted / length, torch.zeros(len(stored), dtype=torch.float64)])
    # the sum is 1: the last weight is what the others leave
    others = torch.linalg.lstsq(a[:, :-1] - a[:, -1:], (b - a[:, -1])[:, None]).solution[:, 0]
    x = torch.cat([others, 1 - others.sum(0, keepdim=True)])
    return Fit(x, float((a @ x - b).norm()))


def _updates(stored: Sequence[int], at: int) -> tuple[Tensor, Tensor]:
    """Numbers of updates, up to the last one stored, and for how many each of them stands."""
    last = max(stored)
    if last < _NODES:
        k = torch.arange(last + 1)
    else:
        # shares have kinks where an average was stored, and bend most at `at` and just before it
        kinks = torch.tensor(sorted({0, at, *stored}), dtype=torch.float64)
        between = torch.linspace(0, 1, max(8, _NODES // len(kinks)), dtype=torch.float64)
        even = torch.lerp(kinks[:-1, None], kinks[1:, None], between).flatten()
        near = at - torch.logspace(0, 1, _NODES // 8, base=at, dtype=torch.float64)
        after = torch.tensor([min(at + 1.0, last)])
        k = torch.unique(torch.cat([even, near, after]).round().long())
    gaps = torch.diff(k.double(), prepend=torch.tensor([-1.0]), append=k[-1:].double() + 1)
    return k, (gaps[:-1] + gaps[1:]) / 2

r"""Solve the probability flow by Adams-Bashforth methods, with one evaluation for each step.

With the slopes $\epsilon_j$ of $dy / d\tilde\sigma = \epsilon$ at the last $k$ times of the grid,

$$ y_{i+1} = y_i + \sum_{j=0}^{k-1} w_{ij}\,\epsilon_{i-j}, $$

which has order $k$ when there are $k$ slopes. The first $k - 1$ steps use the slopes that exist;
the first step is that of `DDIM()`. The error of the first step is proportional to the square of its
length. If the noise at T is only a few times the data, this error dominates the other errors of a
run with many steps, and the order falls to 2. The weights depend only on the grid, and are computed
before the first step.
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import check_range
from scoresde.quadrature import lagrange_integrals
from scoresde.samplers.flow.euler import flow_step, predicted_noise
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import SDE, Moments, ReverseSDE, expand
from scoresde.sde.spacings import even_times, usual_times

__all__ = ["IPNDM", "LMS"]

# With this number of steps or more, an even grid had the smallest errors on the arena's tuning
# problems.
_EVEN_FROM = 15


@dataclass(frozen=True)
class _Adams(Sampler):
    """Solve the probability flow by a linear multistep method; a subclass gives the weights."""

    steps: ClassVar[int] = 50
    stochastic = False
    order: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("order", self.order, "[1, 8]")

    @abc.abstractmethod
    def weights(self, ratios: Tensor) -> Tensor:
        r"""Return the weights $w_{ij}$, `(N, order)`, for ratios $\tilde\sigma_i$, `(N + 1,)`.

        Slopes before the start of the run have the weight 0.
        """

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Take the step of `DDIM()`, since a single step has no earlier slopes."""
        return flow_step(rsde.sde, x, t, s, predicted_noise(rsde, x, t))

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states at `times[1:]`."""
        alpha = rsde.sde.alpha(times)
        scales = alpha[1:] / alpha[:-1]
        weights = alpha[1:, None] * self.weights(rsde.sde.sigma(times) / alpha)
        slopes: deque[Tensor] = deque(maxlen=self.order)
        for (t, s), scale, row in zip(pairwise(times), scales, weights, strict=True):
            slopes.appendleft(predicted_noise(rsde, x, t))
            x = expand(scale, x) * x
            for weight, slope in zip(row, slopes, strict=False):
                x = x + expand(weight, x) * slope
            yield State.of(rsde, s, x)


@dataclass(frozen=True)
class LMS(_Adams):
    r"""Solve the probability flow by integrating the polynomial through the last slopes.

    $$ w_{ij} = \int_{\tilde\sigma_i}^{\tilde\sigma_{i+1}}
       \prod_{l \ne j} \frac{u - \tilde\sigma_{i-l}}{\tilde\sigma_{i-j} - \tilde\sigma_{i-l}}\,du $$

    This is the method of Adams & Bashforth (1883) with variable steps, for the probability flow of
    Karras et al. (2022), arXiv:2206.00364.

    Args:
        order: The number of slopes, from 1 (which is `DDIM()`) to 8; 4 is the usual choice.
    """

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return a grid even in log-SNR for 15 or more steps, else the default grid of the SDE."""
        return usual_times(sde, steps, even_from=_EVEN_FROM)

    def weights(self, ratios: Tensor) -> Tensor:
        """Return the integrals of the Lagrange polynomials."""
        return adams_bashforth(ratios, self.order)


@dataclass(frozen=True)
class IPNDM(_Adams):
    r"""Solve the probability flow by Adams-Bashforth, with weights for equal steps on every grid.

    $$ y_{i+1} = y_i + \frac{\tilde\sigma_{i+1} - \tilde\sigma_i}{24}
       (55\,\epsilon_i - 59\,\epsilon_{i-1} + 37\,\epsilon_{i-2} - 9\,\epsilon_{i-3}) $$

    The first three steps have lower orders. The method has its full order if the steps in
    $\tilde\sigma$ are equal, and order 2 otherwise. Liu et al. (2022), arXiv:2202.09778, with the
    first steps of Zhang & Chen (2023), arXiv:2204.13902.

    Args:
        order: The number of slopes, from 1 (which is `DDIM()`) to 8; the paper uses 4.
    """

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return a grid even in log-SNR, `(steps + 1,)`; on a ladder the levels nearest to it."""
        return even_times(sde, steps)

    def weights(self, ratios: Tensor) -> Tensor:
        """Return the weights for equal steps, multiplied by the length of each step."""
        equal = torch.arange(len(ratios), dtype=ratios.dtype)
        return ratios.diff()[:, None] * adams_bashforth(equal, self.order)


def adams_bashforth(nodes: Tensor, order: int) -> Tensor:
    """Return the weights of the last slopes for the step from each node to the next.

    Args:
        nodes: The points at which the slopes are evaluated, `(N + 1,)`, all different. The last
            node is the end of the run.
        order: The largest number of slopes to use.

    Returns:
        The weights `(N, order)`, the newest slope first, with 0 for slopes before the start.
    """
    steps = len(nodes) - 1
    weights = nodes.new_zeros(steps, order)
    for known in range(1, min(order, steps) + 1):
        past = nodes[:-1].unfold(0, known, 1).flip(1)
        weights[known - 1 :, :known] = lagrange_integrals(
            past, nodes[known - 1 : -1], nodes[known:]
        )
    return weights

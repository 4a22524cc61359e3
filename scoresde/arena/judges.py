r"""How far from right samples are: one by one, against the exact flow map, or by their law.

A deterministic sampler approximates the flow map, and is judged by the distance to it,

$$ \frac{1}{s} \Big( \frac{1}{n D} \sum_i \| \hat x_i - D(x_{\epsilon, i}) \|^2 \Big)^{1/2} $$

with $x_\epsilon$ the exact image of the same $x_T$, Tweedie's estimate D at its end, and s the
scale of the data. A stochastic sampler can only be judged by the law of its samples.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.metrics import energy_distance, sliced_wasserstein, total_variation

if TYPE_CHECKING:
    from scoresde.arena.problem import Problem

__all__ = ["LAW", "flow_errors", "law_errors"]

LAW = ("energy", "sliced", "modes", "spread", "mean", "cov")
r"""What a law is judged by, each 0 for the exact law but for the noise of finitely many samples.

- `energy`: the energy distance, over the data's scale;
- `sliced`: the squared sliced Wasserstein distance, over the square of the scale;
- `modes`: the total variation between the shares of the components;
- `spread`: how far the spread about the component means is from the exact one, as the absolute
  logarithm of the ratio of the root mean squares;
- `mean`, `cov`: the errors of the mean, over the scale, and of the covariance, relative in the
  Frobenius norm.

The first two are without bias and may be negative; the others are positive even for exact samples,
as their noise floor shows.
"""

_POOL = 2**14


def flow_errors(problem: Problem, samples: Tensor, n: int, seed: int) -> Tensor:
    """Mean squared errors `(n,)` of samples that began at `problem.start(n, seed)`, over s²."""
    gap = (samples.double() - _exact_ends(problem, n, seed)).reshape(n, -1)
    return gap.square().mean(1) / problem.scale**2


def law_errors(problem: Problem, samples: Tensor, seed: int) -> dict[str, float]:
    """The errors of `LAW` for samples `(n, *)`, against exact ones of the given seed."""
    assert problem.target is not None
    samples, scale = samples.double(), problem.scale
    exact = _exact(problem, len(samples), seed)
    shares, spread, cov = _facts(problem)
    mean, own_cov = samples.flatten(1).mean(0), samples.flatten(1).T.cov().reshape(cov.shape)
    own_shares, own_spread = _modes(problem, samples)
    data_mean = torch.as_tensor(problem.moments.mean, dtype=torch.float64).flatten()
    generator = torch.Generator().manual_seed(seed)
    return {
        "energy": energy_distance(samples, exact) / scale,
        "sliced": sliced_wasserstein(samples, exact, generator=generator) / scale**2,
        "modes": total_variation(own_shares, shares),
        "spread": abs(float((own_spread / spread).log())),
        "mean": float((mean - data_mean).square().mean().sqrt()) / scale,
        "cov": float((own_cov - cov).norm() / cov.norm()),
    }


@lru_cache(maxsize=32)
def _exact_ends(problem: Problem, n: int, seed: int) -> Tensor:
    return problem.finish(problem.flow(problem, problem.start(n, seed))).double()


@lru_cache(maxsize=64)
def _exact(problem: Problem, n: int, seed: int) -> Tensor:
    return problem.exact(n, seed)


@lru_cache(maxsize=32)
def _facts(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of the modes, spread about their means, and covariance, from many exact samples."""
    pool = problem.exact(_POOL, 0, part=2)
    d = pool[0].numel()
    return *_modes(problem, pool), pool.flatten(1).T.cov().reshape(d, d)


def _modes(problem: Problem, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Counts `(K,)` of the components, and the root mean square distance to their means."""
    target = problem.target
    assert target is not None
    k = target.assign(samples)
    gap = (samples - target.means[k]).square().flatten(1).sum(1).mean().sqrt()
    return k.bincount(minlength=len(target.weights)), gap

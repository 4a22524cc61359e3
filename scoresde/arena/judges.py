r"""Measure the errors of samples, against the flow map or against the exact distribution.

A deterministic sampler approximates the flow map, and its error is the distance

$$ \frac{1}{s} \Big( \frac{1}{n d} \sum_i \| \hat x_i - D(x_{\epsilon, i}) \|^2 \Big)^{1/2}. $$

Here $\hat x_i$ are the n samples of d dimensions. The exact flow from the same $x_T$ ends at
$x_{\epsilon, i}$, D is Tweedie's estimate, and s is the scale of the data.

For a stochastic sampler only the distribution of its samples can be compared with the exact
distribution. The errors are computed for all samples and for random halves of the samples. The
spread over the halves gives the intervals (`scoresde.metrics.resampling`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from scoresde.metrics import Estimate, Kernel, Sliced, halves
from scoresde.metrics.resampling import estimate

if TYPE_CHECKING:
    from scoresde.arena.problem import Problem

__all__ = ["LAW", "flow_errors", "law_errors", "law_interval"]

LAW = ("energy", "sliced", "modes", "spread", "mean", "cov")
r"""The errors of the distribution of samples, which are near 0 for very many exact samples.

- `energy`: the energy distance, divided by the data's scale;
- `sliced`: the squared sliced Wasserstein distance, divided by the square of the scale;
- `modes`: the total variation between the shares of the mixture's components among the samples and
  among exact samples;
- `spread`: the root mean square distance of a sample from the mean of its component, divided by
  that of exact samples; the error is the absolute value of the logarithm of this ratio;
- `mean`: the root mean square difference of the means over dimensions, divided by the scale;
- `cov`: the relative error of the covariance in the Frobenius norm.

The first two are unbiased and may be negative. The others are positive even for exact samples,
since these are finitely many; the noise floor is the error of equally many exact samples.
"""

# The number of exact samples from which the exact shares, spread and covariance are computed.
_POOL = 2**14


def flow_errors(problem: Problem, samples: Tensor, n: int, seed: int) -> Tensor:
    """Return the squared errors over s², `(n,)`, of the samples from `problem.start(n, seed)`."""
    gap = (samples.double() - _exact_ends(problem, n, seed)).reshape(n, -1)
    return gap.square().mean(1) / problem.scale**2


def law_errors(
    problem: Problem, samples: Tensor, seed: int, resamples: int = 0
) -> dict[str, Tensor]:
    """Return the errors of `LAW` for samples, compared with exact samples.

    Args:
        problem: The problem.
        samples: The samples `(n, *)`, n at least 2, or 4 for halves.
        seed: The seed of the exact samples, the directions and the halves.
        resamples: The number of random halves that are measured too, 0 or at least 2.

    Returns:
        For each measure the error of all samples, then the errors of the halves,
        `(1 + resamples,)`.
    """
    samples, scale, n = samples.double().flatten(1), problem.scale, len(samples)
    exact = _exact(problem, n, seed).flatten(1)
    rows, others = (halves(n, resamples, seed=seed, stream=i) for i in (0, 1))
    energy = Kernel("distance")(samples, exact, rows, others)["energy"]
    sliced = Sliced(seed=seed)(samples, exact, rows, others)["sliced"]
    shares, spread, cov = _facts(problem)
    kind, gap = _modes(problem, samples)
    mean = torch.as_tensor(problem.moments.mean, dtype=torch.float64).flatten()
    chosen = [samples[i] for i in rows]
    weights = rows.double() / rows.sum(1, keepdim=True)
    return {
        "energy": energy / scale,
        "sliced": sliced / scale**2,
        "modes": (weights @ kind - shares).abs().sum(1) / 2,
        "spread": ((weights @ gap) / spread).log().abs() / 2,
        "mean": torch.stack([(x.mean(0) - mean).square().mean().sqrt() for x in chosen]) / scale,
        "cov": torch.stack([(_cov(x) - cov).norm() for x in chosen]) / cov.norm(),
    }


def law_interval(metric: str, runs: Sequence[Tensor], n: int) -> Estimate:
    r"""Return the mean error of R runs, with an interval from the halves of all runs.

    The standard deviation of the mean is the standard deviation of one run divided by $\sqrt R$.

    Args:
        metric: One of `LAW`.
        runs: The errors of each run in this metric, from `law_errors`.
        n: The number of samples of each run.
    """
    found = torch.stack([*runs])
    if not found.isfinite().all():
        return Estimate(*[math.inf] * 3)
    value, parts = found[:, :1].mean(0), found[:, 1:]
    gaps = (parts - parts.mean(1, keepdim=True)).flatten() / math.sqrt(len(found))
    values, square = torch.cat([value, value + gaps]), metric in ("energy", "sliced")
    return estimate(values, limits=(0, math.inf), square=square, samples=n)


@lru_cache(maxsize=32)
def _exact_ends(problem: Problem, n: int, seed: int) -> Tensor:
    return problem.finish(problem.flow(problem, problem.start(n, seed))).double()


@lru_cache(maxsize=64)
def _exact(problem: Problem, n: int, seed: int) -> Tensor:
    return problem.exact(n, seed)


@lru_cache(maxsize=32)
def _facts(problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """Return the shares of the modes, squared spread about them and covariance of exact samples."""
    pool = problem.exact(_POOL, 0, part=2).flatten(1)
    kind, gap = _modes(problem, pool)
    return kind.mean(0), gap.mean(), _cov(pool)


def _modes(problem: Problem, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the component of each sample, one-hot `(n, K)`, and the squared distance to it."""
    target = problem.target
    assert target is not None
    k = target.assign(samples.reshape(len(samples), *problem.shape))
    gap = (samples - target.means[k].flatten(1)).square().sum(1)
    return one_hot(k, len(target.weights)).double(), gap


def _cov(x: Tensor) -> Tensor:
    return x.T.cov().reshape(x.shape[1], x.shape[1])

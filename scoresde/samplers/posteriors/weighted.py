"""Move, weight and resample the particles of a batch of samples, and draw their noise.

Tensors of particles are `(B, k, *event)`; a score receives them as `(B k, *event)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.samplers.sampler import NoiseLike, Sampler
from scoresde.sde import ReverseSDE

__all__ = ["Kernel", "Move", "ParticleNoise", "Weights"]


@dataclass(frozen=True)
class ParticleNoise:
    """Draw the noise of each sample's k particles from the noise of the sample.

    Args:
        noise: The noise of the samples.
        k: The number of particles of a sample.
    """

    noise: NoiseLike
    k: int

    def normal(self, like: Tensor, t: Tensor | float, k: int = 0) -> Tensor:
        """Return the k-th draw of N(0, I) at time t, of the shape of `like`."""
        return self.noise.normal(self._folded(like), t, k).reshape(like.shape)

    def increment(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        """Return the increment over [s, t] of each particle's Brownian path."""
        return self.noise.increment(self._folded(like), s, t).reshape(like.shape)

    def increments(self, like: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Return the increment of each particle's Brownian path over its own interval."""
        folded, low, high = self._folded(like), s.reshape(-1, self.k), t.reshape(-1, self.k)
        found = [self.noise.increments(folded, low[:, j], high[:, j])[:, j] for j in range(self.k)]
        return torch.stack(found, 1).reshape(like.shape)

    def area(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        """Return the space-time area over [s, t] of each particle's Brownian path."""
        return self.noise.area(self._folded(like), s, t).reshape(like.shape)

    def fork(self, k: int) -> ParticleNoise:
        """Return independent noise for the same particles."""
        return ParticleNoise(self.noise.fork(k), self.k)

    def _folded(self, like: Tensor) -> Tensor:
        return like.reshape(-1, self.k, *like.shape[1:])


@dataclass(frozen=True)
class _Constant:
    """Return the same number for every draw, to find by what factor a step multiplies noise."""

    value: float

    def normal(self, like: Tensor, t: Tensor | float, k: int = 0) -> Tensor:
        return torch.full_like(like, self.value)

    def increment(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        return torch.full_like(like, self.value)

    area = increments = increment

    def fork(self, k: int) -> _Constant:
        return self


class Move(NamedTuple):
    r"""Hold the result of one step of the particles.

    Attributes:
        x: The new states.
        log_ratio: $\log p(x_s | x_t) - \log q(x_s | x_t)$, `(B k,)`.
    """

    x: Tensor
    log_ratio: Tensor


@dataclass(frozen=True)
class Kernel:
    """Take the steps of a sampler that uses one evaluation and one Gaussian draw for each step.

    Args:
        sampler: The sampler.
        rsde: The reverse SDE of the posterior, for all particles.
    """

    sampler: Sampler
    rsde: ReverseSDE

    def twisted(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scores of prior and posterior, and the log-likelihood, from one evaluation."""
        method = self.rsde.method("twisted")
        assert method is not None
        prior, guided, log_likelihood = method(x, t)
        return prior, guided, log_likelihood

    def constant(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the term that the log-likelihood at time `t` omits, `(B k,)`."""
        found: Tensor = self.rsde.attribute("log_constant")(x, t, self.rsde.condition)  # type: ignore[misc]
        return found

    def move(
        self,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        scores: tuple[Tensor, Tensor],
        noise: NoiseLike,
        kept: Tensor | None,
    ) -> Move:
        """Move all particles by one step with the score of the posterior.

        Args:
            x: Particles `(B k, *event)`.
            t: Their time.
            s: The time to go to.
            scores: The scores of prior and posterior.
            noise: The source of randomness.
            kept: If it is given, the next state `(B, *event)` of each sample's first particle.
        """
        mean, std = self.mean(x, t, s, scores[0])
        proposed = self._step(scores[1], x, t, s, _Constant(0.0))
        to = self._step(scores[1], x, t, s, noise)
        if kept is not None:
            to = to.reshape(len(kept), -1, *x.shape[1:])
            to = torch.cat([kept[:, None], to[:, 1:]], 1).reshape(x.shape)
        # the product of two scales may overflow in single precision
        gap = ((mean - proposed) / std).double() * ((2 * to - mean - proposed) / std).double()
        return Move(to, gap.reshape(len(x), -1).sum(1) / 2)

    def mean(self, x: Tensor, t: Tensor, s: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of the step with the score of the prior."""
        mean = self._step(prior, x, t, s, _Constant(0.0))
        return mean, self._step(prior[:1], x[:1], t, s, _Constant(1.0)) - mean[:1]

    def _step(self, score: Tensor, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return the result of the sampler's step if the score has this value."""
        rsde = self.rsde.sde.reverse(lambda x, t: score, moments=self.rsde.moments)
        return self.sampler.step(rsde, x, t, s, noise)


class Weights:
    """Hold the weights of the particles, and the estimate of the evidence.

    Args:
        like: States `(B, *event)`.
        k: The number of particles of each sample.
    """

    def __init__(self, like: Tensor, k: int) -> None:
        self.k = k
        self.logs = like.new_zeros(len(like), k, dtype=torch.float64)
        self.evidence = self.logs[:, 0].clone()
        self.ess = torch.full_like(self.evidence, float(k))
        # for each particle the number of its ancestor at the first time; the number of resamplings
        self.first = torch.arange(k, device=like.device).expand(len(like), k)
        self.draws = self.evidence.clone()

    def add(self, logs: Tensor) -> None:
        """Multiply the weights by factors, given as logarithms `(B k,)`."""
        self.logs = self.logs + logs.double().reshape(self.logs.shape)

    def size(self) -> Tensor:
        """Return the effective sample size of each sample, `(B,)`."""
        found = 1 / self.logs.softmax(1).square().sum(1)
        self.ess = torch.minimum(self.ess, found)
        return found

    def settle(self, rows: Tensor, parents: Tensor) -> None:
        """Multiply the evidence of some samples by their mean weight, and resample their particles.

        Args:
            rows: The mask of these samples, `(B,)`.
            parents: The number of each new particle's parent, `(B, k)`.
        """
        mean = self.logs.logsumexp(1) - math.log(self.k)
        self.evidence = torch.where(rows, self.evidence + mean, self.evidence)
        self.logs = torch.where(rows[:, None], 0.0, self.logs)
        self.first = self.first.gather(1, parents)
        self.draws = self.draws + rows

    def end(self) -> tuple[Tensor, Tensor]:
        r"""Return the logarithm of the mean weight, and its standard deviation, `(B,)`.

        The standard deviation is estimated from the total weight of the descendants of each
        particle at the first time (Lee & Whiteley 2018, eq. 7, doi:10.1093/biomet/asy028).
        """
        shares = torch.zeros_like(self.logs).scatter_add(1, self.first, self.logs.softmax(1))
        apart = 1 - shares.square().sum(1)
        variance = 1 - (self.k / (self.k - 1)) ** (self.draws + 1) * apart
        mean = self.logs.logsumexp(1) - math.log(self.k)
        return self.evidence + mean, variance.clamp(min=0).sqrt()

    def parents(self, noise: NoiseLike, t: Tensor) -> Tensor:
        """Return the numbers of k particles drawn by systematic resampling, `(B, k)`."""
        u = _uniform(noise, self.logs[:, :1], t)
        places = (torch.arange(self.k, dtype=torch.float64, device=u.device) + u) / self.k
        return self._at(places)

    def drawn(self, noise: NoiseLike, t: Tensor, count: int) -> Tensor:
        """Return the numbers of `count` particles of each sample, drawn independently by weight."""
        return self._at(_uniform(noise, self.logs[:, :1].expand(-1, count), t))

    def _at(self, places: Tensor) -> Tensor:
        sums = self.logs.softmax(1).cumsum(1)
        found: Tensor = torch.searchsorted(sums / sums[:, -1:], places.contiguous())
        return found.clamp(max=self.k - 1)


def _uniform(noise: NoiseLike, like: Tensor, t: Tensor) -> Tensor:
    """Return uniform numbers of the shape of `like`, made from normal ones."""
    found: Tensor = torch.special.ndtr(noise.normal(like.contiguous(), t))
    return found

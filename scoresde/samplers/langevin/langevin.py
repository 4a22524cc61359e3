r"""Langevin dynamics: correctors, which leave $p_s$ alone.

$$ x \leftarrow x + \epsilon \nabla\log p_s(x) + \sqrt{2 \epsilon}\, z $$

For a Gaussian of variance $V$ its stationary variance is $V / (1 - \epsilon / 2V)$: the step should
be small against the variance, so it is scaled with that of the noise.
"""

from __future__ import annotations

import abc
import math
import warnings
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from scoresde.checks import check_range, outside
from scoresde.samplers.sampler import NoiseLike, Sampler
from scoresde.sde import SDE, ReverseSDE, expand

__all__ = ["Corrector", "FixedLangevin", "Langevin", "ScaledLangevin", "carry", "correct"]


class Corrector(Sampler):
    """A Markov kernel at one time: `step(rsde, x, t, s, noise)` reads `s` only."""

    order = None
    invariant = True

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """One move that leaves p_s alone."""
        z = noise.normal(x, s)
        score = rsde.score(x, s)
        epsilon = self.step_size(rsde.sde, s, score, z)
        return x + epsilon * score + (2 * epsilon).sqrt() * z

    @abc.abstractmethod
    def step_size(self, sde: SDE, s: Tensor, score: Tensor, z: Tensor) -> Tensor:
        r"""Return the step $\epsilon$, broadcastable to the state."""


@dataclass(frozen=True)
class FixedLangevin(Corrector):
    r"""The unadjusted Langevin algorithm with one step for all times.

    Args:
        epsilon: The step, positive; below 2V for a target of variance V.
    """

    epsilon: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("epsilon", self.epsilon, "(0, inf)")

    def step_size(self, sde: SDE, s: Tensor, score: Tensor, z: Tensor) -> Tensor:
        """Return the given step."""
        return score.new_tensor(self.epsilon)


@dataclass(frozen=True)
class Langevin(Corrector):
    r"""Langevin corrector whose step is set by a signal-to-noise ratio $r$.

    Song et al. (2021), algorithm 4, arXiv:2011.13456, take
    $\epsilon = 2 (r \|z\| / \|s\|)^2$ with norms averaged over the batch: a sample then depends
    on its neighbours, and under VP a further factor $\alpha_t^2$ (algorithm 5), which is left out
    here. The default is that rule in expectation,

    $$ \epsilon = 2 r^2 \sigma_t^2, $$

    which is per sample and affine in the state; one step changes the variance by at most $4 r^4$
    of itself.

    Args:
        snr: $r$, positive.
        norm: `"expected"` as above; `"batch_mean"` is the paper's rule; `"sample"` uses each
            sample's own norms, which does not keep $p_s$ in few dimensions. The last two warn
            below 64 dimensions.
    """

    snr: float = 0.16
    norm: Literal["expected", "batch_mean", "sample"] = "expected"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("snr", self.snr, "(0, inf)")

    @property
    def coupled(self) -> bool:
        """Return whether the step size is that of the whole batch."""
        return self.norm == "batch_mean"

    def step_size(self, sde: SDE, s: Tensor, score: Tensor, z: Tensor) -> Tensor:
        r"""Return $2 r^2 \sigma_s^2$, or the paper's estimate of it from norms."""
        sigma = expand(sde.sigma(s), score)
        if self.norm == "expected":
            return 2 * (self.snr * sigma) ** 2
        if (dimensions := score.shape[1:].numel()) < 64:
            warnings.warn(
                f"norm={self.norm!r} is far from Langevin dynamics in {dimensions} "
                "dimensions; use norm='expected'",
                stacklevel=outside(),
            )
        noise_norm, score_norm = (v.reshape(len(v), dimensions).norm(dim=1) for v in (z, score))
        if self.norm == "batch_mean":
            noise_norm, score_norm = noise_norm.mean(), score_norm.mean()
        # where the score vanishes the rule would step without bound: at most 10 times the expected
        ratio = (noise_norm / score_norm).nan_to_num(math.inf)
        limit = math.sqrt(10) * sigma
        return 2 * (self.snr * expand(ratio, score).clamp(max=limit)) ** 2


@dataclass(frozen=True)
class ScaledLangevin(Corrector):
    r"""Langevin corrector with a step in the noise's units: $\epsilon = \kappa\,\sigma_s^2$.

    `Langevin(snr=r)` is $\kappa = 2 r^2$.

    Args:
        kappa: $\kappa$, in (0, 2).
    """

    kappa: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("kappa", self.kappa, "(0, 2)")

    def step_size(self, sde: SDE, s: Tensor, score: Tensor, z: Tensor) -> Tensor:
        r"""Return $\kappa\,\sigma_s^2$."""
        return self.kappa * expand(sde.sigma(s) ** 2, score)


def correct(
    corrector: Sampler, k: int, rsde: ReverseSDE, x: Tensor, s: Tensor, noise: NoiseLike
) -> Tensor:
    """Make `k` steps of a corrector at time `s`, each with noise of its own."""
    for j in range(k):
        x = corrector.step(rsde, x, s, s, noise.fork(1 + j))
    return x


def carry(sde: SDE, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    r"""Return $(\alpha_s / \alpha_t)\,x$: what is known of the way from t to s without a score."""
    return expand(sde.alpha(s) / sde.alpha(t), x) * x

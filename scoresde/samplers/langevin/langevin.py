r"""Define Langevin correctors, which leave $p_s$ unchanged up to their discretisation error.

$$ x \leftarrow x + \epsilon \nabla\log p_s(x) + \sqrt{2 \epsilon}\, z $$

For a Gaussian of variance $V$ the stationary variance is $V / (1 - \epsilon / 2V)$. So the step
size $\epsilon$ should be small compared with the variance; it is a multiple of the variance of the
noise.
"""

from __future__ import annotations

import abc
import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from scoresde.checks import check_range, outside
from scoresde.samplers.sampler import NoiseLike, Sampler
from scoresde.sde import SDE, ReverseSDE, expand

__all__ = ["Corrector", "FixedLangevin", "Langevin", "ScaledLangevin", "correct", "scale_signal"]


class Corrector(Sampler):
    """Define a corrector: a move of samples of p_s that leaves p_s unchanged; `step` ignores t."""

    order = None
    invariant = True

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        r"""Return $x + \epsilon \nabla\log p_s(x) + \sqrt{2 \epsilon}\, z$."""
        z = noise.normal(x, s)
        score = rsde.score(x, s)
        epsilon = self.step_size(rsde.sde, s, score, z)
        return torch.addcmul(x, epsilon, score).addcmul_((2 * epsilon).sqrt(), z)

    @abc.abstractmethod
    def step_size(self, sde: SDE, s: Tensor, score: Tensor, z: Tensor) -> Tensor:
        r"""Return the step size $\epsilon$, which broadcasts to the state."""


@dataclass(frozen=True)
class FixedLangevin(Corrector):
    r"""Correct by the unadjusted Langevin algorithm with one step size for all times.

    Args:
        epsilon: The step size, positive; stable if below 2V for a target of variance V.
    """

    epsilon: float

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("epsilon", self.epsilon, "(0, inf)")

    def step_size(self, sde: SDE, s: Tensor, score: Tensor, z: Tensor) -> Tensor:
        r"""Return $\epsilon$."""
        return score.new_tensor(self.epsilon)


@dataclass(frozen=True)
class Langevin(Corrector):
    r"""Correct by Langevin steps whose size is set by a signal-to-noise ratio $r$.

    Song et al. (2021), algorithm 4, arXiv:2011.13456, take $\epsilon = 2 (r \|z\| / \|s\|)^2$ with
    norms averaged over the batch, so a sample depends on the rest of its batch. Under VP they also
    multiply $\epsilon$ by $\bar\alpha$ (algorithm 5; in their code by $1 - \beta_i$), which is
    omitted here. The default replaces both squared norms by their expectations,

    $$ \epsilon = 2 r^2 \sigma_t^2, $$

    so it does not depend on the batch, and the step is affine in the score. One step changes the
    variance by at most the fraction $4 r^4$.

    Args:
        snr: $r$, positive.
        norm: `"expected"` is the default above. `"batch_mean"` is the rule of the paper, except
            that the expected step size is used if the score of the whole batch is 0. `"sample"`
            uses the norms of each sample, and a step size of at most 10 times the expected one; in
            few dimensions it does not leave $p_s$ unchanged. `"batch_mean"` and `"sample"` give a
            warning below 64 dimensions.
    """

    snr: float = 0.16
    norm: Literal["expected", "batch_mean", "sample"] = "expected"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("snr", self.snr, "(0, inf)")

    @property
    def coupled(self) -> bool:
        """Return True if the step size depends on the whole batch."""
        return self.norm == "batch_mean"

    def step_size(self, sde: SDE, s: Tensor, score: Tensor, z: Tensor) -> Tensor:
        r"""Return $2 r^2 \sigma_s^2$, or the estimate from norms."""
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
            ratio = (noise_norm.mean() / score_norm.mean()).expand(len(score))
            ratio = expand(ratio, score)
            # if the score of the whole batch is 0, the ratio does not exist
            return 2 * (self.snr * torch.where(ratio.isfinite(), ratio, sigma)) ** 2
        # near a zero of the score the ratio is unbounded, so it is limited to 10 expected steps
        ratio = (noise_norm / score_norm).nan_to_num(math.inf)
        limit = math.sqrt(10) * sigma
        return 2 * (self.snr * expand(ratio, score).clamp(max=limit)) ** 2


@dataclass(frozen=True)
class ScaledLangevin(Corrector):
    r"""Correct by Langevin steps of size $\epsilon = \kappa\,\sigma_s^2$.

    `Langevin(snr=r)` is the case $\kappa = 2 r^2$.

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
    """Take `k` steps of a corrector at time `s`, each with independent noise."""
    for j in range(k):
        x = corrector.step(rsde, x, s, s, noise.fork(1 + j))
    return x


def scale_signal(sde: SDE, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    r"""Return $(\alpha_s / \alpha_t)\,x$, the state at t with the signal scale of s."""
    return expand(sde.alpha(s) / sde.alpha(t), x) * x

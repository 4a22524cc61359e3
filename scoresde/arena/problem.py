r"""What a sampler is judged on: a score, the SDE whose score it is, and the data's moments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.arena.reference import DOP853, FlowMap
from scoresde.errors import InvalidValueError
from scoresde.sde import SDE, Moments, ReverseSDE
from scoresde.targets import Target

__all__ = ["Problem"]


@dataclass(frozen=True, eq=False)
class Problem:
    r"""A score to sample from.

    `Problem.of(target, sde)` makes one of a target; a model or a user's own score is named by all
    of the first five fields.

    Args:
        name: what tables call it.
        score: a callable `(x, t) -> score`.
        sde: the SDE whose score it is.
        shape: the shape of one sample, without the batch.
        moments: the data's moments; the start is drawn from the prior that has them.
        target: the law itself, where it is known: then starts are drawn from the exact $p_T$, and
            samples can be judged by their law.
        flow: how the exact flow map is computed.
        dtype: in which the score is evaluated.
    """

    name: str
    score: Any
    sde: SDE
    shape: tuple[int, ...]
    moments: Moments
    target: Target | None = None
    flow: FlowMap = field(default_factory=DOP853)
    dtype: torch.dtype = torch.float64

    @classmethod
    def of(cls, target: Target, sde: SDE, name: str | None = None) -> Problem:
        """The problem of sampling from `target` under `sde`; both give the name without one."""
        name = name or f"{type(target).__name__}/{type(sde).__name__}"
        return cls(name, target.at(sde), sde, target.event_shape, target.moments(), target)

    @property
    def scale(self) -> float:
        """The root mean square of the data's standard deviations, the unit of every error."""
        if self.moments.cov is not None:
            return float(self.moments.cov.diagonal().mean().sqrt())
        return float(torch.as_tensor(self.moments.var, dtype=torch.float64).mean().sqrt())

    def reverse(self) -> ReverseSDE:
        """Return the reverse SDE, which counts evaluations."""
        return self.sde.reverse(self.score, moments=self.moments)

    def start(self, n: int, seed: int) -> Tensor:
        """Return `n` draws of $p_T$, `(n, *)`."""
        generator = generator_of(seed, 0)
        if self.target is not None:
            draws = self.target.sample(
                n, self.sde, self.sde.T, generator=generator, dtype=torch.float64
            )
        else:
            z = torch.randn(n, *self.shape, generator=generator, dtype=torch.float64)
            draws = self.sde.prior(self.moments).sample(z)
        return draws.to(self.dtype)

    @torch.no_grad()
    def finish(self, x: Tensor) -> Tensor:
        r"""Return $E[x_0 | x_\epsilon]$: with it every run ends, at the price of one evaluation."""
        return self.reverse().denoise(x, self.sde.eps)

    def exact(self, n: int, seed: int, part: int = 0) -> Tensor:
        r"""`n` draws of what a perfect sampler returns: Tweedie's estimate at exact $x_\epsilon$.

        Args:
            n: how many.
            seed: the randomness, which is not that of `start`.
            part: another number, other draws: independent sets of one seed.

        Raises:
            InvalidValueError: The problem has no target.
        """
        if self.target is None:
            raise InvalidValueError(
                f"the law of {self.name} is not known; judge it by='flow', or give a target"
            )
        generator = generator_of(seed, 1 + part)
        return self.finish(
            self.target.sample(n, self.sde, self.sde.eps, generator=generator, dtype=torch.float64)
        )

    def rho(self, t: Tensor | float) -> Tensor:
        r"""Return $\rho = \sigma_t / \alpha_t$, float64."""
        return torch.exp(-0.5 * self.sde.log_snr(torch.as_tensor(t, dtype=torch.float64)))

    @torch.no_grad()
    def denoise(self, y: Tensor, rho: Tensor | float) -> Tensor:
        r"""Return the denoiser of $y = x_t / \alpha_t$ at $\rho = \sigma_t / \alpha_t$.

        Every SDE is the variance-exploding one after this rescaling (Karras et al. 2022,
        arXiv:2206.00364, appendix B), whose denoiser is what most libraries sample with.

        Args:
            y: rescaled states, `(B, *)`.
            rho: the noise level, a number between those at `eps` and at `T`.
        """
        level = torch.as_tensor(rho, dtype=torch.float64)
        t = self.sde.time(-2 * level.log()).clamp(self.sde.eps, self.sde.T)
        x = (self.sde.alpha(t) * y).to(self.dtype)
        return self.reverse().denoise(x, t).to(y.dtype)


def generator_of(*key: int) -> torch.Generator:
    """A generator for each key; torch's own seeds keep 32 bits, in which sums of numbers meet."""
    (state,) = np.random.SeedSequence(key).generate_state(1)
    return torch.Generator().manual_seed(int(state))

r"""Define the problems on which samplers are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.arena.reference import FlowMap, usual_flow
from scoresde.checks import check_integer, door
from scoresde.errors import InvalidValueError
from scoresde.sde import SDE, Moments, ReverseSDE
from scoresde.targets import Target

__all__ = ["Problem"]


@dataclass(frozen=True, eq=False)
class Problem:
    r"""Define a score to sample from, and the exact result.

    `Problem.of(target, sde)` makes a problem from a target. For your own model or score pass the
    first five fields.

    Args:
        name: The name in tables.
        score: A callable `(x, t) -> score`.
        sde: The SDE whose score it is.
        shape: The shape of one sample, without the batch.
        moments: The data's moments; the start is drawn from the prior with these moments.
        target: The distribution of the data, if known. Starts are then drawn from the exact $p_T$,
            and the distribution of samples can be compared.
        flow: The method that computes the exact flow map. By default it is `RungeKutta4(250)`,
            1,000 evaluations, if the score has networks, since an adaptive method would take
            minutes for them; else it is `DOP853()`, which is more accurate.
        dtype: The dtype in which the score is evaluated.
    """

    name: str
    score: Any
    sde: SDE
    shape: tuple[int, ...]
    moments: Moments
    target: Target | None = None
    flow: FlowMap = usual_flow
    dtype: torch.dtype = torch.float64

    @classmethod
    @door
    def of(cls, target: Target, sde: SDE, name: str | None = None) -> Problem:
        """Return the problem of sampling from `target` under `sde`, by default named after both."""
        name = name or f"{type(target).__name__}/{type(sde).__name__}"
        return cls(name, target.at(sde), sde, target.event_shape, target.moments(), target)

    @property
    def scale(self) -> float:
        """Return the unit of errors, the root mean square of the data's standard deviations."""
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
        r"""Return $E[x_0 | x_\epsilon]$, the last step of every run, by one evaluation."""
        return self.reverse().denoise(x, self.sde.eps)

    def exact(self, n: int, seed: int, part: int = 0) -> Tensor:
        r"""Return `n` results of a perfect sampler: Tweedie's estimate at exact $x_\epsilon$.

        Args:
            n: The number of samples.
            seed: The seed; the draws are independent of the draws of `start`.
            part: The number of the set; sets with different numbers are independent.

        Raises:
            InvalidValueError: The problem has no target.
        """
        if self.target is None:
            raise InvalidValueError(
                f"the distribution of {self.name} is unknown; compare by='flow', or give a target"
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

        After this rescaling every SDE is variance exploding (Karras et al. 2022, arXiv:2206.00364,
        appendix B), as most libraries assume.

        Args:
            y: Rescaled states, `(B, *)`.
            rho: The noise level, between the noise levels at `eps` and at `T`.
        """
        log_rho = torch.as_tensor(rho, dtype=torch.float64).log()
        t = self.sde.time(-2 * log_rho).clamp(self.sde.eps, self.sde.T)
        x = (self.sde.alpha(t) * y).to(self.dtype)
        return self.reverse().denoise(x, t).to(y.dtype)


def generator_of(*key: int) -> torch.Generator:
    """Return a generator for a tuple of integers, by a hash, so that keys do not collide."""
    for part in key:
        check_integer("seed", part, 0)
    (state,) = np.random.SeedSequence(key).generate_state(1)
    return torch.Generator().manual_seed(int(state))


def rotation(d: int, generator: torch.Generator) -> Tensor:
    """Return a random orthogonal matrix `(d, d)`, float64."""
    z = torch.randn(d, d, generator=generator, dtype=torch.float64)
    q: Tensor = torch.linalg.qr(z)[0]
    return q

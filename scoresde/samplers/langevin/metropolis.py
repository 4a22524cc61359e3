r"""Define the Metropolis-adjusted Langevin corrector, which leaves a density exactly unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.checks import check_range
from scoresde.errors import InvalidTypeError
from scoresde.samplers.langevin.langevin import Corrector
from scoresde.samplers.sampler import NoiseLike
from scoresde.sde import SDE, ReverseSDE, expand

__all__ = ["MALA", "Local", "adjusted"]


class Local(NamedTuple):
    """Hold drift and log-density at some states, for a Metropolis-adjusted step.

    Attributes:
        score: The drift of the proposals, `(B, *)`: the score, or an approximation of it.
        log_density: The log-density up to a constant, `(B,)`.
    """

    score: Tensor
    log_density: Tensor


def adjusted(
    evaluate: Callable[[Tensor], Local],
    x: Tensor,
    here: Local,
    epsilon: Tensor,
    z: Tensor,
    u: Tensor,
) -> tuple[Tensor, Local, Tensor]:
    r"""Propose a Langevin step from each state, and accept or reject it.

    This leaves the distribution with the density that `evaluate` returns unchanged, for any step
    size and any drift.

    Args:
        evaluate: A function that maps states to drift and log-density.
        x: The states.
        here: The value of `evaluate` at `x`.
        epsilon: The step size.
        z: The standard normal noise of the proposals, `(B, *)`.
        u: Standard normal numbers that decide the acceptance, `(B,)`.

    Returns:
        The new states, the value of `evaluate` there, and a mask `(B,)` of the accepted steps.
    """
    proposal = x + epsilon * here.score + (2 * epsilon).sqrt() * z
    there = evaluate(proposal)
    back = (x - proposal - epsilon * there.score) / (2 * epsilon).sqrt()
    noises = (z**2 - back**2).reshape(len(x), x.shape[1:].numel()).sum(1)
    gain = there.log_density - here.log_density + noises / 2
    moves = torch.special.log_ndtr(u) < gain  # Phi(u) is uniform
    column = moves.reshape(-1, *(1,) * (x.ndim - 1))
    kept = Local(
        torch.where(column, there.score, here.score),
        torch.where(moves, there.log_density, here.log_density),
    )
    return torch.where(column, proposal, x), kept, moves


@dataclass(frozen=True)
class MALA(Corrector):
    r"""Correct by the Metropolis-adjusted Langevin algorithm: accept or reject Langevin steps.

    $$ x' = x + \epsilon\,s(x) + \sqrt{2\epsilon}\,z, \qquad
       z' = \frac{x - x' - \epsilon\,s(x')}{\sqrt{2\epsilon}}, $$

    $$ \log\frac{p(x')\,q(x \mid x')}{p(x)\,q(x' \mid x)}
       = \log\frac{p(x')}{p(x)} + \frac{\|z\|^2 - \|z'\|^2}{2} $$

    where $s$ is the score of $p = p_s$, and $z'$ the noise of the reverse move. With the
    probability min(1, ratio) a sample moves to $x'$; otherwise it stays at $x$. So $p$ is unchanged
    for any step size $\epsilon = \kappa\,\sigma_s^2$, but too large steps are nearly always
    rejected. The score must be the exact gradient of its method `log_prob(x, t)`. Roberts & Tweedie
    (1996), Bernoulli 2(4); Hastings (1970), Biometrika 57(1).

    A step costs four evaluations: score and density at $x$ and at $x'$.

    Args:
        kappa: $\kappa$, positive and finite.
    """

    nfe_per_step = 4
    kappa: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("kappa", self.kappa, "(0, inf)")

    def step_size(self, sde: SDE, s: Tensor, score: Tensor, z: Tensor) -> Tensor:
        r"""Return $\kappa\,\sigma_s^2$."""
        return self.kappa * expand(sde.sigma(s) ** 2, score)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return the proposals that are accepted, and elsewhere `x`; this leaves p_s unchanged."""
        log_prob = rsde.method("log_prob")
        if log_prob is None:
            raise InvalidTypeError(
                "MALA needs a density, but this score has no method log_prob(x, t); use an "
                "EnergyScore or an exact target, or a corrector without acceptance: Langevin()"
            )

        def evaluate(x: Tensor) -> Local:
            return Local(rsde.score(x, s), log_prob(x, s))

        here, z = evaluate(x), noise.normal(x, s)
        epsilon = self.step_size(rsde.sde, s, here.score, z)
        u = noise.normal(here.log_density, s, 1)
        return adjusted(evaluate, x, here, epsilon, z, u)[0]

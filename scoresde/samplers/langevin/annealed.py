r"""Sample by annealed Langevin dynamics: Langevin steps at every noise level, the largest first.

After the steps at one level the noise of the sample differs from the noise of the next level.
Consistent annealed sampling adds exactly the noise that makes both equal.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_range
from scoresde.samplers.flow.euler import predicted_noise
from scoresde.samplers.langevin.langevin import ScaledLangevin, correct, scale_signal
from scoresde.samplers.sampler import NoiseLike, Sampler, State
from scoresde.sde import ReverseSDE, expand

__all__ = ["AnnealedLangevin", "ConsistentAnnealed"]


@dataclass(frozen=True)
class AnnealedLangevin(Sampler):
    r"""Take `k` Langevin steps of size $\epsilon_i = \kappa\,\sigma_i^2$ at every level.

    Song & Ermon (2020) have the step size $c\,\sigma_i^2 / \sigma_\min^2$ with the smallest level
    $\sigma_\min$, so $\kappa = c / \sigma_\min^2$. Song & Ermon (2019) call $2 \epsilon$ the step
    size, so with their constant $c$, $\kappa = c / (2 \sigma_\min^2)$.

    From one level to the next the state is multiplied by $\alpha_s / \alpha_t$. This factor is 1 on
    a VE ladder. Under VP it moves the mean, which Langevin steps alone would move too slowly. The
    distributions at neighbouring levels must overlap, or the steps do not reach the next
    distribution; so a ladder needs about 28 levels in 64 dimensions, and 105 in 784. Song & Ermon
    (2019), algorithm 1, arXiv:1907.05600; (2020), techniques 2 and 4, arXiv:2006.09011.

    Args:
        kappa: The step size divided by the variance of the noise, in (0, 2).
        k: The number of steps at each level, at least 1.
    """

    steps: ClassVar[int] = 200
    order = None
    invariant = True
    kappa: float = 0.5
    k: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        ScaledLangevin(self.kappa)
        check_integer("k", self.k, 1)

    @property
    def nfe_per_step(self) -> int:
        """Return the evaluations at one level, k."""
        return self.k

    def states(self, steps: int) -> int:
        """Return the number of states, one for each level."""
        return steps + 1

    def cost(self, steps: int) -> int:
        """Return the number of evaluations of N steps: k at each of N + 1 levels."""
        return (steps + 1) * self.k

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Scale the state from t to s, and take `k` Langevin steps at s."""
        x = scale_signal(rsde.sde, x, t, s)
        return correct(ScaledLangevin(self.kappa), self.k, rsde, x, s, noise)

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states after the steps at each of `times`, including the first."""
        for t, s in itertools.pairwise((times[0], *times)):
            x = self.step(rsde, x, t, s, noise)
            yield State.of(rsde, s, x)


@dataclass(frozen=True)
class ConsistentAnnealed(Sampler):
    r"""Sample by consistent annealed sampling, whose steps end with the noise of the next level.

    $$ y_s = y_t + (\tilde\sigma' - \tilde\sigma_t)\,\epsilon_t(x_t)
       + \sqrt{\tilde\sigma_s^2 - \tilde\sigma'^2}\, z, \qquad
       \tilde\sigma' = \min\big((1 - \kappa)\,\tilde\sigma_t,\ \tilde\sigma_s\big) $$

    with $y = x / \alpha_t$, $\tilde\sigma = \sigma_t / \alpha_t$ and the predicted noise
    $\epsilon_t = -\sigma_t \nabla\log p_t$. This is a Langevin step of size
    $\kappa\,\tilde\sigma_t^2$, with the noise that makes it exact for data at one point. If a step
    of the grid reduces the noise level by more than the factor $1 - \kappa$, no noise is added, and
    the step is that of `DDIM()`. For $1 - \kappa = (\tilde\sigma_s / \tilde\sigma_t)^2$ it is that
    of `Ancestral()`. For data of positive variance the bias grows with $\kappa$, and does not
    vanish with the step size. Jolicoeur-Martineau et al. (2021), algorithm 2, arXiv:2009.05475,
    where $\kappa$ is called $\epsilon / \sigma_L^2$ (.062 for 232 levels).

    Args:
        kappa: $\kappa$, in (0, 1].
    """

    steps: ClassVar[int] = 200
    order = None
    conditional = False
    kappa: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("kappa", self.kappa, "(0, 1]")

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_s from the draw `x` of p_t."""
        sde, epsilon = rsde.sde, predicted_noise(rsde, x, t)
        scale = sde.alpha(s) / sde.alpha(t)
        # the noise levels that are left, in the units of x_s
        old = torch.minimum((1 - self.kappa) * scale * sde.sigma(t), sde.sigma(s))
        fresh = ((sde.sigma(s) - old) * (sde.sigma(s) + old)).sqrt()
        x_s = expand(scale, x) * x + expand(old - scale * sde.sigma(t), x) * epsilon
        return x_s + expand(fresh, x) * noise.normal(x, t)

r"""Define predictors, which take steps of the reverse SDE with one evaluation of the score each.

They are discretisations of the reversed transition $(a, v)$ from $s$ to $t$,
$x_t | x_s \sim \mathcal N(a x_s, v I)$.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scoresde.checks import check_range
from scoresde.noise import path
from scoresde.samplers.sampler import NoiseLike, Sampler
from scoresde.sde import SDE, Moments, ReverseSDE, expand

__all__ = ["Ancestral", "EulerMaruyama", "ReverseDiffusion"]


@dataclass(frozen=True)
class EulerMaruyama(Sampler):
    r"""Solve the reverse SDE by Euler-Maruyama, driven by one Brownian path per sample.

    $$ x_s = x_t - (t - s) \big[f x - \tfrac12 (1 + \eta^2) g^2 \nabla\log p_t(x)\big]
       + \eta\, g \sqrt{t - s}\, z $$

    The path is a function of the seed. So with the same seed, 100 and 1,000 steps give the same
    sample up to the discretisation error. The default times are those at which the path takes few
    random numbers. Song et al. (2021), section 4.1, arXiv:2011.13456.

    Args:
        eta: The factor of the noise, at least 0: 1 for the reverse SDE, 0 for Euler's method on the
            probability-flow ODE.
    """

    steps: ClassVar[int] = 1000
    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("eta", self.eta, "[0, inf)")

    @property
    def stochastic(self) -> bool:
        """Return True if `eta` > 0."""
        return self.eta > 0

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return the SDE's default grid, with inner times where the path takes few numbers.

        They are moved by at most 1/8 of a step (`scoresde.noise.path.rounded`), but not for an SDE
        with levels, and not without noise.
        """
        times = sde.times(steps)
        still = self.eta == 0 or sde.levels is not None
        return times if still else path.rounded(times, sde.T)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_s from the draw `x` of p_t."""
        h = t - s
        x_s = x - expand(h, x) * rsde.drift(x, t, self.eta)
        if self.eta == 0:
            return x_s
        return x_s + expand(rsde.diffusion(t, self.eta) * h.sqrt(), x) * noise.increment(x, s, t)


@dataclass(frozen=True)
class ReverseDiffusion(Sampler):
    r"""Solve the reverse SDE with the same discretisation as the forward SDE.

    $$ x_s = (2 - a)\, x_t + v \nabla\log p_t(x_t) + \sqrt v\, z $$

    Song et al. (2021), eq. 46, arXiv:2011.13456.
    """

    steps: ClassVar[int] = 1000

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_s from the draw `x` of p_t."""
        a, v = rsde.sde.transition(s, t)
        root, z = expand(v.sqrt(), x), noise.normal(x, t)
        return expand(2 - a, x) * x + root * (root * rsde.score(x, t) + z)


@dataclass(frozen=True)
class Ancestral(Sampler):
    r"""Sample from $p(x_s | x_t)$ with the mean by Tweedie's formula and one of three variances.

    $$ x_s = \frac{x_t + v \nabla\log p_t(x_t)}{a}
       + \sqrt{v\, \sigma_s^2 / \sigma_t^2 + (\alpha_s v / \sigma_t^2)^2\, c}\; z $$

    Here $c$ is the assumed variance of $x_0$ given $x_t$:

    - `"small"`: $c = 0$. The noise has the variance of $p(x_s | x_t, x_0)$, which is exact for data
      at one point.
    - `"large"`: the noise has the variance $v$. Under VP and VE this is $c = \sigma_t^2$, which
      under VP is exact for standard normal data.
    - `"moments"`: the variance of $x_0$ given $x_t$ for Gaussian data with the known variances, or,
      for a known covariance, the mean of this variance over the principal axes. It is exact for
      Gaussian data with independent entries, and has the smallest errors of the three with few
      steps. Without known moments it is `"small"`.

    Ho et al. (2020), algorithm 2, arXiv:2006.11239; Song et al. (2021), eq. 47, arXiv:2011.13456;
    Bao et al. (2022), theorem 1, arXiv:2201.06503.

    Args:
        variance: The name of the variance of the noise.
    """

    steps: ClassVar[int] = 1000
    variance: Literal["small", "large", "moments"] = "small"

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_s from the draw `x` of p_t."""
        a, v = rsde.sde.transition(s, t)
        root, z = expand(v.sqrt(), x), noise.normal(x, t)
        mean = torch.addcmul(x, root, root * rsde.score(x, t)).div_(expand(a, x))
        if self.variance == "large":
            return mean.addcmul_(root, z)
        ratio = rsde.sde.sigma(s) / rsde.sde.sigma(t)
        if self.variance == "small" or rsde.moments is None:
            return mean.addcmul_(expand(v.sqrt() * ratio, x), z)
        pull = rsde.sde.alpha(s) / rsde.sde.sigma(t) * v.sqrt() / rsde.sde.sigma(t)
        left = rsde.moments.left(rsde.sde.log_snr(t).exp())
        return mean + root * (ratio**2 + pull**2 * left).sqrt().to(x) * z

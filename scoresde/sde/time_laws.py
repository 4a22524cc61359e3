r"""Define the distributions from which an objective draws its training times (time laws).

A law maps uniform numbers $u \in [0, 1)$ to times t and importance weights w. The weighted average
of a loss $\ell$ equals its average over uniform times,
$\mathbb E_{t \sim p}[w(t) \ell(t)] = \mathbb E_{t \sim U(\epsilon, T)}[\ell(t)]$.
If the distribution is part of the objective's definition, as in EDM, the weights are one instead.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_noise, check_range

if TYPE_CHECKING:
    from scoresde.sde.process import SDE

__all__ = ["Importance", "Laplace", "LogNormal", "Logistic", "Stratified", "TimeLaw", "Uniform"]


class TimeLaw(abc.ABC):
    """Draw times from `[sde.eps, sde.T]`, or from the levels of an SDE that has levels.

    Examples:
        >>> from scoresde.sde import VPSDE
        >>> law = Stratified(Uniform())
        >>> t, weight = VPSDE().sample_times(4, law=law, generator=torch.Generator().manual_seed(0))
        >>> print((t.sort().values * 4).long().tolist(), weight.tolist())
        [0, 1, 2, 3] [1.0, 1.0, 1.0, 1.0]
    """

    @abc.abstractmethod
    def __call__(self, sde: SDE, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return times and weights `(n,)`, in float64, from uniform numbers `u` `(n,)`."""


@dataclass(frozen=True)
class Uniform(TimeLaw):
    r"""Draw $t \sim U(\epsilon, T)$, or every level with the same probability.

    Examples:
        >>> from scoresde.sde import VPSDE
        >>> t, weight = Uniform()(VPSDE(eps=0.5), torch.tensor([0.0, 0.5], dtype=torch.float64))
        >>> print(t.tolist(), weight.tolist())
        [0.5, 0.75] [1.0, 1.0]
    """

    def __call__(self, sde: SDE, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return times and unit weights."""
        if sde.levels is None:
            return sde.eps + (sde.T - sde.eps) * u, torch.ones_like(u)
        grid = sde.times().flip(0)
        return grid[(u * sde.levels).long()], torch.ones_like(u)


class _Located(TimeLaw):
    r"""Draw $\log(\sigma_t / \alpha_t)$ as a location plus a scale times a standard variable.

    A subclass has two fields, the location and the positive scale. The law is part of the
    objective, so the weights are one.
    """

    def __post_init__(self) -> None:
        check_fields(self, finite=True)
        _, scale = vars(self)
        check_range(scale, getattr(self, scale), "(0, inf)")

    @staticmethod
    @abc.abstractmethod
    def quantile(u: Tensor) -> Tensor:
        """Return the quantiles of the standard variable at probabilities `u`."""

    def __call__(self, sde: SDE, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return times and unit weights."""
        mean, scale = vars(self).values()
        return _times_at(sde, mean + scale * self.quantile(u)), torch.ones_like(u)


@dataclass(frozen=True)
class LogNormal(_Located):
    r"""Draw $\log(\sigma_t / \alpha_t) \sim N(\text{mean}, \text{std}^2)$.

    Karras et al. (2022), table 1, arXiv:2206.00364. The law is part of the objective, so the
    weights are one. Values outside the range of the SDE become its values at T and eps.

    Args:
        mean: $P_\text{mean}$ of the paper.
        std: $P_\text{std}$ of the paper, positive.

    Examples:
        >>> import math
        >>> from scoresde.sde import EDMSDE
        >>> t, _ = LogNormal()(EDMSDE(), torch.tensor([0.5], dtype=torch.float64))
        >>> print(f"{t.item():.4f} = {math.exp(-1.2):.4f}")
        0.3012 = 0.3012
    """

    mean: float = -1.2
    std: float = 1.2

    @staticmethod
    def quantile(u: Tensor) -> Tensor:
        """Return the quantiles of the standard normal distribution."""
        found: Tensor = torch.special.ndtri(u)
        return found


@dataclass(frozen=True)
class Logistic(_Located):
    r"""Draw $\log(\sigma_t / \alpha_t)$ from a logistic distribution.

    With the defaults, t is uniform if $\sigma / \alpha = \sqrt{t / (1 - t)}$, as under
    `BrownianBridgeSDE(1)`; under other SDEs the noise levels have the same distribution. The law is
    part of the objective, so the weights are one. Values outside the range of the SDE become its
    values at T and eps.

    Args:
        mean: The mean of $\log(\sigma / \alpha)$.
        scale: The scale of the distribution, positive; the standard deviation is 1.81 times the
            scale.

    Examples:
        >>> from scoresde.sde import BrownianBridgeSDE
        >>> u = torch.tensor([0.25, 0.5], dtype=torch.float64)
        >>> for s in (1, 2):
        ...     t, _ = Logistic()(BrownianBridgeSDE(s), u)
        ...     print([round(float(v), 3) for v in t])
        [0.25, 0.5]
        [0.077, 0.2]
    """

    mean: float = 0.0
    scale: float = 0.5

    @staticmethod
    def quantile(u: Tensor) -> Tensor:
        """Return the quantiles of the standard logistic distribution."""
        return torch.logit(u)


@dataclass(frozen=True)
class Laplace(_Located):
    r"""Draw $\log(\sigma_t / \alpha_t)$ from a Laplace distribution.

    Hang et al. (2024), arXiv:2407.03297. The default is their best distribution: mean 0 and scale
    .5 in $\log(\alpha^2 / \sigma^2)$. The law is part of the objective, so the weights are one.
    Values outside the range of the SDE become its values at T and eps.

    Args:
        mean: The mean of $\log(\sigma / \alpha)$.
        scale: The mean absolute deviation, positive; the standard deviation is 1.41 times as large.

    Examples:
        >>> from scoresde.sde import BrownianBridgeSDE
        >>> u = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        >>> [round(float(v), 3) for v in Laplace()(BrownianBridgeSDE(), u)[0]]
        [0.414, 0.5, 0.586]
    """

    mean: float = 0.0
    scale: float = 0.25

    @staticmethod
    def quantile(u: Tensor) -> Tensor:
        """Return the quantiles of the Laplace distribution of mean absolute deviation 1."""
        return -(u - 0.5).sign() * torch.log(2 * torch.minimum(u, 1 - u))


@dataclass(frozen=True)
class Importance(TimeLaw):
    r"""Draw t with the density $p(t) \propto g(t)^2 / \sigma_t^2$.

    This law reduces the variance of a loss with the weight $g^2$. Since
    $g^2 / \sigma^2 = -\frac{d}{dt} \log(\alpha^2 / \sigma^2)$, the log signal-to-noise ratio is
    uniform (Song et al. 2021, arXiv:2101.09258; Kingma et al. 2021, arXiv:2107.00630). The noise
    $\sigma_\epsilon$ must be positive.

    Examples:
        >>> from scoresde.sde import VESDE
        >>> t, weight = Importance()(VESDE(), torch.tensor([0.25], dtype=torch.float64))
        >>> print(f"{t.item():.2f} {weight.item():.2f}")  # for VE, t is uniform
        0.75 1.00
    """

    def __call__(self, sde: SDE, u: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return times and weights $1 / (p(t) (T - \epsilon))$, or $1 / (L p_i)$ for L levels."""
        low, high = sde.log_snr(torch.tensor([sde.T, sde.eps], dtype=torch.float64))
        check_noise(torch.exp(-high), sde.eps, "importance sampling of times needs eps > 0")
        if sde.levels is not None:
            grid = sde.times().flip(0)
            _, g2 = sde.coefficients(grid)
            p = g2 / sde.sigma(grid) ** 2
            p = p / p.sum()
            i = torch.searchsorted(p.cumsum(0), u, right=True).clamp(max=sde.levels - 1)
            return grid[i], 1 / (sde.levels * p[i])
        t = sde.time(torch.lerp(low, high, u)).clamp(sde.eps, sde.T)
        _, g2 = sde.coefficients(t)
        return t, (high - low) / (sde.T - sde.eps) * sde.sigma(t) ** 2 / g2


@dataclass(frozen=True)
class Stratified(TimeLaw):
    r"""Stratify the n times of a batch: draw one in each of n intervals of equal probability.

    The n uniform numbers $u_i$ become $(r_i + w_i) / n$, where $r_i$ are their ranks and $w_i$ the
    fractional parts of $2^{20} u_i$, which are uniform too. Each single time still follows the
    given law, so the expected loss is the same. The random times add almost no variance to the loss
    of a batch. (Kingma et al. 2021, appendix I.1, arXiv:2107.00630, space the times evenly
    instead.)

    Args:
        law: The law of a single time.

    Examples:
        >>> from scoresde.sde import VPSDE
        >>> u = torch.tensor([0.9, 0.1, 0.8, 0.2], dtype=torch.float64)
        >>> print((Stratified()(VPSDE(), u)[0] * 4).long().tolist())
        [3, 0, 2, 1]
    """

    law: TimeLaw = field(default_factory=Uniform)

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, sde: SDE, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return times and weights of the law."""
        rank = u.argsort().argsort()
        return self.law(sde, (rank + (u * 2**20).frac()) / len(u))


def _times_at(sde: SDE, log_ratio: Tensor) -> Tensor:
    r"""Return the times of values of $\log(\sigma / \alpha)$, or the levels nearest in time.

    Values outside the range of the SDE become its values at eps and T.
    """
    low, high = sde.log_snr(torch.tensor([sde.T, sde.eps], dtype=torch.float64))
    t = sde.time((-2 * log_ratio).clamp(low, high)).clamp(sde.eps, sde.T)
    return t if sde.levels is None else sde.times().flip(0)[sde.index(t)]

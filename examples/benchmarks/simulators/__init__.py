r"""Define simulators with exact draws of the posterior, for simulation-based inference.

They are three of the problems of Lueckmann et al. (2021, *Benchmarking simulation-based inference*,
arXiv:2101.04653). The parameters $\theta$ are drawn from the prior, the data $y$ by the simulator.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, Uniform

__all__ = ["TASKS", "GaussianLinear", "GaussianMixture", "Task", "TwoMoons"]


class Task(abc.ABC):
    """Define a prior, a simulator and exact draws of the posterior."""

    d: int
    """Dimensions of the parameter, and of the data."""

    @property
    @abc.abstractmethod
    def prior(self) -> Distribution:
        """Return the distribution of the parameters."""

    @abc.abstractmethod
    def data(self, theta: Tensor, g: torch.Generator) -> Tensor:
        """Draw data `(n, d)` for parameters `(n, d)`."""

    @abc.abstractmethod
    def posterior(self, y: Tensor, k: int, g: torch.Generator) -> Tensor:
        """Draw k parameters for one data set `(d,)`: `(k, d)`."""

    @abc.abstractmethod
    def parameters(self, n: int, g: torch.Generator) -> Tensor:
        """Draw parameters of the prior."""

    def simulate(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Draw n parameters and their data."""
        g = torch.Generator().manual_seed(seed)
        theta = self.parameters(n, g)
        return theta, self.data(theta, g)


@dataclass(frozen=True)
class GaussianLinear(Task):
    """Add Gaussian noise to ten Gaussian numbers of the same variance."""

    d: int = 10
    var: float = 0.1

    @property
    def prior(self) -> Distribution:
        """Return N(0, .1)."""
        return Independent(Normal(torch.zeros(self.d), math.sqrt(self.var)), 1)

    def parameters(self, n: int, g: torch.Generator) -> Tensor:
        """Draw parameters of the prior."""
        return math.sqrt(self.var) * torch.randn(n, self.d, generator=g)

    def data(self, theta: Tensor, g: torch.Generator) -> Tensor:
        """Draw data for parameters."""
        return theta + math.sqrt(self.var) * torch.randn(theta.shape, generator=g)

    def posterior(self, y: Tensor, k: int, g: torch.Generator) -> Tensor:
        """Draw from N(y / 2, .05)."""
        return y / 2 + math.sqrt(self.var / 2) * torch.randn(k, self.d, generator=g)


@dataclass(frozen=True)
class GaussianMixture(Task):
    """Draw from a wide or a narrow Gaussian with an unknown mean, under a uniform prior."""

    d: int = 2
    reach: float = 10.0

    @property
    def prior(self) -> Distribution:
        """Return U(-10, 10)."""
        return Independent(Uniform(torch.full((2,), -self.reach), self.reach), 1)

    def parameters(self, n: int, g: torch.Generator) -> Tensor:
        """Draw parameters of the prior."""
        return self.reach * (2 * torch.rand(n, 2, generator=g) - 1)

    def data(self, theta: Tensor, g: torch.Generator) -> Tensor:
        """Draw data for parameters."""
        wide = torch.rand(len(theta), 1, generator=g) < 0.5
        return theta + torch.where(wide, 1.0, 0.1) * torch.randn(theta.shape, generator=g)

    def posterior(self, y: Tensor, k: int, g: torch.Generator) -> Tensor:
        """Draw in proportion to the likelihood, and keep draws in the support of the prior."""
        found = torch.zeros(0, 2)
        while len(found) < k:
            more = self.data(y.expand(2 * k, 2), g)
            found = torch.cat([found, more[(more.abs() < self.reach).all(1)]])
        return found[:k]


@dataclass(frozen=True)
class TwoMoons(Task):
    """Shift noise of the shape of a crescent; two parameters give the same shift."""

    d: int = 2

    @property
    def prior(self) -> Distribution:
        """Return U(-1, 1)."""
        return Independent(Uniform(-torch.ones(2), 1.0), 1)

    def parameters(self, n: int, g: torch.Generator) -> Tensor:
        """Draw parameters of the prior."""
        return 2 * torch.rand(n, 2, generator=g) - 1

    def data(self, theta: Tensor, g: torch.Generator) -> Tensor:
        """Draw data for parameters."""
        at = torch.stack([-theta.sum(1).abs(), theta[:, 1] - theta[:, 0]], 1) / math.sqrt(2)
        return self._crescent(len(theta), g) + at

    def posterior(self, y: Tensor, k: int, g: torch.Generator) -> Tensor:
        """Draw the noise, and one of the two parameters with which it gives the data."""
        found = torch.zeros(0, 2)
        while len(found) < k:
            at = math.sqrt(2) * (y - self._crescent(4 * k, g))
            sign = torch.where(torch.rand(len(at), generator=g) < 0.5, 1.0, -1.0)
            total = sign * -at[:, 0]
            more = torch.stack([total - at[:, 1], total + at[:, 1]], 1) / 2
            found = torch.cat([found, more[(at[:, 0] <= 0) & (more.abs() < 1).all(1)]])
        return found[:k]

    @staticmethod
    def _crescent(n: int, g: torch.Generator) -> Tensor:
        angle = math.pi * (torch.rand(n, generator=g) - 0.5)
        radius = 0.1 + 0.01 * torch.randn(n, generator=g)
        return torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], 1)


TASKS: dict[str, Task] = {
    "Gaussian, 10-d": GaussianLinear(),
    "two widths, 2-d": GaussianMixture(),
    "two moons, 2-d": TwoMoons(),
}
"""The problems by name."""

"""Define well-known densities in the plane, each a mixture of Gaussians."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde.checks import check_range, door
from scoresde.targets.mixture import Components
from scoresde.targets.target import Target

__all__ = ["EightGaussians", "Rings", "SongMixture", "Spiral", "TwoMoons"]


class SongMixture(Target):
    r"""Define $\frac45 N((5, 5), I) + \frac15 N((-5, -5), I)$, two modes far apart.

    Song & Ermon (2019, section 3.2.2, arXiv:1907.05600) show on this example that Langevin dynamics
    gives wrong weights to the modes.
    """

    @door
    def __init__(self) -> None:
        weights = torch.tensor([0.8, 0.2], dtype=torch.float64)
        means = torch.tensor([[5.0, 5.0], [-5.0, -5.0]], dtype=torch.float64)
        super().__init__(Components(weights, means, means.new_ones(2, 1)))


class EightGaussians(Target):
    """Define eight equal Gaussians on a circle.

    Args:
        radius: The radius of the circle.
        std: The standard deviation of each Gaussian, positive.
    """

    @door
    def __init__(self, radius: float = 2.0, std: float = 0.2) -> None:
        super().__init__(_mixture_at(radius * _circle(8), std))


class TwoMoons(Target):
    """Define two interleaved half circles of radius one, centred at the origin.

    Args:
        std: Half the width of the moons, at least 0.05.
    """

    @door
    def __init__(self, std: float = 0.1) -> None:
        angle = _midpoints(32) * math.pi
        upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
        super().__init__(_mixture_at(torch.cat([upper, -upper]), std, 0.05))


class Rings(Target):
    """Define two concentric circles, of radii one and two, with the same weight per length.

    Args:
        std: Half the width of the rings, at least 0.1.
    """

    @door
    def __init__(self, std: float = 0.1) -> None:
        super().__init__(_mixture_at(torch.cat([_circle(40), 2 * _circle(80)]), std, 0.1))


class Spiral(Target):
    """Define a spiral that winds twice around the origin, with the same weight per length.

    Args:
        std: Half the width of the arm, at least 0.1.
    """

    @door
    def __init__(self, std: float = 0.1) -> None:
        # Archimedes's spiral r = c angle has an arc length of about c angle^2 / 2.
        angle = 4 * math.pi * _midpoints(80).sqrt()
        points = torch.stack([angle.cos(), angle.sin()], 1) * angle[:, None] / (2 * math.pi)
        super().__init__(_mixture_at(points, std, 0.1))


def _midpoints(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


def _circle(n: int) -> Tensor:
    angle = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack([angle.cos(), angle.sin()], 1)


def _mixture_at(means: Tensor, std: float, least: float = 0.0) -> Components:
    """Return equal isotropic Gaussians at `means`; raise if a small std would leave gaps."""
    check_range("std", std, f"[{least}, inf)" if least else "(0, inf)")
    n = len(means)
    return Components(means.new_full((n,), 1 / n), means, means.new_full((n, 1), std).square())

"""Define distributions whose score is known exactly at every time of every SDE.

Examples:
    >>> import scoresde, torch
    >>> target = scoresde.targets.Gaussian([1.0, -1.0], std=0.5)
    >>> x = target.sample(4, generator=torch.Generator().manual_seed(0))
    >>> print(x.shape, target.at(scoresde.VESDE())(x, 0.5).shape)
    torch.Size([4, 2]) torch.Size([4, 2])
"""

from scoresde.targets.gaussian import Gaussian, GaussianMixture
from scoresde.targets.kernels import KernelDensity
from scoresde.targets.mixture import Components
from scoresde.targets.planar import EightGaussians, Rings, SongMixture, Spiral, TwoMoons
from scoresde.targets.posterior import Posterior
from scoresde.targets.target import Target, TargetScore

__all__ = [
    "Components",
    "EightGaussians",
    "Gaussian",
    "GaussianMixture",
    "KernelDensity",
    "Posterior",
    "Rings",
    "SongMixture",
    "Spiral",
    "Target",
    "TargetScore",
    "TwoMoons",
]

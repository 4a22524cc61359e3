"""Distributions whose score is known exactly at every time of every SDE."""

from scoresde.targets.gaussian import Gaussian, GaussianMixture
from scoresde.targets.mixture import Components
from scoresde.targets.planar import EightGaussians, Rings, SongMixture, Spiral, TwoMoons
from scoresde.targets.posterior import Posterior
from scoresde.targets.target import Target, TargetScore

__all__ = [
    "Components",
    "EightGaussians",
    "Gaussian",
    "GaussianMixture",
    "Posterior",
    "Rings",
    "SongMixture",
    "Spiral",
    "Target",
    "TargetScore",
    "TwoMoons",
]

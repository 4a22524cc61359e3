"""Sampling: every method behind `sample` and `trajectory`."""

from scoresde.sampling.front import sample, trajectory
from scoresde.sampling.problem import SAMPLERS

__all__ = ["SAMPLERS", "sample", "trajectory"]

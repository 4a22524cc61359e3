"""Sampling: every method behind `sample` and `trajectory`."""

from scoresde.sampling.front import sample, trajectory
from scoresde.sampling.names import SAMPLERS
from scoresde.sampling.pilot import pilot

__all__ = ["SAMPLERS", "pilot", "sample", "trajectory"]

"""Sampling: every method behind `sample` and `trajectory`."""

from scoresde.sampling.front import sample, trajectory
from scoresde.sampling.learn import pilot
from scoresde.sampling.names import SAMPLERS
from scoresde.sampling.shards import Shards

__all__ = ["SAMPLERS", "Shards", "pilot", "sample", "trajectory"]

"""Draw samples from a score by `sample` and `trajectory`, which both make a `Run`."""

from scoresde.sampling.doors import sample, trajectory
from scoresde.sampling.learn import pilot
from scoresde.sampling.names import SAMPLERS
from scoresde.sampling.run import Options, Run, Samples
from scoresde.sampling.shards import Shards

__all__ = ["SAMPLERS", "Options", "Run", "Samples", "Shards", "pilot", "sample", "trajectory"]

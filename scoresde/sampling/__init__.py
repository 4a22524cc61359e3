"""Draw samples from a score: `sample`, `trajectory`, and the request behind both."""

from scoresde.sampling.doors import sample, trajectory
from scoresde.sampling.learn import pilot
from scoresde.sampling.names import SAMPLERS
from scoresde.sampling.run import Options, Run, Samples
from scoresde.sampling.shards import Shards

__all__ = ["SAMPLERS", "Options", "Run", "Samples", "Shards", "pilot", "sample", "trajectory"]

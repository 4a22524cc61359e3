"""Draw random numbers as a pure function of seed, sample index, time and number of the draw."""

from scoresde.noise.source import Noise, seeds_of

__all__ = ["Noise", "seeds_of"]

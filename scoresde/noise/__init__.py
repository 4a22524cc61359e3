"""Draw random numbers that are a pure function of seed, sample index, time and draw number."""

from scoresde.noise.source import Noise, seeds_of

__all__ = ["Noise", "seeds_of"]

"""Draw random numbers that are a function of seed, sample index, time and draw number only."""

from scoresde.noise.source import Noise, seeds_of

__all__ = ["Noise", "seeds_of"]

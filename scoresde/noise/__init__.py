"""Randomness: a pure function of (seed, sample index, where it is asked for)."""

from scoresde.noise.source import Noise, seeds_of

__all__ = ["Noise", "seeds_of"]

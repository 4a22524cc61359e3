"""Choose noise scales, samplers, a network and training settings for data, each with its reason.

The noise scales follow from the data and from theory (`scoresde.suggestion.noise`), the network
from the shape of a sample, and the settings of the training from both and from measurements
(`examples/benchmarks/recipes.py`).
"""

from scoresde.suggestion.network import NetConfig
from scoresde.suggestion.noise import NoiseLevels
from scoresde.suggestion.suggesting import Suggestion, suggest

__all__ = ["NetConfig", "NoiseLevels", "Suggestion", "suggest"]

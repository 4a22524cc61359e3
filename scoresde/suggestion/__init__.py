"""What suits data: noise levels, samplers, a network and a training, each with its reason.

The noise levels follow from the data and from theory (`scoresde.suggestion.noise`), the network
from the shape of a sample, and the numbers of the training from both and from experience
(`examples/benchmarks/recipes.py`).
"""

from scoresde.suggestion.network import NetConfig
from scoresde.suggestion.noise import NoiseLevels
from scoresde.suggestion.suggesting import Suggestion, suggest

__all__ = ["NetConfig", "NoiseLevels", "Suggestion", "suggest"]

"""How far samples are from data, and how sure of it one can be."""

from scoresde.metrics.distances import frechet_distance, nearest_distance, total_variation
from scoresde.metrics.interval import bootstrap
from scoresde.metrics.laws import energy_distance, sliced_wasserstein

__all__ = [
    "bootstrap",
    "energy_distance",
    "frechet_distance",
    "nearest_distance",
    "sliced_wasserstein",
    "total_variation",
]

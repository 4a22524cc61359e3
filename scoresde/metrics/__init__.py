"""Measure the distance of samples from data, with confidence intervals."""

from scoresde.metrics.calibration import Calibration, calibrate, calibrate_pairs
from scoresde.metrics.classifier import Classifier
from scoresde.metrics.distances import nearest_distance, total_variation
from scoresde.metrics.evaluating import METRICS, Metric, evaluate
from scoresde.metrics.evaluation import Comparison, Evaluation
from scoresde.metrics.fidelity import Inception, inception
from scoresde.metrics.frechet import Frechet, GaussianFit, frechet_distance
from scoresde.metrics.interval import mean_interval
from scoresde.metrics.kernels import Kernel, kernel_distance
from scoresde.metrics.memory import Copies, Memorisation, memorisation
from scoresde.metrics.neighbours import Neighbours, Support, precision_recall
from scoresde.metrics.resampling import Estimate, halves
from scoresde.metrics.sources import Features, Source
from scoresde.metrics.unbiased import Sliced, energy_distance, sliced_wasserstein

__all__ = [
    "METRICS",
    "Calibration",
    "Classifier",
    "Comparison",
    "Copies",
    "Estimate",
    "Evaluation",
    "Features",
    "Frechet",
    "GaussianFit",
    "Inception",
    "Kernel",
    "Memorisation",
    "Metric",
    "Neighbours",
    "Sliced",
    "Source",
    "Support",
    "calibrate",
    "calibrate_pairs",
    "energy_distance",
    "evaluate",
    "frechet_distance",
    "halves",
    "inception",
    "kernel_distance",
    "mean_interval",
    "memorisation",
    "nearest_distance",
    "precision_recall",
    "sliced_wasserstein",
    "total_variation",
]

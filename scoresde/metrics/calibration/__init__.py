"""Whether draws of a posterior are what they claim, judged by simulated data."""

from scoresde.metrics.calibration.calibrate import calibrate, calibrate_pairs
from scoresde.metrics.calibration.result import Calibration, Quantity

__all__ = ["Calibration", "Quantity", "calibrate", "calibrate_pairs"]

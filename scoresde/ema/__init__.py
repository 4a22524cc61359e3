"""Average the weights of a model, during training or afterwards from stored averages."""

from scoresde.ema.average import EMA, Average, PowerEMA
from scoresde.ema.fitting import Fit, fit
from scoresde.ema.posthoc import Reconstruction, reconstruct
from scoresde.ema.profile import Exponential, Power, Profile, gamma_of, sigma_of
from scoresde.ema.snapshots import Snapshot, save_snapshot, snapshots_in

__all__ = [
    "EMA",
    "Average",
    "Exponential",
    "Fit",
    "Power",
    "PowerEMA",
    "Profile",
    "Reconstruction",
    "Snapshot",
    "fit",
    "gamma_of",
    "reconstruct",
    "save_snapshot",
    "sigma_of",
    "snapshots_in",
]

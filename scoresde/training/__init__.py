"""Train a score: the loop, its configuration, its checkpoints, its callbacks."""

from scoresde.training.callbacks import Callback
from scoresde.training.config import TrainConfig
from scoresde.training.loggers import TensorBoard, Trackio, WandB
from scoresde.training.parts import Averages, Compute, Keeping, Optimiser
from scoresde.training.pictures import Pictures
from scoresde.training.trainer import Trainer

__all__ = [
    "Averages",
    "Callback",
    "Compute",
    "Keeping",
    "Optimiser",
    "Pictures",
    "TensorBoard",
    "Trackio",
    "TrainConfig",
    "Trainer",
    "WandB",
]

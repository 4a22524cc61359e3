"""Networks: plain PyTorch modules `net(x, c, **condition)` that know nothing of SDEs."""

from .embedding import Fourier, LogSNR, Sinusoidal
from .mlp import MLP
from .unet import UNet

__all__ = ["MLP", "Fourier", "LogSNR", "Sinusoidal", "UNet"]

"""Define networks: plain PyTorch modules `net(x, c, **condition)` that know nothing of SDEs.

Examples:
    >>> import torch
    >>> from scoresde import nn
    >>> net = nn.UNet(1, channels=(8, 16), blocks=1)
    >>> net(torch.zeros(4, 1, 8, 8), torch.zeros(4)).shape  # x, and c = log(sigma / alpha) / 4
    torch.Size([4, 1, 8, 8])
"""

from .dit import DiT
from .embedding import Fourier, LogSNR, Sinusoidal
from .mlp import MLP
from .ncsnpp import NCSNpp
from .ncsnv2 import NCSNv2
from .unet import UNet

__all__ = ["MLP", "DiT", "Fourier", "LogSNR", "NCSNpp", "NCSNv2", "Sinusoidal", "UNet"]

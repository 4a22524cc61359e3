"""Join the networks of several noise levels into one network."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from scoresde import SDE
from scoresde.sde.coordinates import c_noise


class PerLevel(nn.ModuleList):
    """Evaluate for each row the network of the level nearest to `c`."""

    levels: Tensor

    def __init__(self, nets: Iterable[nn.Module], ladder: SDE) -> None:
        super().__init__(nets)
        self.register_buffer("levels", c_noise(ladder, ladder.times().flip(0)).float())

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the outputs `(B, *)` of states `x` `(B, *)` at levels `c` `(B,)`."""
        level = (c[:, None] - self.levels.to(c)).abs().argmin(1)
        out = torch.empty_like(x)
        for i in level.unique().tolist():
            out[level == i] = self[i](x[level == i], c[level == i]).to(x)
        return out

"""Scale the loss of a network that runs in float16, whose small gradients would be zero."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["LossScale"]

_FIRST = 2.0**16
_PATIENCE = 2000
_LARGEST = 2.0**100  # twice the largest number of float32 would be infinite for ever


class LossScale(nn.Module):
    """Multiply a loss by a power of 2 that is as large as float16 allows.

    The scale is halved at every step whose gradient is not finite, which is left out, and doubled
    after 2,000 finite steps in a row (Micikevicius et al. 2018, arXiv:1710.03740, sec. 3.2). Its
    state is kept in buffers, so that a resumed run continues with the same scale.
    """

    scale: Tensor
    finite: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(_FIRST))
        self.register_buffer("finite", torch.tensor(0))

    def unscale(self, weights: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale."""
        for p in weights:
            if p.grad is not None:
                p.grad.div_(self.scale)

    def update(self, finite: bool) -> None:
        """Change the scale after a step whose gradient was finite, or not."""
        if not finite:
            self.finite.zero_()
            self.scale.div_(2)
            return
        self.finite.add_(1).remainder_(_PATIENCE)
        if not self.finite:
            self.scale.mul_(2).clamp_(max=_LARGEST)

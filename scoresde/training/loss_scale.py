"""Scale the loss of a float16 network, so that small gradients do not underflow to zero."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["LossScale"]

_FIRST = 2.0**16
_PATIENCE = 2000
_LARGEST = 2.0**100  # the limit of the scale, since an infinite scale could never decrease again


class LossScale(nn.Module):
    """Hold the factor of a float16 loss, a power of 2 as large as the gradients allow.

    If a gradient is not finite, the step is skipped and the factor `scale` is halved. After 2,000
    finite steps in a row it is doubled (Micikevicius et al. 2018, arXiv:1710.03740, sec. 3.2). The
    factor is a buffer, so that a resumed run continues with the same factor.
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
        """Change the scale after a step, depending on whether its gradient was finite."""
        if not finite:
            self.finite.zero_()
            self.scale.div_(2)
            return
        self.finite.add_(1).remainder_(_PATIENCE)
        if not self.finite:
            self.scale.mul_(2).clamp_(max=_LARGEST)

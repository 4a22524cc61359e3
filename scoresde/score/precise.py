"""Define modules whose own buffers stay in float32 when a network is cast to half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

__all__ = ["Precise"]


class Precise(nn.Module):
    """Keep the buffers of this module, not those within it, in float32 at least."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        precise = dict(self.named_buffers(recurse=False))
        convert: Any = super()._apply  # untyped in some releases of torch
        convert(fn, recurse)
        for name, value in precise.items():
            moved: Tensor = getattr(self, name)
            if moved.dtype.itemsize < torch.float32.itemsize:
                setattr(self, name, value.to(moved.device, torch.float32))
        return self

"""Define modules whose own buffers stay in float32 when a network is cast to half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from scoresde.checks import mark

__all__ = ["Precise"]


class Precise(nn.Module):
    """Keep the module's own buffers, not those of submodules, in float32 or a wider dtype."""

    def __init__(self) -> None:
        super().__init__()
        # by name of a buffer: its tensor, the tensor's mark, and its mean
        self._means: dict[str, tuple[Tensor, object, float]] = {}

    def _mean_of(self, name: str) -> Any:
        """Return the mean of a buffer, read once until it changes: reading waits for the device.

        It is a number, or in a graph of `torch.compile` or `torch.export` a tensor on the CPU.
        """
        value: Tensor = getattr(self, name)
        if torch.compiler.is_compiling():
            return value.detach().cpu().double().mean()
        now, known = mark(value), self._means.get(name)
        if known is None or known[0] is not value or known[1] != now:
            mean = float(value.detach().cpu().double().mean())
            self._means[name] = known = value, now, mean
        return known[2]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        precise = dict(self.named_buffers(recurse=False))
        convert: Any = super()._apply  # untyped in some releases of torch
        convert(fn, recurse)
        for name, value in precise.items():
            moved: Tensor = getattr(self, name)
            if moved.dtype.itemsize < torch.float32.itemsize:
                setattr(self, name, value.to(moved.device, torch.float32))
        return self

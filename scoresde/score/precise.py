"""Define modules whose buffers stay in float32 when the module is cast to half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from scoresde.checks import mark

__all__ = ["Precise"]


class Precise(nn.Module):
    """Keep the module's own buffers (not those of its submodules) in float32 or a wider dtype."""

    def __init__(self) -> None:
        super().__init__()
        # for each buffer by name: the tensor, its version counter, and its mean
        self._means: dict[str, tuple[Tensor, object, float]] = {}

    def _mean_of(self, name: str) -> Any:
        """Return the mean of a buffer, cached until it changes, since reading waits for the device.

        The result is a number, but in a graph of `torch.compile` or `torch.export` a CPU tensor.
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
        # torch does not annotate this function in every release
        convert: Any = super()._apply
        convert(fn, recurse)
        for name, value in precise.items():
            moved: Tensor = getattr(self, name)
            if moved.dtype.itemsize < torch.float32.itemsize:
                setattr(self, name, value.to(moved.device, torch.float32))
        return self

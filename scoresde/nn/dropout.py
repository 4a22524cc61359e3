"""Draw the masks of dropout from a seed, apart from torch's global generators.

All threads of a process share these generators, so a thread that draws from them would change the
masks of a training in another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Dropout", "seeded"]


class Dropout(nn.Dropout):
    """Drop activations at random, as `torch.nn.Dropout` does.

    Attributes:
        seed: The seed of the mask; None draws the mask from torch's global generator. Calls with
            the same seed, shape and dtype have the same mask on a device, so that activations can
            be recomputed in the backward pass. A compiled network always uses the global generator.
    """

    seed: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`; in training mode set entries to 0 and divide the others by 1 - p."""
        if torch.compiler.is_compiling() or self.seed is None or not (self.training and self.p):
            return super().forward(x)
        kept = 1 - self.p
        generator = torch.Generator(x.device).manual_seed(self.seed)
        mask = torch.empty_like(x, requires_grad=False).bernoulli_(kept, generator=generator)
        return x * mask.div_(kept or 1.0)


@contextmanager
def seeded(layers: Iterable[nn.Module], seed: int) -> Iterator[None]:
    """Give every `Dropout` among the layers its own seed, a function of `seed`, in the block."""
    chosen = [layer for layer in layers if isinstance(layer, Dropout)]
    words = np.random.SeedSequence(seed).generate_state(len(chosen), np.uint64)
    for layer, word in zip(chosen, words.tolist(), strict=True):
        layer.seed = word >> 1
    try:
        yield
    finally:
        for layer in chosen:
            layer.seed = None

r"""What chance decides in a step, a pure function of (seed, step, row of the batch).

No random state has to be stored, and a process that handles some rows of a batch draws for them
what a process that handles all of them does.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scoresde.noise import Noise
from scoresde.sde import SDE, TimeLaw
from scoresde.training.config import TrainConfig

__all__ = ["Draws"]

_BLOCK = 32  # rows whose noise has one seed: a process draws the blocks of its own rows alone


class Draws:
    """The random numbers of one update.

    torch uses 32 bits of a seed on the CPU, so two steps of a very long run may share their noise
    (with other samples), which does no harm in training.

    Args:
        config: `seed` and `batch_size` decide, and `label_dropout`.
        sde: The process.
        law: The law of the times; None is the process's own.
        step: The number of the update.

    Attributes:
        t: The times of all rows of the batch, `(batch_size,)`.
        importance: Their weights, `(batch_size,)`.
        hidden: Which labels are hidden, `(batch_size,)`.
    """

    def __init__(self, config: TrainConfig, sde: SDE, law: TimeLaw | None, step: int) -> None:
        n = config.batch_size
        self._n = n
        self._sequence = np.random.SeedSequence([config.seed, step])
        generator = torch.Generator().manual_seed(self._seeds(1)[0])
        self.t, self.importance = sde.sample_times(n, law=law, generator=generator)
        self.hidden = torch.rand(n, generator=generator) < config.label_dropout

    def noise(self, rows: slice) -> Noise:
        """Return the noise of these rows of the batch."""
        return Noise.of(self._seeds(2)[1], rows.stop - rows.start, first=rows.start)

    def _old(self, like: Tensor, rows: slice) -> Tensor:
        """Standard normal numbers for these rows of the batch, like `like`, on its device."""
        first, last = rows.start // _BLOCK, (rows.stop - 1) // _BLOCK
        blocks, seeds = [], self._seeds(2 + last)
        for block in range(first, last + 1):
            generator = torch.Generator().manual_seed(seeds[1 + block])
            length = min(_BLOCK, self._n - block * _BLOCK)
            blocks.append(
                torch.randn(length, *like.shape[1:], generator=generator, dtype=like.dtype)
            )
        start = rows.start - first * _BLOCK
        return torch.cat(blocks)[start : start + rows.stop - rows.start].to(like.device)

    def dropout_seed(self, part: int) -> int:
        """The seed of layers such as dropout, in part number `part` of the batch."""
        return self._seeds(2 + -(-self._n // _BLOCK) + part)[-1]

    def _seeds(self, n: int) -> list[int]:
        """The first `n` seeds of the step: of its times, its blocks of rows, its parts."""
        words = self._sequence.generate_state(n, np.uint64)
        return [int(word >> np.uint64(1)) for word in words]

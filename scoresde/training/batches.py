"""The batch of every step, a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from scoresde import distributed
from scoresde.data import Data, batch_indices
from scoresde.training.config import TrainConfig

__all__ = ["Batch", "Batches"]

Batch = tuple[Tensor, Tensor | None]
"""Samples `(B, *event)` in the model's units, and labels `(B,)` where the data have any.

Among several processes each has its own rows of the batch, `distributed.rows(batch_size)`.
"""


class Batches:
    """The batches of a run.

    Args:
        data: What to learn.
        config: `batch_size` and `seed` decide.
    """

    def __init__(self, data: Data, config: TrainConfig) -> None:
        self.data = data
        self.config = config

    def at(self, step: int) -> Batch:
        """The batch of update number `step`."""
        size = self.config.batch_size
        index = batch_indices(len(self.data), size, seed=self.config.seed, step=step)
        index = index[distributed.rows(size)]
        return self.data.batch(index), None if self.data.label is None else self.data.label[index]

    def since(self, step: int) -> Iterator[Batch]:
        """The batches of `step` and of all steps after it."""
        while True:
            yield self.at(step)
            step += 1

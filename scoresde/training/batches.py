r"""The batch of every step, a pure function of (seed, step), made here or by other processes.

Workers change when a batch is made, and nothing else: which samples it holds, how they are
augmented and in which order batches come is the same for any number of them. One that dies is
replaced, and the batches go on with the one that was due.
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from scoresde import distributed
from scoresde.checks import outside
from scoresde.data import Data, batch_indices
from scoresde.data.augment import Augment, augmented, chosen
from scoresde.errors import InvalidValueError, ScoreSDEError, TrainingError
from scoresde.sde import Condition
from scoresde.training.config import TrainConfig

__all__ = ["Batch", "Batches"]

Batch = tuple[Tensor, Condition | None]
"""Samples `(B, *event)` in the model's units, and their conditions where the data have any.

Among several processes each has its own rows of the batch, `distributed.rows(batch_size)`.
"""

# Workers may die so often within so many batches.
_DEATHS, _WITHIN = 3, 1000


class Batches:
    """Make the batches of a run.

    Args:
        data: What to learn.
        config: `steps`, `batch_size`, `seed`, `augment` and `compute.workers` decide.
        augment: A function `(x, generator) -> x` of one sample, after those of the configuration.
        rows: The rows of every batch that are wanted; by default those of this process.

    Raises:
        InvalidValueError: An augmentation is for images, and the data are none, or have fields that
            it would not move; or the batch cannot be divided among the processes.
    """

    def __init__(
        self,
        data: Data,
        config: TrainConfig,
        *,
        augment: Augment | None = None,
        rows: slice | None = None,
    ) -> None:
        self.data = data
        self.config = config
        size = config.batch_size
        self.rows = range(size)[distributed.rows(size) if rows is None else rows]
        self._augment: Sequence[Augment] = chosen(config.augment, data.event_shape)
        for name, kind in data.kinds.items():
            if self._augment and len(kind.shape) > 1:
                raise InvalidValueError(
                    f"augment={list(config.augment)} would move the samples, and not the fields "
                    f"{name!r} that belong to them; leave it out"
                )
        if augment is not None:
            self._augment = [*self._augment, augment]

    def at(self, step: int) -> Batch:
        """Return the batch of update number `step`."""
        seed, size = self.config.seed, self.config.batch_size
        index = batch_indices(len(self.data), size, seed=seed, step=step)[list(self.rows)]
        x = augmented(self.data.batch(index), self._augment, seed=seed, step=step, rows=self.rows)
        return x, self.data.condition(index)

    def since(self, step: int) -> Generator[Batch]:
        """Yield the batches of `step` and of all steps after it.

        Raises:
            DataError: A sample cannot be read; names it.
            TrainingError: Workers die again and again.
        """
        if self.config.compute.workers == 0:
            yield from map(self.at, range(step, self.config.steps))
            return
        deaths: list[int] = []
        while step < self.config.steps:
            try:
                for batch in self._made_elsewhere(step):
                    yield batch
                    step += 1
            except (RuntimeError, OSError, EOFError) as error:
                if not _is_a_death(error):
                    raise
                deaths = [*(k for k in deaths if k > step - _WITHIN), step]
                told = f"a worker that makes batches died before step {step} ({error})"
                if len(deaths) > _DEATHS:
                    raise TrainingError(
                        f"{told}, the {len(deaths)}th within {_WITHIN} steps; is there enough "
                        "memory, and shared memory in /dev/shm? workers=0 needs neither"
                    ) from error
                warnings.warn(f"{told}; it is replaced", RuntimeWarning, stacklevel=outside())

    def _made_elsewhere(self, step: int) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            _Steps(self),
            batch_size=None,
            sampler=range(step, self.config.steps),
            num_workers=self.config.compute.workers,
            collate_fn=_as_it_is,
            worker_init_fn=_obey_the_parent,
            generator=torch.Generator(),  # torch's global one belongs to the user
        )
        with _deaths_are_told_by_the_queue():
            made = iter(loader)
        for batch in made:
            if isinstance(batch, Exception):
                raise batch
            yield batch


class _Steps(Dataset[Any]):
    """Batches by their numbers, or the errors in their place, without another one around it."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> Batch | ScoreSDEError:
        try:
            return self.batches.at(step)
        except ScoreSDEError as error:
            return error


def _is_a_death(error: Exception) -> bool:
    """Return whether an error says that a worker is gone, and not what went wrong within it.

    A batch that waits in the queue is fetched from the worker that made it: where that one has
    died since, the error is one of the connection.
    """
    if isinstance(error, (ConnectionError, EOFError, FileNotFoundError)):
        return "in DataLoader worker" not in str(error)
    return "DataLoader worker (pid" in str(error) and not isinstance(error, ScoreSDEError)


def _as_it_is(batch: Any) -> Any:
    return batch


def _obey_the_parent(_: int) -> None:
    """Ignore what a terminal sends to all its processes at Ctrl-C and at its end."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):  # Windows has but the first
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextmanager
def _deaths_are_told_by_the_queue() -> Iterator[None]:
    """Keep a loader that starts here from answering the death of a worker at any moment.

    torch raises from a signal handler, so in the middle of an update; that would leave weights
    moved and averages not. Without it the same error comes where the batch is waited for.
    """
    number = getattr(signal, "SIGCHLD", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)
    if getattr(before, "__module__", "").startswith("torch."):
        before = signal.SIG_DFL
    try:
        yield
    finally:
        signal.signal(number, before)

r"""Make the batch of every step from (seed, step), in this process or in worker processes.

The samples of a batch, their augmentation and the order of the batches are the same for any number
of workers. A worker process that dies is replaced, and the new worker makes the missing batch.
"""

from __future__ import annotations

import itertools
import multiprocessing
import pickle  # noqa: TID251 (for its error alone)
import random
import signal
import threading
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from scoresde import distributed
from scoresde.checks import outside
from scoresde.data import Data, batch_indices
from scoresde.data.augment import Augment, augmented, chosen
from scoresde.errors import InvalidTypeError, InvalidValueError, ScoreSDEError, TrainingError
from scoresde.sde import Condition
from scoresde.training.config import TrainConfig

__all__ = ["Batch", "Batches", "there"]

Batch = tuple[Tensor, Condition | None]
"""Samples `(B, *event)` in the model's units, and their conditions if the data have any.

If there are several processes, each has its own rows of the batch, `distributed.rows(batch_size)`.
"""

# The run ends if more than `_DEATHS` workers die within `_WITHIN` batches.
_DEATHS, _WITHIN = 3, 1000
# the number of samples that an augmentation of the user makes twice, to compare them
_COMPARED = 256
# each tensor of a packed batch begins at a multiple of this number of bytes
_ALIGNED = 16


class Batches:
    """Make the batches of a run.

    Args:
        data: The training data.
        config: The configuration of the run: its `steps`, `batch_size`, `seed`, `augment` and
            `compute.workers`.
        augment: A function `(x, generator) -> x` of one sample, applied after the augmentations of
            the configuration.
        rows: The rows of every batch to make; by default the rows of this process.

    Raises:
        InvalidValueError: There are augmentations, but the data are not images, or have conditions
            that are fields, which would not be moved with the images. Or the batch size is not a
            multiple of the number of processes.
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
                    f"augment={list(config.augment)} would move the samples but not their "
                    f"conditions {name!r}, which are fields; leave augment= out"
                )
        if augment is not None:
            self._augment = [*self._augment, augment]
        self._watched = augment is not None
        self._compared = 0 if augment is None else _COMPARED

    def at(self, step: int) -> Batch:
        """Return the batch of update number `step`."""
        seed, size = self.config.seed, self.config.batch_size
        index = batch_indices(len(self.data), size, seed=seed, step=step)[list(self.rows)]
        before = _global_state() if self._watched else ()

        def made(x: Tensor) -> Tensor:
            return augmented(x, self._augment, seed=seed, step=step, rows=self.rows)

        x = self.data.batch(index)
        plain = x.clone() if self._compared > 0 else x
        x = made(x)
        if self._watched and _global_state() != before:
            self._warn("draws from a global generator of torch, numpy or Python")
        elif self._compared > 0:
            self._compared -= len(x)
            if not torch.allclose(x, made(plain), rtol=0, atol=0, equal_nan=True):
                self._warn("returns other samples when it is called again with equal arguments")
        return x, self.data.condition(index)

    def _warn(self, what: str) -> None:
        """Warn once that the augmentation is no function of its arguments."""
        self._watched, self._compared = False, 0
        warnings.warn(
            f"the augmentation {what}, so a resumed run, or a run with another number of workers, "
            "learns other samples; draw from its second argument, as in "
            "torch.rand((), generator=generator), or seed a generator of numpy by "
            "np.random.default_rng(generator.initial_seed())",
            UserWarning,
            stacklevel=outside(),
        )

    def since(self, step: int) -> Generator[Batch]:
        """Yield the batches of `step` and all later steps.

        Raises:
            DataError: A sample cannot be read; the message names it.
            InvalidTypeError: The data or the augmentation cannot be sent to a worker. This can
                happen where workers are started by "spawn" and not by "fork".
            TrainingError: Workers die more than 3 times within 1,000 batches.
        """
        if self.config.compute.workers == 0:
            yield from map(self.at, range(step, self.config.steps))
            return
        deaths: list[int] = []
        while step < self.config.steps:
            try:
                for batch in self._by_workers(step):
                    yield batch
                    step += 1
            except (RuntimeError, OSError, EOFError) as error:
                if not _is_death(error):
                    raise
                deaths = [*(k for k in deaths if k > step - _WITHIN), step]
                message = f"a worker that makes batches died before step {step} ({error})"
                if len(deaths) > _DEATHS:
                    raise TrainingError(
                        f"{message}, the {len(deaths)}th within {_WITHIN} steps; is there enough "
                        f"memory, and shared memory in /dev/shm{_spawned()}? workers=0 needs no "
                        "worker process"
                    ) from error
                warnings.warn(f"{message}; it is replaced", RuntimeWarning, stacklevel=outside())

    def _by_workers(self, step: int) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            _Steps(self),
            batch_size=None,
            sampler=range(step, self.config.steps),
            num_workers=self.config.compute.workers,
            collate_fn=_unchanged,
            worker_init_fn=_ignore_signals,
            generator=torch.Generator(),  # torch's global one belongs to the user
        )
        with _without_child_signals():
            try:
                made = iter(loader)
            except (AttributeError, TypeError, pickle.PicklingError) as error:
                raise InvalidTypeError(
                    f"the data or the augmentation cannot be sent to a worker ({error}); define "
                    "functions and classes at the top of a module, or take workers=0"
                ) from error
        for batch in made:
            if isinstance(batch, Exception):
                raise batch
            yield batch


def _global_state() -> tuple[object, ...]:
    """Return the states of the global generators; a draw from one of them changes them."""
    torch_state = torch.default_generator.get_state().numpy().tobytes()
    numpy_state: Any = np.random.get_state(legacy=True)  # noqa: NPY002 (it is read alone)
    return torch_state, numpy_state[1].tobytes(), numpy_state[2:], random.getstate()


def there(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copy CPU tensors to a device in one asynchronous transfer."""
    if device.type == "cpu":
        return list(tensors)
    sizes = [-(-t.nbytes // _ALIGNED) * _ALIGNED for t in tensors]
    starts = [0, *itertools.accumulate(sizes)]
    packed = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    places = [slice(i, i + t.nbytes) for i, t in zip(starts, tensors, strict=False)]
    for t, place in zip(tensors, places, strict=True):
        packed[place] = t.reshape(-1).view(torch.uint8)
    moved = packed.to(device, non_blocking=True)
    return [moved[p].view(t.dtype).reshape(t.shape) for t, p in zip(tensors, places, strict=True)]


class _Steps(Dataset[Any]):
    """Return the batch of a step, or its error, since a loader would wrap a raised error."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> Batch | ScoreSDEError:
        try:
            return self.batches.at(step)
        except ScoreSDEError as error:
            return error


def _is_death(error: Exception) -> bool:
    """Return True if an error means that a worker died, False if the worker raised it.

    A batch in the queue is read from the process that made it, so a connection error means that
    this worker has died.
    """
    if isinstance(error, (ConnectionError, EOFError, FileNotFoundError)):
        return "in DataLoader worker" not in str(error)
    return "DataLoader worker (pid" in str(error) and not isinstance(error, ScoreSDEError)


def _spawned() -> str:
    """Return a further condition for workers that import the program again, for a message."""
    if multiprocessing.get_start_method() == "fork":
        return ""
    return ', and does the program train below `if __name__ == "__main__":`'


def _unchanged(batch: Any) -> Any:
    return batch


def _ignore_signals(_: int) -> None:
    """Ignore SIGINT and SIGHUP, which a terminal also sends to workers; the parent ends them."""
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextmanager
def _without_child_signals() -> Iterator[None]:
    """Prevent a loader that starts in the block from installing torch's handler for SIGCHLD.

    The handler raises an error as soon as a worker dies, perhaps in the middle of an update, when
    the weights have changed and the averages have not. Without the handler the error is raised when
    the loop waits for the batch.
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

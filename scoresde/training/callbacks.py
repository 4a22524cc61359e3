"""Call loggers, pictures and a user's own code while a model trains.

A callback receives the numbers of the log and copies of the averaged model, and cannot change the
run.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from scoresde.checks import outside
from scoresde.data import Data
from scoresde.training.config import TrainConfig

__all__ = ["Callback", "Callbacks"]


class Callback:
    """Define the methods that a run calls; each does nothing until a subclass overrides it.

    All arguments, including the model, are copies. A callback that raises an error is removed with
    a warning, and the run continues without it. A KeyboardInterrupt ends the run. If it is raised
    by `on_log` or `on_checkpoint` in a run of one process, a checkpoint is written first.
    """

    def on_data(self, data: Data) -> None:
        """Receive the held-out data before training, or the training data if none are held out."""

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Prepare for training, which begins with update number `step`, counted from 0."""

    def on_log(self, row: Mapping[str, float]) -> None:
        """Receive a row of the log: `step`, `loss`, `grad_norm`, `lr`, `seconds` and others."""

    def on_checkpoint(self, step: int, model: nn.Module) -> None:
        """Receive the model with averaged weights at a checkpoint after `step` steps.

        The files of the checkpoint are complete only at the last checkpoint of a training; before,
        they are written at the same time.
        """

    def on_end(self, step: int) -> None:
        """Close files and connections after `step` steps, even of a run that fails."""


class Callbacks(Callback):
    """Call several callbacks; an error of one does not stop the run or the other callbacks.

    Args:
        members: The callbacks, in the order of the calls.
    """

    def __init__(self, members: Iterable[Callback]) -> None:
        self.members = list(members)

    def on_data(self, data: Data) -> None:
        """Call every member's `on_data`."""
        self._call("on_data", data)

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Call every member's `on_start`."""
        self._call("on_start", step, config)

    def on_log(self, row: Mapping[str, float]) -> None:
        """Call every member's `on_log`."""
        self._call("on_log", row)

    def on_checkpoint(self, step: int, model: nn.Module) -> None:
        """Call every member's `on_checkpoint`."""
        self._call("on_checkpoint", step, model)

    def on_end(self, step: int) -> None:
        """Call every member's `on_end`."""
        self._call("on_end", step)

    @contextlib.contextmanager
    def watching(self, step: Callable[[], int], config: TrainConfig) -> Iterator[None]:
        """Call `on_start`, and after the block `on_end`; `step` returns the steps so far."""
        self.on_start(step(), config)
        try:
            yield
        finally:
            self.on_end(step())

    def _call(self, event: str, *given: Any) -> None:
        for member in tuple(self.members):
            method = getattr(member, event)
            if getattr(method, "__func__", None) is getattr(Callback, event):
                continue  # not overridden, so no copy is made
            try:
                method(*copy.deepcopy(given))
            except Exception as error:
                self.members.remove(member)
                warnings.warn(
                    f"{type(member).__name__}.{event} failed with {type(error).__name__}: {error}; "
                    "the run continues without it",
                    RuntimeWarning,
                    stacklevel=outside(),
                )

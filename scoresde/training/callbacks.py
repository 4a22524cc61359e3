"""What may look at a run while it goes: loggers, pictures, and whatever a user adds.

A callback sees numbers and the averaged model; the run itself depends on none of them.
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
    """Inherit, and override what is of interest: here every method does nothing.

    What it is given is a copy, the model too. One that raises an error is dropped with a warning,
    and the run goes on without it. To end the run, with a checkpoint, raise KeyboardInterrupt.
    """

    def on_data(self, data: Data) -> None:
        """Hear, once, what is learnt; where some of it is held out, that part."""

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Training is about to make update number `step`, counted from 0."""

    def on_log(self, row: Mapping[str, float]) -> None:
        """Look at the loss: `step`, `loss`, `grad_norm`, `lr`, `seconds`; maybe `held_out`."""

    def on_checkpoint(self, step: int, model: nn.Module) -> None:
        """Hear of a checkpoint after `step` updates; `model` has the averaged weights."""

    def on_end(self, step: int) -> None:
        """Training ends after `step` updates, whatever the reason."""


class Callbacks(Callback):
    """Call several as one: what one of them does wrong harms neither the run nor the others.

    Args:
        members: Called in this order.
    """

    def __init__(self, members: Iterable[Callback]) -> None:
        self.members = list(members)

    def on_data(self, data: Data) -> None:
        """Pass it on."""
        self._tell("on_data", data)

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Pass it on."""
        self._tell("on_start", step, config)

    def on_log(self, row: Mapping[str, float]) -> None:
        """Pass it on."""
        self._tell("on_log", row)

    def on_checkpoint(self, step: int, model: nn.Module) -> None:
        """Pass it on."""
        self._tell("on_checkpoint", step, model)

    def on_end(self, step: int) -> None:
        """Pass it on."""
        self._tell("on_end", step)

    @contextlib.contextmanager
    def watching(self, step: Callable[[], int], config: TrainConfig) -> Iterator[None]:
        """Tell of the start and, after the block, of the end; `step` counts the updates."""
        self.on_start(step(), config)
        try:
            yield
        finally:
            self.on_end(step())

    def _tell(self, event: str, *what: Any) -> None:
        for member in tuple(self.members):
            look = getattr(member, event)
            if getattr(look, "__func__", None) is getattr(Callback, event):
                continue  # which does nothing
            try:
                look(*copy.deepcopy(what))  # that it may change
            except Exception as error:
                self.members.remove(member)
                warnings.warn(
                    f"{type(member).__name__}.{event} failed with {type(error).__name__}: {error}; "
                    "the run goes on without it",
                    RuntimeWarning,
                    stacklevel=outside(),
                )

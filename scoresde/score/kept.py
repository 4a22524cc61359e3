"""Keep the pilot of a model, which the user set or which was measured at its first use.

A measured pilot is valid for the weights at the time of the measurement. If the weights have
changed, the pilot is measured again. A pilot depends only on the model, so samples do not depend on
which call measured it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.checks import checksum, version
from scoresde.locks import ThreadLock
from scoresde.score.pilot import Pilot
from scoresde.score.precise import Precise
from scoresde.sde import SDE

__all__ = ["Piloted"]

# One measurement at a time: a second thread waits for the result of the first.
_alone = ThreadLock()
# types of attributes on which the score may depend, and names of attributes on which it does not
_PLAIN = (bool, int, float, str, torch.dtype, SDE)
_APART = {"training", "pilot_seconds", "steps"}


class Piloted(Precise):
    """Define the base class of modules that keep a pilot."""

    keeper: Callable[[Any], object] | None = None
    """A function that is called with the module after each measurement, such as to write a file."""
    pilot_seconds = 0.0
    """The seconds that all measurements so far took."""

    def __init__(self) -> None:
        super().__init__()
        self._kept = _Kept()

    @property
    def pilot(self) -> Pilot | None:
        """Return the pilot that was set, or that was measured with the current weights, or None."""
        kept = self._kept
        current = kept.weights is None or kept.fits(_weights(self))
        return kept.pilot if current else None

    @pilot.setter
    def pilot(self, pilot: Pilot | None) -> None:
        self._kept = _Kept(pilot, given=pilot is not None)

    @property
    def given_pilot(self) -> Pilot | None:
        """Return the pilot that the user set, or that is in the model's own file, or None."""
        return self.pilot if self._kept.given else None

    def recall_pilot(self, pilot: Pilot, *, given: bool = False) -> None:
        """Store a pilot that was measured earlier with the current weights.

        Args:
            pilot: The pilot.
            given: The pilot is a part of the model's file.
        """
        self._kept = _Kept(pilot, weights=_numbers(_weights(self)), given=given)

    def measured_pilot(
        self, progress: bool | None = None, steps: int | None = None
    ) -> Pilot | None:
        """Return the pilot; measure it if there is none, by 64 evaluations of 32 samples.

        The pilot is kept until the weights change, and saved with the model. The pilot run takes
        all classes in turn, and draws other conditions from a normal distribution with their mean
        and standard deviation.

        Args:
            progress: Show a progress bar, as `sample` does.
            steps: A number of steps for which the settings of "fast" are chosen too, with at most
                192 further evaluations of the same samples.

        Returns:
            The pilot; None if it cannot be measured, as with fewer than 6 levels.
        """
        # imported here, since sampling is a higher layer
        model_pilot: Any = import_module("scoresde.sampling.model_pilot")
        with _alone():
            start, before = time.perf_counter(), self._kept.pilot
            if self.pilot is None and not self._kept.fits(weights := _weights(self)):
                pilot, states = model_pilot.pilot_of_model(self, progress)
                self._kept = _Kept(pilot, states, weights, _weights(self))
            kept = self._kept
            if kept.pilot is not None and model_pilot.lacks_setting(kept.pilot, steps):
                kept.pilot, kept.states = model_pilot.with_setting(
                    self, kept.pilot, kept.states, steps, progress
                )
            if kept.pilot is not before:
                self.pilot_seconds += time.perf_counter() - start
                if self.keeper is not None:
                    self.keeper(self)
            return kept.pilot


class _Kept:
    """Hold a pilot, and the weights with which it was measured.

    Args:
        pilot: The pilot.
        states: The states of the pilot run, or None.
        weights: The weights before the measurement; None for a pilot that the user set.
        after: The weights after the measurement. An attribute that the measurement itself changed,
            such as a count of calls, is not compared.
        given: The user set the pilot, or it was in the model's file.
    """

    def __init__(
        self,
        pilot: Pilot | None = None,
        states: Any = None,
        weights: Any = None,
        after: Any = None,
        given: bool = False,
    ) -> None:
        self.pilot = pilot
        self.states = states
        self.weights = weights
        self.given = given
        old, new = (weights[0], after[0]) if after else ({}, {})
        self._counts = {key for key in old | new if old.get(key) != new.get(key)}

    def fits(self, weights: Any) -> bool:
        """Return True if the pilot was measured with these weights."""
        if self.weights is None:
            return False
        if self.weights[-1] is None:
            weights = _numbers(weights)
        return bool(self._compared(self.weights) == self._compared(weights))

    def _compared(self, weights: Any) -> Any:
        plain = {key: value for key, value in weights[0].items() if key not in self._counts}
        return plain, weights[1:]

    def __reduce__(self) -> tuple[type[_Kept], tuple[Any, ...]]:
        # a copy of the module has other tensors with the same numbers
        weights = None if self.weights is None else _numbers(self.weights)
        return _Kept, (self.pilot, None, weights, None, self.given)


def _weights(module: nn.Module) -> tuple[Any, ...]:
    """Return values that change if the weights or settings of a module change.

    For each tensor these are its identity, its version counter, and a checksum of its numbers in
    float32, since the counter does not count changes through `.data`. For each layer these are its
    hooks, and those attributes that are numbers, strings or SDEs.
    """
    layers = enumerate(module.modules())
    plain = {(i, k): v for i, part in layers for k, v in _plain(part).items()}
    tensors = [*module.parameters(), *module.buffers()]
    sums: dict[torch.device, list[Tensor]] = {}
    for x in tensors:
        if x.is_floating_point() and x.numel() and not x.is_meta:
            sums.setdefault(x.device, []).append(checksum(x.detach().float()))
    changes = [(id(x), version(x)) for x in tensors]
    return plain, [torch.stack(parts).tolist() for parts in sums.values()], changes


def _numbers(weights: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return weights to compare by their numbers alone, as in a copy or on another device.

    Hooks and attributes such as `autocast` and counts of calls are not compared.
    """
    plain, sums, _ = weights
    return {key: v for key, v in plain.items() if isinstance(v, SDE | str)}, sums, None


def _plain(module: nn.Module) -> dict[str, object]:
    own = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, _PLAIN) and name not in _APART and not name.startswith("_")
    }
    return own | {"_hooks": [*module._forward_hooks, *module._forward_pre_hooks]}

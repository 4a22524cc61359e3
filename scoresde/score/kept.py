"""Keep the pilot of a model, which the user set or which was measured at its first use.

A measured pilot is valid for the weights and settings at the time of the measurement. If they have
changed, the pilot is measured again; one that the user set is kept. A pilot depends only on the
model, so samples do not depend on which call measured it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
# (a score is evaluated in evaluation mode)
_PLAIN = (bool, int, float, str, torch.dtype, SDE)
_APART = {"training", "pilot_seconds", "steps"}


class Piloted(Precise):
    """Define the base class of modules that keep a pilot."""

    keeper: Callable[[Any], object] | None = None
    """A function that is called with the module after each measurement of a pilot, for example to
    write a file."""
    pilot_seconds = 0.0
    """The seconds that all measurements of a pilot took so far."""

    def __init__(self) -> None:
        super().__init__()
        self._kept = _Kept()

    @property
    def pilot(self) -> Pilot | None:
        """Return the pilot that was set, or that was measured with the current weights, or None."""
        kept = self._kept
        current = kept.weights is None or kept.fits(_Weights.of(self))
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
        self._kept = _Kept(pilot, _Weights.of(self).numbers(), given)

    def measured_pilot(
        self, progress: bool | None = None, steps: int | None = None
    ) -> Pilot | None:
        """Return the pilot; measure it if there is none, by 64 evaluations of 32 samples.

        The pilot is kept until weights or settings change, and saved with the model. The pilot run
        takes all classes in turn, and draws other conditions from a normal distribution with their
        mean and standard deviation.

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
            if self.pilot is None and not self._kept.fits(weights := _Weights.of(self)):
                pilot, states = model_pilot.pilot_of_model(self, progress)
                self._kept = _Kept(pilot, weights.kept_by(_Weights.of(self)), states=states)
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


@dataclass
class _Kept:
    """Hold a pilot, and the weights with which it was measured.

    Args:
        pilot: The pilot.
        weights: The weights; None for a pilot that the user set.
        given: The user set the pilot, or it was in the model's file.
        states: The states of the pilot run, or None.
    """

    pilot: Pilot | None = None
    weights: _Weights | None = None
    given: bool = False
    states: Any = None

    def fits(self, now: _Weights) -> bool:
        """Return True if the pilot was measured with these weights."""
        return self.weights is not None and self.weights.fits(now)

    def __reduce__(self) -> tuple[type[_Kept], tuple[Any, ...]]:
        # a copy of the module has other tensors with the same numbers
        weights = None if self.weights is None else self.weights.numbers()
        return _Kept, (self.pilot, weights, self.given)


@dataclass(frozen=True)
class _Weights:
    """Hold values that change if the weights or settings of a module change.

    Args:
        plain: For each layer its hooks, and its public attributes that are numbers, strings, dtypes
            or SDEs.
        sums: For each device the checksums of its floating-point tensors in float32, since the
            version counter does not count changes through `.data`.
        changes: The identity and the version counter of each tensor, or None for a
            comparison without them, as with a copy.
        ignored: The attributes that are not compared.
    """

    plain: Mapping[tuple[int, str], object]
    sums: list[Any]
    changes: list[tuple[int, int]] | None
    ignored: frozenset[tuple[int, str]] = frozenset()

    @classmethod
    def of(cls, module: nn.Module) -> _Weights:
        """Return the weights of a module."""
        layers = enumerate(module.modules())
        plain = {(i, k): v for i, part in layers for k, v in _plain(part).items()}
        tensors = [*module.parameters(), *module.buffers()]
        sums: dict[torch.device, list[Tensor]] = {}
        for x in tensors:
            if x.is_floating_point() and x.numel() and not x.is_meta:
                sums.setdefault(x.device, []).append(checksum(x.detach().float()))
        changes = [(id(x), version(x)) for x in tensors]
        return cls(plain, [torch.stack(parts).tolist() for parts in sums.values()], changes)

    def numbers(self) -> _Weights:
        """Return the checksums, SDEs and strings, by which a copy of the module is compared.

        Hooks and other attributes, such as `autocast` and counts of calls, are left out.
        """
        plain = {key: v for key, v in self.plain.items() if isinstance(v, SDE | str)}
        return _Weights(plain, self.sums, None)

    def kept_by(self, later: _Weights) -> _Weights:
        """Return these weights, to be compared without the attributes that differ in `later`.

        The measurement itself may have changed these attributes, such as a count of calls.
        """
        old, new = self.plain, later.plain
        ignored = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        return replace(self, ignored=frozenset(ignored))

    def fits(self, now: _Weights) -> bool:
        """Return True if the weights are the same now."""
        now = now.numbers() if self.changes is None else now
        mine, theirs = (
            {key: v for key, v in one.plain.items() if key not in self.ignored}
            for one in (self, now)
        )
        return bool(mine == theirs and self.sums == now.sums and self.changes == now.changes)


def _plain(module: nn.Module) -> dict[str, object]:
    own = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, _PLAIN) and name not in _APART and not name.startswith("_")
    }
    return own | {"_hooks": [*module._forward_hooks, *module._forward_pre_hooks]}

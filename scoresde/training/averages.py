"""Keep averages of a model's weights during training, and write snapshots of them."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from torch import Tensor, nn

from scoresde import distributed
from scoresde.checks import outside
from scoresde.ema import EMA, Average, PowerEMA, save_snapshot, snapshots_in
from scoresde.errors import CheckpointError
from scoresde.training.config import TrainConfig
from scoresde.training.shard import shard, whole

__all__ = ["AveragedWeights"]

AverageT = TypeVar("AverageT", bound="Average[nn.Module]")


class AveragedWeights:
    """Keep the averages of the weights that a configuration names.

    Args:
        model: The model whose weights are averaged.
        config: The configuration of the run; its part `averages` lists the averages.
        folder: The folder of the run; without it there are no snapshots.
        identity: The properties of the run that must not change, by name. Together with the seed
            they identify the run in its snapshots.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        folder: Path | None,
        identity: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.config = config
        known = json.dumps([config.seed, dict(identity)], sort_keys=True)
        self._run = hashlib.sha256(known.encode()).hexdigest()[:16]
        self.folder = folder
        self._decays = [EMA(model, decay) for decay in config.averages.decays]
        self._powers = [PowerEMA(model, sigma) for sigma in config.averages.ema_sigma]
        self._template: nn.Module | None = None
        if config.compute.shard and distributed.size() > 1:
            self._template = copy.deepcopy(model).cpu()

    @property
    def _all(self) -> list[Average[nn.Module]]:
        return [*self._decays, *self._powers]

    def divide(self, model: nn.Module) -> None:
        """Divide `model` and every average among the processes if `config.compute.shard` is set."""
        if self._template is not None:
            shard(model, *(average.model for average in self._all))
            for average in self._all:
                average.follow(model)

    def whole(self) -> AveragedWeights:
        """Return the averages with whole tensors; all processes must call this at the same time."""
        if self._template is None:
            return self
        found = copy.copy(self)
        found._decays = [_gathered(average, self._template) for average in self._decays]
        found._powers = [_gathered(average, self._template) for average in self._powers]
        return found

    @property
    def model(self) -> nn.Module:
        """Return the result of the run: the average with the first decay, in eval mode."""
        return self._decays[0].model

    @property
    def results(self) -> dict[str, Average[nn.Module]]:
        """Return the exponential averages by folder, relative to the run's folder.

        The first average is the result of the run, and its folder is "".
        """
        first, *others = self._decays
        named = zip(self.config.averages.decays[1:], others, strict=True)
        return {"": first, **{f"ema-{decay}": average for decay, average in named}}

    def update(self, model: nn.Module) -> None:
        """Update every average with the current weights of `model`."""
        for average in self._all:
            average.update(model)

    def start(self, step: int) -> None:
        """Remove the snapshots of steps after `step`, since the run will write them again."""
        if self.folder is not None:
            for snapshot in snapshots_in(self.folder):
                if snapshot.step > step:
                    with contextlib.suppress(OSError):  # it will be replaced
                        snapshot.path.unlink()

    def due(self, step: int) -> bool:
        """Return True if a snapshot is to be written after `step` steps."""
        if self.folder is None or not self._powers:
            return False
        return step % self.config.averages.snapshot_every == 0 or step == self.config.steps

    def snapshot(self) -> None:
        """Write a snapshot of every power-function average, for `scoresde.ema.reconstruct`.

        Warns:
            RuntimeWarning: A snapshot cannot be written. A reconstruction can use the others.
        """
        assert self.folder is not None
        try:
            for average in self._powers:
                half = self.config.averages.snapshot_half
                save_snapshot(self.folder, average, half=half, run=self._run)
        except CheckpointError as error:
            warnings.warn(
                f"{error}; training continues without this snapshot",
                RuntimeWarning,
                stacklevel=outside(),
            )

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors of all averages by name.

        The averages are numbered from 0. The name of each tensor is preceded by the number of its
        average, as in `1.weight`, except for average 0.
        """
        return {
            f"{i}.{name}" if i else name: value
            for i, average in enumerate(self._all)
            for name, value in average.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state_dict` returned.

        Raises:
            CheckpointError: `state` was returned for other averages.
        """
        parts: list[dict[str, Tensor]] = [{} for _ in self._all]
        for name, value in state.items():
            number, _, rest = name.partition(".")
            i, key = (int(number), rest) if number.isdecimal() else (0, name)
            if i >= len(parts):
                raise CheckpointError(
                    f"{len(parts)} averages are configured, but the checkpoint has {name!r}"
                )
            parts[i][key] = value
        for average, part in zip(self._all, parts, strict=True):
            average.load_state_dict(part)


def _gathered(average: AverageT, template: nn.Module) -> AverageT:
    """Return a copy of a divided average with whole tensors."""
    found = copy.copy(average)
    found.model = copy.deepcopy(template).eval().requires_grad_(False)
    found.follow(template)
    found.load_state_dict(whole(average.state_dict()))
    return found

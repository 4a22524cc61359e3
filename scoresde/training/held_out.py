"""Measure the loss of held-out data during a run, to find the best checkpoint and stop early."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoresde import distributed
from scoresde.checks import outside
from scoresde.data import Data
from scoresde.errors import CheckpointError
from scoresde.noise import Noise
from scoresde.objectives import passing
from scoresde.score import device_of, evaluating
from scoresde.sde import SDE
from scoresde.training.averages import AveragedWeights
from scoresde.training.config import TrainConfig
from scoresde.training.update import Loss, checked, seeds_of_step

__all__ = ["HeldOut"]

_STEP = 2**64 - 1  # held-out data get the noise of this step, which no run reaches
# The largest number of measurements in a run; the share of the run's time that the measurements may
# take; the cost of a loss without gradient, divided by the cost with gradient.
_MEASUREMENTS, _SHARE, _FORWARD = 20, 0.05, 1 / 3


class HeldOut:
    """Measure the loss of held-out data, and record the best checkpoint.

    Args:
        data: The held-out data.
        sde: The process.
        loss: The training loss.
        config: The configuration of the run.

    Attributes:
        data: The held-out data, for `scoresde.metrics.evaluate(samples, trainer.held_out.data)`,
            for example.
        best: The lowest loss at a checkpoint so far.
        at: The step of that checkpoint; None if no checkpoint had a finite loss so far.
        waited: The number of checkpoints since `at`.
        quarters: The last measured loss of each quarter of the samples, sorted by noise, under the
            names in the log: `held_out_1` for the least noise to `held_out_4`. It is empty if there
            are fewer than four samples, or if the loss does not use one time per sample.
        excess: For a checkpoint that is not the best, under the name `held_out_excess` in the log:
            the loss minus that of the best checkpoint, less twice its standard error over the
            samples. If it is positive, the best checkpoint is better than chance explains. It is
            empty if the best checkpoint was made before the run was resumed.
    """

    def __init__(self, data: Data, sde: SDE, loss: Loss, config: TrainConfig) -> None:
        self.data = data
        self.sde = sde
        self.config = config
        self.best = math.inf
        self.at: int | None = None
        self.waited = 0
        self.quarters: dict[str, float] = {}
        self.excess: dict[str, float] = {}
        self._losses = self._lowest = torch.zeros(0)  # of each sample: the last and the best
        self._loss = loss
        cost = _FORWARD * len(data) / config.batch_size
        every, line = max(config.steps / _MEASUREMENTS, cost / _SHARE), config.keeping.log_every
        self._every = line * math.ceil(every / line)

    def __repr__(self) -> str:
        best = "not measured yet" if self.at is None else f"best {self.best:.4g} at step {self.at}"
        return f"HeldOut({len(self.data)} samples in .data, {best})"

    @property
    def stopped(self) -> bool:
        """Return True if the last `patience` checkpoints did not lower the loss."""
        patience = self.config.keeping.patience
        return patience is not None and self.waited >= patience

    def loss_if_due(self, step: int, ema: AveragedWeights, *, due: bool, end: bool) -> float | None:
        """Return the loss after `step` steps, or None at steps without a measurement.

        Args:
            step: Steps so far.
            ema: The averages of the weights.
            due: True if a checkpoint is made at this step.
            end: True if this step is the last step.
        """
        if due:
            return self.loss_of_checkpoint(step, ema.whole().model)
        return self.loss(ema.whole().model) if end or not step % self._every else None

    def loss_of_checkpoint(self, step: int, model: nn.Module) -> float:
        """Return the loss of a checkpoint, and record the checkpoint if its loss is the lowest.

        Warns:
            RuntimeWarning: The loss is not finite, so the checkpoint cannot be the best one.
        """
        loss = self.loss(model)
        if not math.isfinite(loss):
            warnings.warn(
                f"after {step} steps the loss of the held-out data is {loss}, so this checkpoint "
                "cannot be the best; check the held-out data and the loss function",
                RuntimeWarning,
                stacklevel=outside(),
            )
        if loss < self.best:
            self.best, self.at, self.waited = loss, step, 0
            self._lowest = self._losses
        else:
            self.waited += 1
            if len(self._lowest) > 1:
                above = self._losses - self._lowest
                error = float(above.std()) / math.sqrt(len(above))
                self.excess = {"held_out_excess": float(above.mean()) - 2 * error}
        return loss

    @torch.no_grad()
    def loss(self, model: nn.Module) -> float:
        """Return the mean loss of the data per entry of the event, with fixed noise.

        If there are several processes, each computes the losses of its own batches.
        """
        size, device = self.config.batch_size, device_of(model)
        (seed,) = seeds_of_step(self.config.seed, _STEP, 1)
        starts = range(0, len(self.data), size)[distributed.rank() :: distributed.size()]

        def local_rows() -> Tensor:
            """Return losses and times of this process's samples, and zeros for all others."""
            found = torch.zeros(2, len(self.data), dtype=torch.float64)
            for first in starts:
                rows = slice(first, min(first + size, len(self.data)))
                x = self.data.batch(rows).to(device)
                known = self.data.condition(rows)
                condition = None if known is None else known.to(device)
                noise = Noise.of(seed, len(x), first=first)
                with _times(model) as times:
                    losses = self._loss(model, self.sde, x, noise=noise, condition=condition)
                found[0, rows] = checked(losses, x).cpu().double()
                found[1, rows] = times[0] if times and len(times[0]) == len(x) else math.nan
            return found

        with evaluating((model, self._loss)), passing():
            rows = distributed.size() * distributed.mean(distributed.together(local_rows))
        losses, times = rows
        losses = losses / math.prod(self.data.event_shape)
        self._losses = losses
        self.quarters, self.excess = {}, {}
        if len(losses) >= 4 and times.isfinite().all():
            # the noise increases with time
            parts = losses[times.argsort(stable=True)].tensor_split(4)
            self.quarters = {f"held_out_{i}": float(x.mean()) for i, x in enumerate(parts, 1)}
        return float(losses.mean())

    def as_json(self) -> dict[str, Any]:
        """Return `best`, `at` and `waited` for a checkpoint."""
        return {"best": self.best if self.at else None, "at": self.at, "waited": self.waited}

    def load(self, stored: Mapping[str, Any]) -> None:
        """Load what `as_json` returned.

        Raises:
            CheckpointError: `stored` is not a result of `as_json`.
        """
        try:
            best, at, waited = (stored[name] for name in ("best", "at", "waited"))
            self.best = math.inf if best is None else float(best)
            self.at, self.waited = None if at is None else int(at), int(waited)
        except (LookupError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the record of the held-out loss in a checkpoint, {str(stored)[:100]!r}, was not "
                "written by a run; take another folder"
            ) from error


@contextlib.contextmanager
def _times(model: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list to which the times that the model receives in the block are added."""
    found: list[Tensor] = []

    def record(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        t = args[1] if len(args) > 1 else named.get("t")
        if isinstance(t, Tensor) and t.ndim == 1:
            found.append(t.detach().cpu().double())

    hook = model.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield found
    finally:
        hook.remove()

r"""The training loop: everything around the loss, and none of its mathematics.

All randomness of step k is a function of (seed, k) alone, so that a run that was killed and taken
up again ends in the same weights, bit for bit, as one that never was (on the CPU, at one number of
threads).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from scoresde import checkpoint, distributed
from scoresde.checks import check_integer
from scoresde.data import Data, Identity, load
from scoresde.data.augment import Augment
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.pretrained.store import net_config
from scoresde.score import ScoreModel
from scoresde.training.averages import Averages
from scoresde.training.batches import Batches
from scoresde.training.callbacks import Callback, Callbacks
from scoresde.training.config import TrainConfig
from scoresde.training.guard import Guard
from scoresde.training.keep import Keeper
from scoresde.training.log import JSONLines
from scoresde.training.network import laid_out, training
from scoresde.training.state import identity, pack, unpack
from scoresde.training.stop import Stop
from scoresde.training.update import Update

__all__ = ["Trainer"]


class Trainer:
    """Trains a score model by denoising score matching, with Adam and an average of the weights.

    With a `folder`, the run can be ended at any moment: a trainer made with the same arguments
    goes on from the last checkpoint. The folder holds

    - `step-*.safetensors`: the last checkpoints, with all that is needed to go on;
    - `model.safetensors` and `config.json`: the averaged model, as `ScoreModel.save_pretrained`
      writes it;
    - `ema-*/`: the same for every further decay of `config.ema`;
    - `ema/`: snapshots of the averages of `config.ema_sigma`, for `scoresde.ema.reconstruct`;
    - `log.jsonl`: one line every `log_every` steps, with the mean loss since the line before;
    - `.lock`: nothing; it keeps other processes out while this one trains.

    Args:
        model: Trained in place; it is told the data's transform, where they declare one, and loses
            its pilot, which was measured with other weights.
        data: What to learn, or what `scoresde.data.load` makes it of. Labels, where there are
            any, are given to the network as `label`; a hidden one is `data.classes`.
        config: The numbers of the run.
        folder: Where the run is kept; nothing is kept without it.
        augment: A function `(x, generator) -> x` of one sample, applied after the augmentations of
            the configuration; it draws from nothing but the generator.
        callbacks: What looks on, beside the log.

    Attributes:
        step: Updates so far.
        ema: The averages of the weights; `ema.model` is the result.

    Raises:
        ShapeError: The data's events have another shape than the model's.
        DataError: Their numbers are beyond what a model can have.
        InvalidTypeError: The model is no `ScoreModel`, or the configuration no `TrainConfig`; or
            the folder cannot hold the model, whose SDE has fields that are no JSON.
        InvalidValueError: The folder holds a run of another configuration, model or data set; or
            all weights of the model are frozen, as those of a model that `train` returned.
        CheckpointError: The folder holds checkpoints, and all are damaged, or a model and none; or
            another process trains in it.

    Within `scoresde.distributed.group()` the processes that `torchrun` started train together:
    each on its rows of every batch, all with the same weights. Process 0 writes, prints, and calls
    the callbacks.
    """

    def __init__(
        self,
        model: ScoreModel,
        data: Data | Tensor | str | Path,
        config: TrainConfig | None = None,
        *,
        folder: str | Path | None = None,
        callbacks: Sequence[Callback] = (),
        augment: Augment | None = None,
    ) -> None:
        self.model = model
        self.data = data if isinstance(data, Data) else load(data)
        self.config = TrainConfig() if config is None else config
        self.folder = None if folder is None else Path(folder)
        _check_kinds(model, self.config)
        _check_fit(model, self.data)
        own = identity(model, self.data)
        distributed.check_same({**self.config.as_json(), **own})
        distributed.align(laid_out(model, self.config))
        self.step = 0
        if self.data.transform != Identity():
            model.transform = self.data.transform
        model.pilot = None  # it was measured with other weights
        self.ema = Averages(model, self.config, self.folder)
        self.ema.share(model)
        self._batches = Batches(self.data, self.config, augment=augment)
        self._update = Update(model, self.config, self.data.classes)
        keeper = None if self.folder is None else Keeper(self.folder, self.config, own)
        self._keeper = keeper
        self._guard = Guard(
            self.config, self._update.describe, lambda: None if keeper is None else keeper.newest
        )
        self.callbacks = Callbacks(callbacks if distributed.is_main() else ())
        if keeper is not None:
            checkpoint.dump(model.description())  # else the first checkpoint would fail
            if distributed.is_main():
                self.callbacks.members.insert(0, JSONLines(keeper.folder / "log.jsonl"))
            self._resume(keeper)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """What moves the weights."""
        return self._update.optimizer

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.config.steps

    def train(self, steps: int | None = None, *, progress: bool | None = None) -> ScoreModel:
        """Train to the end, or for `steps` updates, and return the averaged model.

        The first SIGINT or SIGTERM ends the run after its step and a checkpoint, with a
        KeyboardInterrupt or a SystemExit(143); a second one ends it at once.

        Args:
            steps: How many updates at most, at least 0; None is all that are left.
            progress: Whether to show a bar; None shows it on a terminal.

        Returns:
            The model with the averaged weights, in eval mode and frozen.

        Raises:
            InvalidValueError: `steps` is no integer of at least 0.
            TrainingError: The loss, its gradient or a weight is no longer finite; says where.
            MemoryLimitError: A step does not fit into memory.
            CheckpointError: Two checkpoints in a row could not be written, or the last one; or
                another process trains in the folder.
            PeerError: Another process of the job died.
        """
        if steps is not None:
            check_integer("steps", steps, 0)
        if self._update.begun == self.step:
            raise self._guard.torn(self.step)
        end = self.config.steps if steps is None else min(self.step + steps, self.config.steps)
        recent: list[Tensor] = []
        bar = tqdm(
            total=self.config.steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=not distributed.is_main() or (None if progress is None else not progress),
        )
        with (
            bar,
            Stop() as stop,
            self._alone(),
            training(self.model, self.config),
            self._watched(),
            contextlib.closing(self._batches.since(self.step)) as batches,
        ):
            start = time.perf_counter()
            if self._keeper is not None and self.finished:
                # the run may have been killed between the two files
                keeper, results = self._keeper, self.ema.whole().results
                distributed.on_main(lambda: keeper.complete(self.step, results))
            distributed.on_main(lambda: self.ema.start(self.step))
            while self.step < end:
                batch = next(batches)
                with self._guard.memory(self.step):
                    recent.append(self._update(self.step, batch))
                    self.ema.update(self.model)
                self.step += 1
                bar.update()
                told = stop.agreed()  # asked once: a signal may come while this step is saved
                last = self.step == end or told is not None
                save = last or self.step % self.config.save_every == 0
                snapshot = self.ema.due(self.step)
                if save or snapshot or self.step % self.config.log_every == 0:
                    loss = self._log(recent, time.perf_counter() - start)
                    bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                    recent.clear()
                if snapshot:
                    distributed.on_main(self.ema.whole().snapshot)
                if save:
                    self._save(last=last)
                if told is not None:
                    kept = f"saved in {self.folder}" if self.folder else "not saved"
                    stop.end(f"{told.name} at step {self.step}, {kept}")
        return self.ema.whole().model

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Within the block no other process writes into the folder."""
        if self._keeper is None:
            yield
            return
        lock = self._keeper.lock
        distributed.on_main(lock.take)
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self.callbacks.on_start(self.step, self.config)
        try:
            yield
        finally:
            self.callbacks.on_end(self.step)

    def _log(self, recent: list[Tensor], seconds: float) -> float:
        """Look at the steps since the last look; the mean loss."""
        found = distributed.mean(torch.stack(recent).double().cpu())
        found = self._guard.look(self.step - len(recent), found)
        if not len(found):
            return math.nan  # all were left out: there is no loss to tell
        loss, norm = found.mean(0).tolist()
        line = {
            "step": self.step,
            "loss": loss,
            "grad_norm": norm,
            "lr": self.config.lr_at(self.step - 1),
            "seconds": round(seconds, 3),
        }
        if self.config.on_nan == "skip":
            line["skipped"] = self._guard.skipped
            self._guard.skipped = 0
        self.callbacks.on_log(line)
        return float(loss)

    def _save(self, *, last: bool) -> None:
        keeper = self._keeper
        if keeper is None:
            return
        state = pack(self.model, self.ema, self.optimizer)
        self._guard.check(self.step, state, self.optimizer)
        ema = self.ema.whole()
        if distributed.on_main(lambda: keeper.save(self.step, state, ema.results, last)):
            self.callbacks.on_checkpoint(self.step, ema.model)

    def _resume(self, keeper: Keeper) -> None:
        """Go on from what process 0 finds: what the others see of the folder does not matter."""
        state: dict[str, Tensor] = {}

        def find() -> tuple[str, int] | None:
            found = keeper.resume()
            if found is None:
                return None
            path, tensors, step = found
            state.update(tensors)
            return str(path), step

        found = distributed.on_main(find)
        if found is not None:
            path, self.step = found
            tensors = distributed.shared(state)
            unpack(tensors, self.model, self.ema, self.optimizer, source=path)


def _check_kinds(model: object, config: object) -> None:
    for name, value, kind in (("model", model, ScoreModel), ("config", config, TrainConfig)):
        if not isinstance(value, kind):
            raise InvalidTypeError(f"{name} must be a {kind.__name__}, got {type(value).__name__}")


def _check_fit(model: ScoreModel, data: Data) -> None:
    if data.event_shape != model.event_shape:
        raise ShapeError(
            f"the data's events have shape {data.event_shape}, the model's {model.event_shape}; "
            "build the model with event_shape=data.event_shape"
        )
    data.moments()  # numbers without end would only show in the loss
    known = net_config(model.net) or {}
    if data.label is not None and known.get("num_classes", data.classes) != data.classes:
        raise InvalidValueError(
            f"the data have {data.classes} classes and the network num_classes="
            f"{known['num_classes']}; build it with num_classes={data.classes}, or train on "
            "`data.unlabelled()`"
        )

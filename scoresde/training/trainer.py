r"""Run the training loop: batches, steps, checkpoints and logs for any loss.

All randomness of step k is a function of (seed, k). So a run that was killed and resumed ends in
the same weights, bit for bit, as an uninterrupted run (on the CPU, with the same number of
threads).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from scoresde import checkpoint, distributed
from scoresde.checks import check_integer, door
from scoresde.data import Data, load
from scoresde.data.augment import Augment
from scoresde.errors import DataError
from scoresde.progress import showing
from scoresde.score import ScoreModel
from scoresde.training.averages import AveragedWeights
from scoresde.training.batches import Batches
from scoresde.training.callbacks import Callback, Callbacks
from scoresde.training.config import TrainConfig
from scoresde.training.door import absolute, adopt, check_fit, numbered, process, warn_of_moments
from scoresde.training.guard import Guard
from scoresde.training.held_out import HeldOut
from scoresde.training.keep import Keeper
from scoresde.training.log import History, JSONLines
from scoresde.training.network import laid_out, training
from scoresde.training.notebook import described, live, run_page
from scoresde.training.state import identity, pack, unpack
from scoresde.training.stop import Stop
from scoresde.training.update import Loss, Update, check_loss, default_loss

__all__ = ["Trainer"]

ScoreT = TypeVar("ScoreT", bound=nn.Module)


class Trainer(Generic[ScoreT]):
    """Train a score with any loss by Adam or Muon, and average the weights.

    The trainer makes batches, calls the loss, changes the weights and writes checkpoints. It calls
    `loss(score, sde, x, noise=noise, condition=condition)`, which returns one number per sample.
    Here `sde` is the SDE of the score, and `noise` is a `scoresde.Noise` that depends only on the
    seed, the step and the row of the batch. Bind further options of a loss with
    `functools.partial`: `partial(dsm_loss, weight=min_snr(5), law=LogNormal())`.

    With a `folder`, the run can be interrupted at any moment: a trainer made with the same
    arguments continues from the last checkpoint. The folder holds

    - `step-*.safetensors`: the last checkpoints, with everything that is needed to resume;
    - `model.safetensors` and `config.json`: the averaged model, as `ScoreModel.save_pretrained`
      writes it (not for a score that is not a `ScoreModel`: its average is only returned);
    - `ema-*/`: the averaged models for the second and later decays in `averages.ema`;
    - `best/`: the averaged model at the checkpoint with the lowest held-out loss;
    - `ema/`: snapshots of the averages in `averages.ema_sigma`, for `scoresde.ema.reconstruct`;
    - `log.jsonl`: the mean loss since the previous line, every `log_every` steps and when saving;
    - `.lock`: a lock that keeps other processes from training here until `train` ends.

    Args:
        score: The score, a module whose `facts` have an SDE: a `ScoreModel`, an `EnergyScore`, or
            your own. It is trained in place. A `ScoreModel` receives the transform of the data, and
            loses its pilot, which was measured with other weights.
        data: A `Data`, or an argument of `scoresde.data.load`. Its conditions must have the names
            and kinds that the score takes; a missing label is -1, a missing number is NaN.
        config: The configuration of the run.
        loss: A loss `(score, sde, x, *, noise, condition) -> (B,)`; by default `dsm_loss` with the
            weight `edm` for the variance in the score's moments, or else the data's. Modules in the
            loss, such as `LearnedWeight`, are trained and saved, but not returned by `train`.
        folder: The folder of the run; None writes nothing.
        callbacks: Callbacks, in addition to the log.
        augment: A function `(x, generator) -> x` of one sample, applied after the augmentations of
            the configuration; its randomness must come from the generator.

    Attributes:
        step: The number of steps so far.
        ema: The averages of the weights.
        held_out: The held-out data with the record of their loss, or None.
        history: The log so far; `history.rows` holds its rows.

    Raises:
        ShapeError: The data's events have another shape than the score's.
        DataError: The data's moments overflow.
        InvalidTypeError: The score is not a module, the loss cannot be called as above, the
            configuration is not a `TrainConfig`, or a field of the SDE cannot be written as JSON.
        InvalidValueError: The score has no SDE, takes a condition that the data lack or have in
            another form, or was trained on data in other units; the folder holds a run with another
            configuration, score, loss or data set; or all weights are frozen, as after `train`.
        UnknownNameError: The data have a condition that the score does not take, or lack one that
            is named in `condition_dropout`.
        CheckpointError: All checkpoints in the folder are damaged; the folder holds a model but no
            checkpoint; or another `Trainer`, of this or another process, trains there.

    In `scoresde.distributed.group()` the processes that `torchrun` started train the same weights
    together, each on its own rows of a batch. Process 0 writes, prints, and calls the callbacks.

    Examples:
        >>> from scoresde import VESDE, ScoreModel, nn
        >>> from scoresde.objectives import LearnedWeight, dsm_loss
        >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
        >>> with torch.random.fork_rng():
        ...     model = ScoreModel(nn.MLP(2, hidden=(8,)), VESDE(), (2,))
        >>> config = TrainConfig(steps=3, batch_size=16)
        >>> trainer = Trainer(model, x, config, loss=LearnedWeight(dsm_loss))
        >>> averaged = trainer.train(progress=False)
    """

    @door
    def __init__(
        self,
        score: ScoreT,
        data: Any,
        config: TrainConfig | None = None,
        *,
        loss: Loss | None = None,
        folder: str | Path | None = None,
        callbacks: Sequence[Callback] = (),
        augment: Augment | None = None,
    ) -> None:
        self.score = score
        self.config = TrainConfig() if config is None else config
        self.folder = absolute(folder)
        sde = process(score)
        self.data = numbered(score, data if isinstance(data, Data) else load(data))
        check_fit(score, self.config, self.data)
        self.loss = default_loss(score, self.data) if loss is None else loss
        check_loss(self.loss)
        warn_of_moments(score, self.data)
        known = identity(score, sde, self.loss, self.data, augment)
        distributed.check_same({**self.config.flat(), **known, "folder": folder is not None})
        distributed.align(laid_out(score, self.config))
        self.step = 0
        adopt(score, self.data)
        self.held_out, learnt = cast(HeldOut | None, None), self.data
        if share := self.config.keeping.held_out:
            learnt, apart = self.data.split(share, seed=self.config.seed)
            self.held_out = HeldOut(apart, sde, self.loss, self.config)
        self._batches = Batches(learnt, self.config, augment=augment)
        self.ema = AveragedWeights(score, self.config, self.folder, known)
        self.ema.divide(score)
        self._update = Update(score, sde, self.loss, self.config)
        keeper = None if self.folder is None else Keeper(self.folder, self.config, known)
        self._keeper = keeper
        self._guard = Guard(
            self.config, self._update.describe, lambda: None if keeper is None else keeper.newest
        )
        path = None if keeper is None else keeper.folder / "log.jsonl"
        self.history = History(path)
        logs = [self.history] if path is None else [JSONLines(path), self.history]
        self.callbacks = Callbacks((*logs, *callbacks) if distributed.is_main() else ())
        if keeper is not None:
            if isinstance(score, ScoreModel):
                # raises an error now instead of at a checkpoint
                checkpoint.dump(score.description())
            with keeper.lock.unless_it_fails():
                self._resume(keeper)
            self.history.on_start(self.step, self.config)
        self.callbacks.on_data(self.data if self.held_out is None else self.held_out.data)

    def __repr__(self) -> str:
        held = self.held_out
        apart = "" if held is None else f"; {len(held.data):,} of {len(self.data):,} held out"
        return f"Trainer({described(self.history, self.step, self.config.steps)}{apart})"

    def _repr_html_(self) -> str:
        return run_page(repr(self), self.history)

    @property
    def model(self) -> ScoreT:
        """Return the score with the current averaged weights, in eval mode and frozen."""
        return cast("ScoreT", self.ema.whole().model)

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser, Adam or Muon."""
        return self._update.optimizer

    @property
    def finished(self) -> bool:
        """Return True if all steps are done, or `patience` has stopped the run."""
        return self.step >= self.config.steps or self._stopped

    @property
    def _stopped(self) -> bool:
        return bool(self.held_out and self.held_out.stopped)

    def train(self, steps: int | None = None, *, progress: bool | None = None) -> ScoreT:
        """Make steps, and return the averaged score.

        A checkpoint is copied in memory, and written while the next steps run. After the first
        SIGINT, SIGTERM or SIGHUP the run finishes the current step, writes a checkpoint, and raises
        KeyboardInterrupt or SystemExit(128 + number). A second signal ends it as soon as the files
        being written are complete. If data cannot be read and there is a folder, the last step is
        saved before the error is raised.

        Args:
            steps: The largest number of steps to make, at least 0; None makes all remaining steps.
            progress: True shows a bar, False nothing; None shows a bar in a terminal or a notebook,
                and occasional lines elsewhere.

        Returns:
            The score with the averaged weights, in eval mode and frozen.

        Raises:
            InvalidValueError, InvalidTypeError: An argument is not allowed.
            TrainingError: The loss, its gradient or a weight is not finite, or samples have changed
                since the run began.
            MemoryLimitError: A step does not fit into memory.
            DataError: Samples cannot be read.
            CheckpointError: Two checkpoints in a row, or the last checkpoint, could not be written;
                or another process trains in the folder, or has continued the run.
            PeerError: Another process of the job died.
        """
        count = self.config.steps if steps is None else check_integer("steps", steps, 0)
        distributed.check_same({"steps": count})
        first, end = self.step, min(self.step + count, self.config.steps)
        if self._update.begun == first:
            raise self._guard.torn(first)
        recent, keeping = list[Tensor](), self.config.keeping
        shown = progress if distributed.is_main() else False
        with (
            live(self.callbacks, self.history, self.config.steps, show=shown),
            showing(self.config.steps, "training", done=self.step, show=shown, keep=True) as bar,
            Stop() as stop,
            contextlib.nullcontext() if self._keeper is None else self._keeper.alone(self.step),
            training(self.score, self.config, self._update.beside),
            self.callbacks.watching(lambda: self.step, self.config),
            self._kept(recent),
            contextlib.closing(self._batches.since(self.step)) as batches,
        ):
            self._start = time.perf_counter()
            if self._keeper is not None:
                # the run may have been killed between writing a checkpoint and its models
                keeper, results, held = self._keeper, self.ema.whole().results, self.held_out
                if self.finished:
                    distributed.on_main(lambda: keeper.complete(self.step, results))
                distributed.on_main(lambda: keeper.keep_best(self.step, results, held))
            distributed.on_main(lambda: self.ema.start(self.step))
            received = None
            while received is None and self.step < end and not self._stopped:
                batch = distributed.together(lambda: next(batches))
                self._guard.check_mode(self.step, self.score)
                with self._guard.memory(self.step):
                    recent.append(self._update(self.step, batch))
                    self.ema.update(self.score)
                self.step += 1
                bar.update()
                if self._keeper is not None:
                    self._keeper.report()
                # ask only here: a signal during the checkpoint is found after the next step or loop
                received = stop.agreed()
                # does not depend on signals, so interrupted runs have the same regular checkpoints
                due = keeping.due(self.step, self.config.steps)
                judged = None
                if (held := self.held_out) is not None:
                    judged = held.loss_if_due(self.step, self.ema, due=due, end=self.step == end)
                last = self.step == end or received is not None or self._stopped
                save, snapshot = due or last, self.ema.due(self.step)
                if save or snapshot or self.step % keeping.log_every == 0:
                    try:
                        self._log(recent, judged)
                    except KeyboardInterrupt:  # from a callback, unless a signal was received
                        if distributed.size() == 1 and stop.received is None:
                            self._save(last=True)
                        raise
                    bar.note(**self.history.latest)
                    recent.clear()
                if snapshot:
                    distributed.on_main(self.ema.whole().snapshot)
                if save:
                    self._guard.check_data(self.step, self.data)
                    self._save(last=last)
            if (received := stop.agreed()) is not None:
                kept = f"saved in {self.folder}, from which a new run" if self.folder else "train()"
                stop.end(f"{received.name} at step {self.step:,}; {kept} continues")
        self._guard.check_moved(first, self.step)
        return self.model

    @contextlib.contextmanager
    def _kept(self, recent: list[Tensor]) -> Iterator[None]:
        """Save a checkpoint of the last step if data cannot be read in the block."""
        try:
            yield
        except DataError as error:
            if self._keeper is None or self.step == 0:
                raise
            if recent:
                self._log(recent, None)
            self._save(last=True)
            raise DataError(f"{error}; step {self.step} is saved in {self.folder}") from error

    def _log(self, recent: list[Tensor], held: float | None) -> None:
        """Check the steps since the last row of the log, and log their mean loss."""
        found = distributed.mean(torch.stack(recent).cpu().double())
        found = self._guard.finite_steps(self.step - len(recent), found)
        if not len(found):
            return  # all steps were skipped, so there is no loss to log
        loss, norm = found.mean(0).tolist()
        line = {
            "step": self.step,
            "loss": loss,
            "grad_norm": norm,
            "lr": self.config.lr_at(self.step - 1),
            "seconds": round(time.perf_counter() - self._start, 3),
        }
        if held is not None and self.held_out is not None:
            line |= {"held_out": held, **self.held_out.quarters, **self.held_out.excess}
        if self.config.skips:
            line["skipped"] = self._guard.skipped
            self._guard.skipped = 0
        self.callbacks.on_log(line)

    def _save(self, *, last: bool) -> None:
        ema = self.ema.whole()
        if self._keeper is not None:
            state = self._packed()
            self._guard.check(self.step, state, self.optimizer)
            self._keeper.save(self.step, state, ema.results, self.held_out, last=last)
        self.callbacks.on_checkpoint(self.step, ema.model)

    def _packed(self) -> dict[str, Tensor]:
        """Return all tensors of the run."""
        return pack(self.score, self.ema, self.optimizer, self._update.beside)

    def _resume(self, keeper: Keeper) -> None:
        """Load the checkpoint that process 0 finds, which it sends to the other processes."""
        state: dict[str, Tensor] = {}

        def find() -> tuple[str, int, dict[str, Any] | None] | None:
            found = keeper.resume()
            if found is None:
                return None
            path, tensors, meta = found
            state.update(tensors)
            return str(path), meta["step"], meta.get("held_out")

        found = distributed.on_main(find)
        if found is not None:
            path, self.step, held = found
            if self.held_out is not None and held is not None:
                self.held_out.load(held)
            tensors, beside = distributed.shared(state), self._update.beside
            unpack(tensors, self.score, self.ema, self.optimizer, beside, source=path)

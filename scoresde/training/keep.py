"""Write the checkpoints and the averaged model of a run to its folder, and resume from it."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoresde import checkpoint, distributed
from scoresde.checks import outside
from scoresde.ema import Average
from scoresde.errors import CheckpointError, InvalidValueError
from scoresde.pretrained import card
from scoresde.score import ScoreModel
from scoresde.training.background import Background
from scoresde.training.config import TrainConfig
from scoresde.training.held_out import HeldOut
from scoresde.training.same import check_description, check_same

__all__ = ["Keeper"]

_BEST = "best"


class Keeper:
    """Write a run to a folder, and read it back to resume the run.

    Args:
        folder: The folder; it is made if it is missing.
        config: The configuration of the run. If the folder holds a run, its configuration must be
            the same.
        identity: The other properties of the run that must not change, by name.

    Attributes:
        lock: The lock of the folder, held from `resume` until the training ends.
    """

    def __init__(self, folder: Path, config: TrainConfig, identity: Mapping[str, str]) -> None:
        self.folder = folder
        self.config = config
        self.identity = identity
        self.lock = checkpoint.Lock(folder)
        self._files = Background()
        self._newest: Path | None = None
        self._unsaved = False
        self._pending = False

    @property
    def newest(self) -> Path | None:
        """Return the file of the last undamaged checkpoint, or None; wait for one being written."""
        self._files.wait()
        return self._newest

    def resume(self) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
        """Return the newest undamaged checkpoint, or None at the start of a run.

        Returns:
            The file, the tensors, and the description, with `step` and possibly `held_out`.

        Raises:
            InvalidValueError: The checkpoint is from another configuration, model or data set.
            CheckpointError: No checkpoint can be read, or the file is not from a run. Or there is
                no checkpoint, but a model that a new run would overwrite. Or another process trains
                in the folder, or the folder cannot be made.
        """
        checkpoint.make_folder(self.folder)
        self.lock.take()
        self.lock.idle = True
        for folder in (self.folder, self.folder / _BEST, *self.folder.glob("ema-*")):
            checkpoint.clean(folder)
        found = checkpoint.latest(self.folder)
        if found is None:
            for name in ("model.safetensors", "config.json"):
                if (self.folder / name).exists():
                    raise CheckpointError(
                        f"{self.folder} holds {name}, which a new run would overwrite, but no "
                        "checkpoint to continue from; take another folder"
                    )
            return None
        path, tensors, meta = found
        check_description(meta, path)
        check_same(meta, self.config, self.identity, str(path))
        checkpoint.set_aside(self.folder, after=meta["step"])
        self._newest = path
        return path, tensors, meta

    @contextlib.contextmanager
    def alone(self, step: int) -> Iterator[None]:
        """Hold the lock of the folder in the block, which begins after `step` steps.

        Raises:
            CheckpointError: Another process trains in the folder, or has continued the run.
        """
        distributed.on_main(lambda: self._take(step))
        self.lock.idle = False
        try:
            yield
        finally:
            try:
                self._finish()
            finally:
                if self._files.done:  # a signal may have ended the waiting
                    self.lock.release()

    def _take(self, step: int) -> None:
        checkpoint.make_folder(self.folder)  # it may have been removed since `resume`
        if self.lock.take():  # False if this trainer already held the lock
            self._check_newest(step)
            self._check_moved()

    def _check_newest(self, step: int) -> None:
        later = [path for number, path in checkpoint.steps_in(self.folder) if number > step]
        if later:
            self.lock.release()
            raise CheckpointError(
                f"another process has continued the run in {self.folder} to {later[-1].name}, but "
                f"this trainer is at step {step}; make a new trainer, which continues from there"
            )

    def _check_moved(self) -> None:
        """Warn if the folder was removed or renamed; raise if it now holds another run.

        Raises:
            CheckpointError: The newest checkpoint in the folder is of another run.
        """
        found = checkpoint.latest(self.folder)
        if found is not None:
            path, _, meta = found
            try:
                check_description(meta, path)
                check_same(meta, self.config, self.identity, str(path))
            except InvalidValueError as error:
                self.lock.release()
                raise CheckpointError(
                    f"{self.folder} was removed or renamed, and now holds another run: {error}"
                ) from error
        if self._newest is not None and not self._newest.exists():
            warnings.warn(
                f"{self.folder} was removed or renamed during the run; from now on a new folder "
                f"with this name is written, without {self._newest.name} and the earlier log",
                RuntimeWarning,
                stacklevel=outside(),
            )

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        averages: Mapping[str, Average[nn.Module]],
        held_out: HeldOut | None,
        *,
        last: bool,
    ) -> None:
        """Copy the tensors and averages of `step`, and write them while training continues.

        With `last`, wait until they are written. All processes must call this at the same time.

        Raises:
            CheckpointError: The files of the last or of two checkpoints in a row could not be
                written; or the folder was removed, and another process trains there.
        """
        distributed.on_main(lambda: self._begin(step, tensors, averages, held_out))
        self._pending = True
        if last:
            distributed.on_main(lambda: self._finish(last=True))

    def report(self) -> None:
        """Report an error of writing as soon as it is known, in all processes.

        Raises:
            CheckpointError: The files of two checkpoints in a row could not be written.
        """
        if self._pending and distributed.largest(distributed.is_main() and self._files.done):
            self._pending = False
            distributed.on_main(self._finish)

    def _begin(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        averages: Mapping[str, Average[nn.Module]],
        held_out: HeldOut | None,
    ) -> None:
        self._finish()
        if self.lock.keep():
            self._check_newest(step)
            self._check_moved()
        meta = {
            "step": step,
            "config": self.config.as_json(),
            "threads": torch.get_num_threads(),
            "processes": distributed.size(),
            "torch": torch.__version__,
            **self.identity,
        }
        if held_out is not None:
            meta["held_out"] = held_out.as_json()
        best = self._best(step, averages, held_out)
        copies, stored = checkpoint.copied(tensors), copy.deepcopy(dict(averages))
        keep = self.config.keeping.keep

        def write() -> None:
            self._newest = checkpoint.save_step(self.folder, step, copies, meta, keep=keep)
            self.export(step, stored)
            self._export_best(step, stored, best)
            self._unsaved = False

        self._files.begin(write)

    def _finish(self, *, last: bool = False) -> None:
        """Wait until no checkpoint is being written; raise or warn if the last one failed."""
        try:
            self._files.finish()
        except CheckpointError as error:
            if last or self._unsaved:
                raise
            self._unsaved = True
            warnings.warn(
                f"{error}; training continues, and the next checkpoint is written as usual",
                RuntimeWarning,
                stacklevel=outside(),
            )

    def export(self, step: int, averages: Mapping[str, Average[nn.Module]], **meta: Any) -> None:
        """Write each average of a `ScoreModel` by `save_pretrained`, after `step` steps."""
        training = {**self.config.as_json(), "done": step}
        meta = {"data": self.identity["data set"], **meta}
        for name, average in averages.items():
            if isinstance(average.model, ScoreModel):
                profile = {"profile": str(average.profile)}
                average.model.save_pretrained(
                    self.folder / name, training=training, average=profile, **meta
                )

    def keep_best(
        self, step: int, averages: Mapping[str, Average[nn.Module]], held_out: HeldOut | None
    ) -> None:
        """Write the averaged model to `best` if its held-out loss is the lowest so far."""
        self._export_best(step, averages, self._best(step, averages, held_out))

    def _best(
        self, step: int, averages: Mapping[str, Average[nn.Module]], held_out: HeldOut | None
    ) -> float | None:
        """Return the held-out loss if it is the lowest so far; warn if an earlier best is missing.

        The result is None if the loss is not the lowest.
        """
        if held_out is None or held_out.at is None:
            return None
        if held_out.at == step:
            return held_out.best
        best = self.folder / _BEST
        if isinstance(averages[""].model, ScoreModel) and _done(best) != held_out.at:
            warnings.warn(
                f"the best model, of step {held_out.at}, is missing in {best}: it could "
                "not be written, or was removed; a new best model is written when the "
                f"held-out loss falls below {held_out.best:.6g}",
                RuntimeWarning,
                stacklevel=outside(),
            )
        return None

    def _export_best(
        self, step: int, averages: Mapping[str, Average[nn.Module]], loss: float | None
    ) -> None:
        """Write the averaged model to `best`, unless `loss` is None or the model is there."""
        if loss is not None and not _holds(self.folder / _BEST, step):
            self.export(step, {_BEST: averages[""]}, held_out=loss)

    def complete(self, step: int, averages: Mapping[str, Average[nn.Module]]) -> None:
        """Write the averages after the last `step`, if their files are missing, damaged or older.

        A file that is up to date is not written again, since a pilot may have been added to it.
        """
        lost = {name: a for name, a in averages.items() if not _holds(self.folder / name, step)}
        self.export(step, lost)


def _done(folder: Path) -> int | None:
    """Return the number of steps of the model in a folder, or None if there is no model."""
    try:
        training = checkpoint.read_json(folder / "config.json").get("training")
    except CheckpointError:
        return None
    done = training.get("done") if isinstance(training, Mapping) else None
    return done if isinstance(done, int) else None


def _holds(folder: Path, step: int) -> bool:
    """Return True if a folder holds undamaged files of the model after `step` steps.

    If the model card, which is written last, is of an earlier step, it is written again.
    """
    try:
        _, config = checkpoint.load_tensors(folder / "model.safetensors")
        whole = checkpoint.read_json(folder / "config.json") == config
    except CheckpointError:
        return False
    held = whole and config.get("training", {}).get("done", step) == step
    if held:
        card.write(folder, config)
    return held

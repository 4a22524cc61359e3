"""Write the checkpoints and the averaged model of a run to its folder, and resume from it."""

from __future__ import annotations

import contextlib
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
from scoresde.training.config import TrainConfig
from scoresde.training.held_out import HeldOut

__all__ = ["Keeper"]

_BEST = "best"
_DATA = "data set"
# entries that are missing in some runs
_OPTIONAL = ("augment", "set of frozen weights")


class Keeper:
    """Write a run to a folder, and read it back to resume the run.

    Args:
        folder: The folder; it is made if it is missing.
        config: The configuration of the run. If the folder holds a run, its configuration must be
            the same.
        identity: The other properties of the run that must not change, by name.

    Attributes:
        newest: The file of the last undamaged checkpoint, or None.
        lock: The lock of the folder, held from `resume` until the training ends.
    """

    def __init__(self, folder: Path, config: TrainConfig, identity: Mapping[str, str]) -> None:
        self.folder = folder
        self.config = config
        self.identity = identity
        self.newest: Path | None = None
        self.lock = checkpoint.Lock(folder)
        self._unsaved = False

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
        _check_description(meta, path)
        self._check_same(meta, str(path))
        checkpoint.set_aside(self.folder, after=meta["step"])
        self.newest = path
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
                _check_description(meta, path)
                self._check_same(meta, str(path))
            except InvalidValueError as error:
                self.lock.release()
                raise CheckpointError(
                    f"{self.folder} was removed or renamed, and now holds another run: {error}"
                ) from error
        elif self.newest is not None:
            warnings.warn(
                f"{self.folder} was removed or renamed during the run; from now on a new folder "
                f"with this name is written, without {self.newest.name} and the earlier log",
                RuntimeWarning,
                stacklevel=outside(),
            )

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        averages: Mapping[str, Average[nn.Module]],
        held_out: HeldOut | None,
        last: bool,
    ) -> bool:
        """Write the checkpoint of `step` and the averages; return True if all files were written.

        Raises:
            CheckpointError: Files cannot be written, and this is the last checkpoint or the second
                failure in a row; or the folder was removed, and another process trains there.
        """
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
        try:
            self.newest = checkpoint.save_step(
                self.folder, step, tensors, meta, keep=self.config.keeping.keep
            )
            self.export(step, averages)
            self.keep_best(step, averages, held_out)
        except CheckpointError as error:
            if last or self._unsaved:
                raise
            self._unsaved = True
            warnings.warn(
                f"{error}; training continues, and the next checkpoint is written as usual",
                RuntimeWarning,
                stacklevel=outside(),
            )
        else:
            self._unsaved = False
        return not self._unsaved

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
        if held_out is None or held_out.at is None:
            return
        best = self.folder / _BEST
        if held_out.at != step:
            if isinstance(averages[""].model, ScoreModel) and _done(best) != held_out.at:
                warnings.warn(
                    f"the best model, of step {held_out.at}, is missing in {best}: it could "
                    "not be written, or was removed; a new best model is written when the "
                    f"held-out loss falls below {held_out.best:.6g}",
                    RuntimeWarning,
                    stacklevel=outside(),
                )
            return
        if _holds(best, step):
            return
        self.export(step, {_BEST: averages[""]}, held_out=held_out.best)

    def complete(self, step: int, averages: Mapping[str, Average[nn.Module]]) -> None:
        """Write the averages after the last `step`, if their files are missing, damaged or older.

        A file that is up to date is not written again, since a pilot may have been added to it.
        """
        lost = {name: a for name, a in averages.items() if not _holds(self.folder / name, step)}
        self.export(step, lost)

    def _check_same(self, meta: Mapping[str, Any], source: str) -> None:
        # compare the data first, since other data also change options that are chosen for the data
        _check_entries(meta, {_DATA: self.identity[_DATA]}, source)
        self.config.check_continues(meta["config"], source)
        _check_entries(
            meta, {"augment": None, "set of frozen weights": None, **self.identity}, source
        )
        planned, done, rate = meta["config"]["steps"], meta["step"], self.config.optimiser
        steps = self.config.steps
        if planned != steps and any(
            rate.lr_at(k, planned) != rate.lr_at(k, steps) for k in range(done)
        ):
            before, after = rate.lr_at(done - 1, planned), rate.lr_at(done, steps)
            warnings.warn(
                f"{source} is from a run of {planned} steps, which now has {steps}: its learning "
                f"rate was chosen for {planned} steps (decay={rate.decay!r}), so it jumps from "
                f"{before:.3g} to {after:.3g} here; rather start a new run in another folder from "
                "the model of this one",
                RuntimeWarning,
                stacklevel=outside(),
            )
        for name, now in (
            ("threads", torch.get_num_threads()),
            ("processes", distributed.size()),
        ):
            before = meta.get(name, 1)
            if before != now:
                warnings.warn(
                    f"{source} was written with {before} {name} and continues with {now}: the "
                    "weights will differ by rounding from the weights of an uninterrupted run",
                    RuntimeWarning,
                    stacklevel=outside(),
                )


def _check_entries(meta: Mapping[str, Any], now: Mapping[str, str | None], source: str) -> None:
    """Raise InvalidValueError unless a checkpoint has the same properties as this run."""
    for name, value in now.items():
        if meta.get(name) != value:
            raise InvalidValueError(
                f"{source} belongs to another {name}: it was {meta.get(name)} and is now {value}; "
                f"take the old {name}, or another folder"
            )


def _check_description(meta: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError if a file is not a checkpoint of a run, or was renamed."""
    step, config = meta.get("step"), meta.get("config")
    planned = config.get("steps") if isinstance(config, Mapping) else None
    if type(step) is not int or type(planned) is not int or step > planned:
        raise CheckpointError(f"{path} is not a checkpoint of a run; take another folder")
    if path.stem != f"step-{step:08d}":
        raise CheckpointError(f"{path} holds step {step}; give it its old name, or remove it")


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

"""Write the checkpoints and the averaged model of a run into its folder, and resume from it."""

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
# entries that only some runs have
_OPTIONAL = ("augment", "set of frozen weights")


class Keeper:
    """Write a run into a folder, and read it back to resume.

    Args:
        folder: The folder, which is made if it is missing.
        config: The numbers of the run; they must be those of the run stored in the folder, if any.
        identity: What else must not change within a run, by name.

    Attributes:
        newest: The file of the last good checkpoint, or None.
        lock: The lock of the folder, held from `resume` on until the training ends.
    """

    def __init__(self, folder: Path, config: TrainConfig, identity: Mapping[str, str]) -> None:
        self.folder = folder
        self.config = config
        self.identity = identity
        self.newest: Path | None = None
        self.lock = checkpoint.Lock(folder)
        self._unsaved = False

    def resume(self) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
        """Return the newest good checkpoint, or None at the start of a run.

        Returns:
            Its file, its tensors, and its description, with `step` and maybe `held_out`.

        Raises:
            InvalidValueError: The checkpoint is of another configuration, model or data set.
            CheckpointError: No checkpoint can be read, or the file is not of a run; or there is no
                checkpoint, but a model that a new run would overwrite; or another process trains in
                the folder; or the folder cannot be made.
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
                        f"{self.folder} holds {name}, which a new run would replace, but no "
                        "checkpoint from which one could continue; take another folder"
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
        """Hold the lock of the folder within the block, which begins after `step` steps.

        Raises:
            CheckpointError: Another process trains in the folder, or has continued the run since.
        """
        distributed.on_main(lambda: self._take(step))
        self.lock.idle = False
        try:
            yield
        finally:
            self.lock.release()

    def _take(self, step: int) -> None:
        checkpoint.make_folder(self.folder)  # it may have been removed since `resume`
        if self.lock.take():  # False if this trainer held it already
            self._check_newest(step)
            self._check_moved()

    def _check_newest(self, step: int) -> None:
        later = [path for number, path in checkpoint.steps_in(self.folder) if number > step]
        if later:
            self.lock.release()
            raise CheckpointError(
                f"another process has continued the run in {self.folder} to {later[-1].name}, and "
                f"this trainer is at step {step}; make a new one, which continues from there"
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
                f"{self.folder} was removed or renamed while the run trained in it; a new folder "
                f"of this name is written from now on, without {self.newest.name} and the log "
                "until now",
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
        """Write the checkpoint of `step` and the averages; return True if all were written.

        Raises:
            CheckpointError: The files could not be written, and this is the last checkpoint or the
                previous one failed too; or the folder was removed, and another process trains in
                it.
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
                f"{error}; training continues to the next checkpoint",
                RuntimeWarning,
                stacklevel=outside(),
            )
        else:
            self._unsaved = False
        return not self._unsaved

    def export(self, step: int, averages: Mapping[str, Average[nn.Module]], **meta: Any) -> None:
        """Write each average of a `ScoreModel` after `step` steps, by `save_pretrained`."""
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
        """Write the averaged model into `best` if its held-out loss is the lowest so far."""
        if held_out is None or held_out.at is None:
            return
        best = self.folder / _BEST
        if held_out.at != step:
            if isinstance(averages[""].model, ScoreModel) and _done(best) != held_out.at:
                warnings.warn(
                    f"{best} does not hold the best model, that of step {held_out.at}: it could "
                    "not be written, or was removed; the next one is written when the loss of the "
                    f"held-out data falls below {held_out.best:.6g}",
                    RuntimeWarning,
                    stacklevel=outside(),
                )
            return
        if _holds(best, step):
            return
        self.export(step, {_BEST: averages[""]}, held_out=held_out.best)

    def complete(self, step: int, averages: Mapping[str, Average[nn.Module]]) -> None:
        """Write the averages after the last `step` whose files are missing, damaged or older.

        Others stay as they are, since a pilot may have been added to them.
        """
        lost = {name: a for name, a in averages.items() if not _holds(self.folder / name, step)}
        self.export(step, lost)

    def _check_same(self, meta: Mapping[str, Any], source: str) -> None:
        # the data first, since what is chosen for other data differs too
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
                f"{source} is of a run of {planned} steps, which now has {steps}: its learning "
                f"rate was chosen for {planned} (decay={rate.decay!r}), and so jumps from "
                f"{before:.3g} to {after:.3g} here; with decay='constant' a longer run has no jump",
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
                    "weights will differ in the last bits from those of an uninterrupted run",
                    RuntimeWarning,
                    stacklevel=outside(),
                )


def _check_entries(meta: Mapping[str, Any], now: Mapping[str, str | None], source: str) -> None:
    """Raise InvalidValueError unless a run has these entries."""
    for name, value in now.items():
        if meta.get(name) != value:
            raise InvalidValueError(
                f"{source} belongs to another {name}: it was {meta.get(name)} and is {value}; "
                "take the old one, or another folder"
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

    The model card, which is written last, is then written again if it is of an earlier step.
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

"""Define `scoresde train`: train a model of any data, in a folder from which it can resume."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from scoresde import checkpoint, distributed
from scoresde.cli.config import RunConfig
from scoresde.cli.open import PLAIN
from scoresde.cli.outputs import check_folder
from scoresde.cli.pilots import TASK, seconds, steps_of
from scoresde.cli.source import described
from scoresde.cli.standing import better_of
from scoresde.cli.terminal import tell, then
from scoresde.cli.threads import choose
from scoresde.data import Data
from scoresde.data.data_check import remarks
from scoresde.errors import CheckpointError, InvalidValueError, ScoreSDEError
from scoresde.metrics.evaluation import COARSE
from scoresde.pretrained import card
from scoresde.pretrained.store import read
from scoresde.progress import duration
from scoresde.sampling.model_pilot import evaluations_of
from scoresde.score import ScoreModel
from scoresde.score.pilot_file import SLOW_PILOT
from scoresde.sde.words import sde_in_words
from scoresde.training import Trainer

__all__ = ["Train"]

_FILE = "config.toml"
# A pilot is measured only if the training evaluates the network on at least this many times as many
# samples as the measurement does.
_MANY = 10
# With fewer held-out samples than this a message says that there are few; `evaluate` compares half
# of them with samples. A larger --held-out is proposed up to this share of the data.
_SURE, _MOST = 2 * COARSE, 0.4


@dataclass(frozen=True)
class Train:
    """Train a score model. Run the same command again to resume an interrupted training.

    Most runs need only --data and --out, and for a table often --condition, --missing or
    --standardize. Other options are chosen for the data, and printed with their reasons.
    """

    out: Path
    """The folder of the run: the checkpoints, the log (log.jsonl), the model, and the options
    (config.toml)."""
    settings: Annotated[RunConfig, tyro.conf.arg(name=""), tyro.conf.OmitArgPrefixes]
    config: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")
    ] = None
    """The config.toml of a run that is to be repeated. Options of the command override the file."""
    pilot: Annotated[bool, PLAIN] = True
    """At the end of the training, measure how the model's score varies with the noise, so that the
    sampler "fast" needs few evaluations. This takes at most about a tenth of the time of the
    training; after a short training it is left out. Without the measurement, here or by --no-pilot,
    the first `scoresde sample` measures."""

    @classmethod
    def parse(cls, words: Sequence[str]) -> Train:
        """Return the command of these words."""
        command = tyro.cli(cls, args=words, default=cls.usual(words), prog="scoresde train")
        assert command is not None  # None only if the default is
        return command

    @classmethod
    def usual(cls, words: Sequence[str]) -> Train | None:
        """Return the defaults from the file after `--config`, or None without it."""
        path = _file_in(words)
        if path is None:
            return None
        # config.toml is in the folder of its run
        out = path.parent if path.name == _FILE else tyro.MISSING
        return cls(out=out, config=path, settings=RunConfig.read(path))

    def run(self) -> None:
        """Train to the end, in all processes of `torchrun`."""
        check_folder(self.out)
        callbacks = self.settings.callbacks(self.out) if distributed.is_main() else ()
        data = self._data()
        tell(described(data, self.settings.data.source))
        chosen: list[str] = []
        run, model, data = self._settings().begun(data, chosen.append)
        if chosen:
            tell("chosen for these data, each an option:")
            for line in chosen:
                tell(line)
        model = model.to(distributed.device())
        parameters = sum(p.numel() for p in model.net.parameters())
        tell(f"model: {type(model.net).__name__}, {parameters:,} parameters")
        tell(f"noise: {sde_in_words(model.sde)}")
        config = run.config
        self._choose_threads(model, config.batch_size)
        with self._explained():
            trainer = Trainer(
                model, data, config, loss=run.loss(model), folder=self.out, callbacks=callbacks
            )
        for remark in remarks(data, model.sde):
            tell(f"remark: {remark}")
        distributed.on_main(lambda: run.write(self.out / _FILE))
        steps = f"{config.steps:,}"
        if (held := trainer.held_out) is not None and len(held.data) < _SURE:
            tell(_few(len(held.data), len(data)))
        if trainer.finished:
            trainer.train(progress=False)
            if trainer.step < config.steps:
                tell(f"finished: {_early(trainer)}; a larger --patience continues")
            else:
                tell(f"finished: all {steps} steps are done; a larger --steps continues")
            then("see samples", "sample", better_of(self.out), "--out", "samples.png")
            return
        tell(f"{'resuming' if trainer.step else 'starting'} at step {trainer.step:,} of {steps}")
        first, start = trainer.step, time.perf_counter()
        try:
            trainer.train()
        except SystemExit as end:
            name = signal.Signals(int(end.code or 0) - 128).name
            tell(f"stopped by {name} at step {trainer.step:,}; the same command resumes")
            raise
        seconds = time.perf_counter() - start
        ways: list[str] = []
        distributed.on_main(
            lambda: ways.extend(self._measured_or_without(trainer.step * config.batch_size))
        )
        distributed.on_main(self._describe)
        if trainer.step < config.steps:
            tell(_early(trainer))
        done, last = f"{trainer.step:,}", f"{trainer.step - first:,}"
        numbers = "".join(
            f"; {name.replace('_', '-')} {value:.3g}"
            for name, value in trainer.history.latest.items()
        )
        tell(f"done: {done} steps, the last {last} in {duration(seconds)}{numbers}")
        known = trainer.history.latest
        if known.get("held_out", math.inf) < known.get("loss", -math.inf):
            tell(
                "the held-out loss is often lower than the training loss, because it is computed "
                "with the averaged weights"
            )
        better = better_of(self.out)
        if (held := trainer.held_out) is not None and held.at is not None and held.waited:
            clearly = better != self.out
            tell(
                f"{self.out} has the averaged weights at the end; {self.out / 'best'} has those of "
                f"the checkpoint with the lowest held-out loss, {held.best:.3g}, after step "
                f"{held.at:,}; the loss at the end is {'clearly' if clearly else 'hardly'} higher, "
                f"so use {better}"
            )
        at_once = ' at once (the default sampler, "fast", measures the model first)' if ways else ""
        then(f"see samples{at_once}", "sample", better, *ways, "--out", "samples.png")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Name the options of the data that have changed, if they caused an error."""
        try:
            yield
        except InvalidValueError as error:
            changes = ""
            with contextlib.suppress(ScoreSDEError):
                changes = self.settings.data.differs(RunConfig.read(self.out / _FILE).data)
            if not changes:
                raise
            raise InvalidValueError(
                f"{self.out} holds a run of other data, or of data that were read with other "
                f"options: {changes}; take the old options, or another folder"
            ) from error

    def _choose_threads(self, model: ScoreModel, batch: int) -> None:
        """Set the number of threads of a resumed run, or for a new run the fastest number."""
        if distributed.device().type != "cpu" or distributed.size() > 1:
            return
        before = checkpoint.steps_in(self.out) if self.out.is_dir() else []
        if not before:
            usual = torch.get_num_threads()
            if (best := choose(model, min(batch, 64))) != usual:
                tell(f"threads: {best}, which is now faster than {usual}")
            return
        with contextlib.suppress(CheckpointError):  # the training raises the same error
            threads = checkpoint.load_tensors(before[-1][1])[1].get("threads")
            if type(threads) is int and threads <= torch.get_num_threads():
                torch.set_num_threads(max(1, threads))

    def _measured_or_without(self, samples: int) -> list[str]:
        """Measure the pilots of the model and of the best model, and keep them in their files.

        Args:
            samples: The number of samples on which the training evaluated the network. If it is
                small, nothing is measured; the pilot is measured when it is first used.

        Returns:
            The options of `scoresde sample` that draw samples without a long measurement.
        """
        found = []
        for folder in (self.out, self.out / "best"):
            if (folder / "model.safetensors").exists():
                found.append((folder, ScoreModel.from_pretrained(folder).to(distributed.device())))
        steps = steps_of(found[0][1])
        if not self.pilot or samples < _MANY * evaluations_of(steps):
            first = seconds(found[0][1], steps)
            return ["--sampler", "dpmpp_2m"] if first > SLOW_PILOT else []
        spent = sum(seconds(model, steps) for _, model in found)
        tell(f"{TASK}: about {max(spent, 1):.0f} s; --no-pilot leaves it for the first samples")
        for folder, model in found:
            if model.measured_pilot(steps=steps) is not None:
                described = {"pilot", *model.description()}
                stored = read(folder / "model.safetensors")[1].items()
                meta = {name: value for name, value in stored if name not in described}
                model.save_pretrained(folder, **meta)
        return []

    def _describe(self) -> None:
        """Write the model card again, with the last picture."""
        _, config = read(self.out / "model.safetensors")
        card.write(self.out, config)

    def _settings(self) -> RunConfig:
        """Return the options; open ones are taken from the run in the folder, if there is one."""
        if not any(self.out.glob("step-*.safetensors")):
            return self.settings
        try:
            before = RunConfig.read(self.out / _FILE)
        except ScoreSDEError:
            return self.settings
        self._check_begun(before.init)
        run = replace(self.settings, init=before.init)
        return run if before.open() else run.like(before)

    def _check_begun(self, before: str | None) -> None:
        """Raise InvalidValueError if --init names another model than the run began with."""
        init = self.settings.init
        if init is None or (before and os.path.abspath(init) == os.path.abspath(before)):
            return
        began = "a new model" if before is None else f"the model {before}"
        raise InvalidValueError(
            f"the run in {self.out} began with {began}, so --init {init} would change nothing; "
            "leave it out, or take another folder"
        )

    def _data(self) -> Data:
        """Return the data; process 0 downloads them before the others load them."""
        found: list[Data] = []
        distributed.on_main(lambda: found.append(self.settings.data.load()))
        return found[0] if found else self.settings.data.load()


def _file_in(words: Sequence[str]) -> Path | None:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path, nargs="?")
    path: Path | None = finder.parse_known_args(words)[0].config
    return path


def _early(trainer: Trainer[ScoreModel]) -> str:
    held = trainer.held_out
    assert held is not None
    return (
        f"stopped early at step {trainer.step:,}, {held.waited} checkpoints after the lowest loss "
        f"of held-out data, {held.best:.4g} at step {held.at:,}, whose model is in best/"
    )


def _few(held: int, n: int) -> str:
    """Return a sentence on what few held-out samples, of n data, do not show."""
    share = math.ceil(10 * _SURE / n) / 10
    cure = (
        f"--held-out {share:g} keeps at least {_SURE} apart"
        if share <= _MOST
        else "evaluate with new data, by --data"
    )
    return (
        f"held out: {held} samples, with which the held-out loss and `scoresde evaluate` show only "
        f"large errors and strong overfitting; to see smaller ones, {cure}"
    )

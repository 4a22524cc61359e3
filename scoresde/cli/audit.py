"""Define `scoresde audit`: test a model at every noise scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from scoresde import distributed, plot
from scoresde.audit import audit
from scoresde.checks import seeded
from scoresde.cli.held_out import asked, conditions_of, folder_of, learnt, run_of, words_of
from scoresde.cli.options import (
    BatchSize,
    Checkpoint,
    HeldOutSplit,
    OwnColumns,
    OwnData,
    Seed,
    Size,
    TrainData,
)
from scoresde.cli.outputs import check_folder
from scoresde.cli.standing import better_of, model_of
from scoresde.cli.terminal import show, tell, then
from scoresde.data import Data
from scoresde.errors import InvalidValueError
from scoresde.score import ScoreModel
from scoresde.sde import Condition

__all__ = ["Audit"]


@dataclass(frozen=True)
class Audit:
    """Test a trained model at every noise scale, with data that it was not trained on."""

    checkpoint: Checkpoint
    data: OwnData = None
    split: HeldOutSplit = None
    condition: OwnColumns = ()
    size: Size = None
    train_data: TrainData = None
    n: int = 512
    """The number of data to test with, chosen at random, at least 16; all data if they are
    fewer."""
    levels: int = 13
    """The number of noise scales, at least 2."""
    draws: int = 128
    """The number of samples drawn by the reverse SDE, and again by the probability flow, at least
    2; not more than --n are drawn."""
    steps: int = 48
    """The number of steps with which both draw, at least the number of noise scales minus one."""
    seed: Seed = 0
    batch_size: BatchSize = 128
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="FOLDER", help_behavior_hint="(default: audit in the folder of the run)"
        ),
    ] = None
    """The folder of the result: audit.json and audit.png."""

    def run(self) -> None:
        """Test, print a table, and write the result."""
        folder = folder_of(self.checkpoint)
        out = self.out or (Path("audit") if folder is None else folder / "audit")
        check_folder(out)
        model = model_of(self.checkpoint).to(distributed.device())
        about = asked(self, model)
        x, condition = self._prepared(about.data, about.source, model)
        rows = torch.randperm(len(x), generator=seeded(self.seed))[: self.n]
        train, known = None, None
        if self.train_data is not None:
            data = learnt(self, self.train_data, model)
            train, known = self._prepared(data, self.train_data, model)
        found = audit(
            model,
            model.sde,
            x[rows],
            condition=None if condition is None else condition.rows(rows),
            train=train,
            train_condition=known,
            levels=self.levels,
            samples=self.draws,
            steps=self.steps,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        show(found)
        figures = found.to_json(out / "audit.json")
        picture = plot.save(found.plot(), out / "audit.png")
        tell(f"the result is in {figures.absolute()} and {picture.absolute()}")
        self._then()

    def _then(self) -> None:
        """Print the next command: evaluate or share a model, or train its run for longer."""
        run, folder = run_of(self.checkpoint), folder_of(self.checkpoint)
        if run is None or folder is None or run.train.steps is None:
            then("share the model", "push", self.checkpoint, "USER/NAME", "--dry-run")
            return
        if (better := better_of(folder)) != folder:
            words = words_of(replace(self, checkpoint=str(better)))
            then("compare samples of the weights with the lowest held-out loss", "evaluate", *words)
            return
        more = ("--steps", str(2 * run.train.steps), "--out", f"{folder}-longer")
        then("train for longer", "train", "--config", folder / "config.toml", *more)

    def _prepared(
        self, data: Data, source: str, model: ScoreModel
    ) -> tuple[Tensor, Condition | None]:
        """Return samples on the device, with the conditions that the model takes."""
        if self.n < 16 or len(data) < 16:
            raise InvalidValueError(
                f"an audit needs at least 16 samples, got --n {self.n} of {len(data)}; give more"
            )
        known = conditions_of(data, source, model)
        x = data.x.float().to(distributed.device())
        return x, None if known is None else known.to(x.device)

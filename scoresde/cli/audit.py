"""`scoresde audit`: at which noise levels a model is right, and at which it is not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from scoresde import plot
from scoresde.audit import audit
from scoresde.checks import seeded
from scoresde.cli.held_out import conditions_of, held_out, warn_of_training
from scoresde.cli.look import PICTURES
from scoresde.cli.options import Checkpoint, Columns, HeldOutSplit, Size, Source
from scoresde.cli.sample import check_out
from scoresde.cli.terminal import show
from scoresde.data import Data
from scoresde.errors import InvalidValueError
from scoresde.score import ScoreModel
from scoresde.sde import Condition

__all__ = ["Audit"]


@dataclass(frozen=True)
class Audit:
    """Test a trained model at every noise level, with data it has not seen."""

    checkpoint: Checkpoint
    data: Source
    split: HeldOutSplit = None
    condition: Columns = ()
    size: Size = None
    train: str | None = None
    """The data that the model was trained on, to see how much of them it knows by heart."""
    out: Path = Path("audit.png")
    """The picture to write: .png, .jpg, .pdf or .svg."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A .json file for every figure."""
    n: int = 512
    """How many samples of the data, drawn at random, at least 16."""
    levels: int = 13
    """How many noise levels, at least 2."""
    samples: int = 128
    """Samples that are drawn by the SDE and by the flow, at least 2."""
    steps: int = 48
    """Steps of both, at least the levels less one."""
    seed: int = 0
    """The randomness, an integer from 0 to 2**64 - 1."""
    batch_size: int = 128
    """Samples at once, at least 1."""

    def run(self) -> None:
        """Test, print a table, and draw a picture."""
        check_out(self.out, PICTURES)
        if self.json is not None:
            check_out(self.json, (".json",))
        model = ScoreModel.from_pretrained(self.checkpoint)
        asked = self._held_out(self.data, self.split, model)
        x, condition = self._prepared(asked, self.data, model)
        warn_of_training(self.checkpoint, self.data, self.split)
        rows = torch.randperm(len(x), generator=seeded(self.seed))[: self.n]
        train, known = None, None
        if self.train is not None:
            learnt = self._held_out(self.train, None, model, usual="train")
            train, known = self._prepared(learnt, self.train, model)
        found = audit(
            model,
            model.sde,
            x[rows],
            condition=None if condition is None else condition.rows(rows),
            train=train,
            train_condition=known,
            levels=self.levels,
            samples=self.samples,
            steps=self.steps,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        show(found)
        if self.json is not None:
            show(f"all figures are in {found.to_json(self.json).absolute()}")
        show(f"the picture is {plot.save(found.plot(), self.out).absolute()}")

    def _held_out(
        self, source: str, split: str | None, model: ScoreModel, usual: str = "test"
    ) -> Data:
        """The data of a source, of this size and with these conditions."""
        return held_out(source, split, model, condition=self.condition, size=self.size, usual=usual)

    def _prepared(
        self, data: Data, source: str, model: ScoreModel
    ) -> tuple[Tensor, Condition | None]:
        """Samples, and those of their conditions that the model takes."""
        if self.n < 16 or len(data) < 16:
            raise InvalidValueError(
                f"an audit needs at least 16 samples, got --n {self.n} of {len(data)}"
            )
        return data.x.float(), conditions_of(data, source, model)

"""Define `scoresde calibrate`: test a conditional model's draws against held-out data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from scoresde import distributed, plot
from scoresde.checks import check_integer
from scoresde.cli.held_out import asked, conditions_of, words_of
from scoresde.cli.options import (
    BatchSize,
    Checkpoint,
    HeldOutSplit,
    OwnColumns,
    OwnData,
    SamplerName,
    Seed,
    Size,
    Steps,
)
from scoresde.cli.outputs import check_folder
from scoresde.cli.standing import model_of
from scoresde.cli.terminal import show, tell, then
from scoresde.errors import InvalidValueError
from scoresde.metrics import calibrate_pairs
from scoresde.sampling import Run
from scoresde.sde import Classes, Field, facts

__all__ = ["Calibrate"]


@dataclass(frozen=True)
class Calibrate:
    """Test whether a conditional model's draws have the conditional distribution of held-out data.

    If the model is right, a sample of the data looks like one more draw given its condition. Some
    of the samples are compared with the model's draws. The other samples are a reference: they give
    the scale of the data, and the points to which distances are measured. Draws and data are
    compared in the user's units; if the data are bytes, the draws are rounded to bytes.
    """

    checkpoint: Checkpoint
    data: OwnData = None
    split: HeldOutSplit = None
    condition: OwnColumns = ()
    size: Size = None
    n: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: half of the data)")
    ] = None
    """The number of samples that are compared with draws, at least 20. At least 20 further samples
    are needed as the reference."""
    draws: int = 99
    """The number of draws with which each sample is compared, at least 2."""
    sampler: SamplerName = "fast"
    steps: Steps = None
    seed: Seed = 0
    batch_size: BatchSize = 1000
    out: Path = Path("calibration")
    """The folder of the result: calibration.json and calibration.png."""

    def run(self) -> None:
        """Draw, test, print a table, and write the result."""
        check_folder(self.out)
        check_integer("batch_size", self.batch_size, 1)
        check_integer("draws", self.draws, 2)
        model = model_of(self.checkpoint).to(distributed.device())
        declared = facts(model).conditions
        if not declared:
            raise InvalidValueError(
                "this model takes no condition, but calibration tests draws given a condition; "
                "compare its samples with data by `scoresde evaluate`"
            )
        about = asked(self, model)
        data = about.data
        given = conditions_of(data, about.source, model)
        assert given is not None

        def draw(y: Tensor, k: int, seed: int) -> Tensor:
            drawn = Run.of(
                model, sampler=self.sampler, n=len(y) * k, steps=self.steps, seed=seed,
                condition=_split(y.repeat_interleave(k, 0), declared), progress=False,
            ).draw(self.batch_size)  # fmt: skip
            x = model.transform.restore(drawn.x.cpu()).float()
            return x.reshape(len(y), k, *x.shape[1:])

        x, y = model.transform.restore(data.x).float(), _joined(given, declared)
        there = ~y.isnan().any(1)
        if not there.all():
            tell(f"{int((~there).sum())} of {len(y)} samples lack a condition and are left out")
        found = calibrate_pairs(
            draw, x[there], y[there], n=self.n, draws=self.draws, seed=self.seed,
            batch_size=max(1, self.batch_size // self.draws), names=data.columns,
        )  # fmt: skip
        show(f"\n{found}\n")
        figures = found.to_json(self.out / "calibration.json")
        picture = plot.save(found.plot(), self.out / "calibration.png")
        tell(f"the result is in {figures.absolute()} and {picture.absolute()}")
        then("see at which noise scale the model is wrong", "audit", *words_of(self))


def _joined(given: Mapping[str, Tensor], declared: Mapping[str, Classes | Field]) -> Tensor:
    """Return all conditions of each sample as one vector, `(N, m)` float64, NaN where missing."""
    parts = []
    for name, kind in declared.items():
        part = given[name].double().reshape(len(given[name]), -1)
        parts.append(part.where(part >= 0, torch.nan) if isinstance(kind, Classes) else part)
    return torch.cat(parts, 1)


def _split(y: Tensor, declared: Mapping[str, Classes | Field]) -> dict[str, Tensor]:
    """Return the conditions by name, from the vectors of `_joined`."""
    sizes = [math.prod(kind.shape) for kind in declared.values()]
    parts = zip(declared.items(), torch.split(y, sizes, 1), strict=True)
    return {
        name: part.reshape(len(part), *kind.shape).to(
            torch.long if isinstance(kind, Classes) else torch.float32
        )
        for (name, kind), part in parts
    }

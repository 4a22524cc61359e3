"""`scoresde data check`: what would break a training run, before it does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from scoresde import plot
from scoresde.cli.config import SDE_WORDS
from scoresde.cli.look import PICTURES
from scoresde.cli.options import Columns, Layout, Missing, Sampled, Size, columns_of, sampled_of
from scoresde.cli.parsing import options_of
from scoresde.cli.sample import check_out
from scoresde.cli.terminal import in_options, show, then
from scoresde.data import check
from scoresde.errors import DataError, InvalidValueError
from scoresde.sde import SDE, VESDE

__all__ = ["CheckData"]


@dataclass(frozen=True)
class CheckData:
    """Look for what would break a training run; the exit code is 1 if anything would."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A folder of images, a .npy, .npz, .pt, .csv or .parquet, digits, mnist,
    hf:name[:split[:column]] ..."""
    split: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The part of a data set of torchvision or of the hub."""
    condition: Columns = ()
    sample: Sampled = None
    size: Size = None
    layout: Layout = None
    missing: Missing = "raise"
    standardize: bool = False
    """Whether floats would be shifted and scaled to mean 0 and variance 1."""
    channels: tuple[int, ...] = (32, 64)
    """Widths of the levels of the U-Net that would be trained."""
    patch: int = 2
    """Side of the patches that it begins with, at least 1."""
    sde: Annotated[SDE, SDE_WORDS] = field(default=VESDE())
    """The SDE, as for train."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """A picture of up to 64 samples, as the model would see them: .png, .jpg, .pdf or .svg."""

    def run(self) -> None:
        """Look, print, and fail where the training would."""
        if self.out is not None:
            check_out(self.out, PICTURES)
        if self.patch < 1 or not self.channels:
            raise InvalidValueError(
                f"need patch >= 1 and a level, got patch {self.patch} and channels {self.channels}"
            )
        report = check(
            self.source,
            condition=columns_of(self.condition),
            sample=sampled_of(self.sample),
            split=self.split,
            size=self.size,
            layout=self.layout,
            missing=self.missing,
            standardize=self.standardize,
            stride=self.patch * 2 ** (len(self.channels) - 1),
            sde=self.sde,
        )
        show(in_options(str(report), options_of(CheckData)))
        if self.out is not None and report.samples is not None:
            picture = plot.samples(report.samples)
            show(f"{'picture':14}{plot.save(picture, self.out)}")
        if not report.ok:
            count = len(report.problems)
            problems = "1 problem" if count == 1 else f"{count} problems"
            raise DataError(f"training on {self.source} would fail, by {problems}")
        conditions = [word for given in self.condition for word in ("--condition", given)]
        named = {
            "--split": self.split,
            "--size": self.size,
            "--sample": self.sample,
            "--layout": self.layout,
            "--missing": None if self.missing == "raise" else self.missing,
        }
        words = [word for k, v in named.items() if v is not None for word in (k, v)]
        words += ["--standardize"] if self.standardize else []
        then("train", "train", "--data", self.source, *words, *conditions, "--out", "run")

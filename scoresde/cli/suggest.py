"""`scoresde suggest`: noise levels and samplers for data, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from scoresde.cli.options import Size, Split
from scoresde.cli.terminal import show
from scoresde.data import load
from scoresde.suggestion import suggest

__all__ = ["Suggest"]


@dataclass(frozen=True)
class Suggest:
    """Choose noise levels and samplers for data, and say why."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """digits, a name of torchvision's (mnist, cifar10 ...), a .npy or .npz, a folder of images."""
    split: Split = None
    """The part of a data set of torchvision."""
    size: Size = None
    standardize: bool = False
    """Whether floats would be shifted and scaled to mean 0 and variance 1, as for train."""
    seed: int = 0
    """Which of the samples are looked at, where there are many."""

    def run(self) -> None:
        """Print a table."""
        data = load(self.data, split=self.split, size=self.size, standardize=self.standardize)
        show(suggest(data, seed=self.seed))

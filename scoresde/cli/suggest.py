"""`scoresde suggest`: what suits data, each choice with its reason."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated

import tyro

from scoresde.cli.config import RunConfig
from scoresde.cli.options import Columns, Size, Split
from scoresde.cli.source import DataConfig
from scoresde.cli.terminal import show
from scoresde.suggestion import suggest

__all__ = ["Suggest"]


@dataclass(frozen=True)
class Suggest:
    """Choose noise levels, samplers, a network and a training for data, and say why.

    The last line is the command that trains with them; `scoresde train` by itself does the same.
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """digits, a name of torchvision's (mnist, cifar10 ...), a .npy or .npz, a folder of images."""
    split: Split = None
    """The part of a data set of torchvision."""
    condition: Columns = ()
    size: Size = None
    standardize: bool = False
    """Whether floats would be shifted and scaled to mean 0 and variance 1, as for train."""
    seed: int = 0
    """Which of the samples are looked at, where there are many."""

    def run(self) -> None:
        """Print a table, and a command."""
        source = DataConfig(
            source=self.data, split=self.split, condition=self.condition, size=self.size,
            standardize=self.standardize,
        )  # fmt: skip
        found = suggest(source.load(), seed=self.seed)
        show(found)
        show("\n" + command(RunConfig.of(found, source)))


def command(run: RunConfig) -> str:
    """Return the command that trains with what was suggested."""
    data = run.data
    words = ["scoresde", "train", "--data", shlex.quote(data.source), "--out", "run"]
    for name in ("split", "size"):
        if (value := getattr(data, name)) is not None:
            words += [f"--{name}", shlex.quote(str(value))]
    for one in data.condition:
        words += ["--condition", shlex.quote(one)]
    words += ["--standardize"] if data.standardize else []
    lines = [" ".join(words)]
    lines += [f"--{name.replace('_', '-')} {value}" for name, value in run.words().items()]
    lines += [f"--seed {run.train.seed}"] if run.train.seed else []
    return " \\\n    ".join(lines)

"""Define `scoresde suggest`: choose the options of a training for data, with reasons."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from scoresde.cli.config import RunConfig
from scoresde.cli.open import PLAIN
from scoresde.cli.parsing import options_of
from scoresde.cli.source import DataArgument, described
from scoresde.cli.terminal import in_options, show, tell
from scoresde.data.data_check import remarks
from scoresde.suggestion import suggest

__all__ = ["Suggest"]


@dataclass(frozen=True)
class Suggest:
    """Choose noise scales, samplers, a network and training settings for data, and say why.

    A command that trains with these choices is printed at the end; `scoresde train` without further
    options makes the same choices.
    """

    bare: ClassVar[str] = "--data"

    data: Annotated[DataArgument, tyro.conf.arg(name="data"), tyro.conf.OmitArgPrefixes]
    seed: int = 0
    """The seed of the random choice of 2,000 samples, if there are more; only these are
    examined."""
    samplers: Annotated[bool, PLAIN] = False
    """Also print settings of the papers' samplers: levels and ratio of an NCSN ladder, kappa and
    k of annealed Langevin dynamics, steps and snr of predictor-corrector sampling."""

    def run(self) -> None:
        """Print a table, and a command."""
        data = self.data.load()
        tell(described(data, self.data.source))
        found = suggest(data, seed=self.seed)
        show(found.table(samplers=self.samplers))
        for remark in remarks(data, found.sde()):
            show(in_options(f"{'remark':11}{remark}", options_of(Suggest)))
        show("\n" + command(RunConfig.of(found, self.data)))


def command(run: RunConfig) -> str:
    """Return the command that trains with the suggestion."""
    words = ["scoresde", "train", "--data", run.data.source, "--out", "run", *run.data.words()]
    lines = [shlex.join(words)]
    lines += [f"--{name.replace('_', '-')} {value}" for name, value in run.words().items()]
    lines += [f"--seed {run.train.seed}"] if run.train.seed else []
    return " \\\n    ".join(lines)

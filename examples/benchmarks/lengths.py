r"""How long to train, and how long to average: the measurements of docs/how-long.md.

1. Stop. One run on few samples (8x8 digits of five classes), longer than `suggest` chooses: the
   training loss and the held-out loss of the log, over the passes through the data.
2. Average. Runs of equal CPU time under three schedules of the rate, each with averages of several
   lengths: the held-out loss of each as in `recipes.py`, and of the last weights (decay 0).

How the loss falls with the time of a run is measured by `networks.py --seconds 15`, `30`, ...

    python examples/benchmarks/lengths.py
    python examples/benchmarks/lengths.py --parts average --seconds 60
    python examples/benchmarks/lengths.py --short    # seconds: does it run?
"""

from __future__ import annotations

import statistics
import time
import warnings
from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro
from problems import PROBLEMS
from recipes import judged

from scoresde import Moments, suggest
from scoresde.data import Data

DECAYS = (0.0, 0.99, 0.999, 0.9997)
SCHEDULES = ("cosine", "wsd", "constant")


@dataclass(frozen=True)
class Options:
    """What to run."""

    parts: tuple[Literal["stop", "average"], ...] = ("stop", "average")
    """What to measure."""
    problem: tuple[str, ...] = ("patches",)
    """On which images the averages are measured, as in recipes.py."""
    seconds: float = 40.0
    """Seconds of one core for each training of an average."""
    passes: int = 600
    """Passes through the few samples."""
    short: bool = False
    """A run of seconds that shows that everything works and measures nothing."""


def images(problem: str, short: bool) -> tuple[Data, Data]:
    """The judging variant without labels."""
    learnt, held = PROBLEMS[problem](True, short)
    if "label" in learnt.kinds:
        learnt, held = Data(learnt.without("label")), Data(held.without("label"))
    return learnt, held


def stop(options: Options) -> None:
    """Print a log that overfits."""
    learnt, _ = images("digits", options.short)
    found = suggest(learnt)
    steps = int(0.8 * len(learnt) * options.passes / found.config.batch_size)
    every = max(1, steps // 20)
    trainer = found.trainer(steps=steps, held_out=0.2, log_every=every, save_every=every)
    start = time.process_time()
    trainer.train(progress=False)
    spent, held = time.process_time() - start, trainer.held_out
    assert held is not None
    print(f"digits, {len(learnt) - len(held.data)} learnt, {steps} steps, {spent:.0f} s")
    print(f"suggest chooses {found.config.steps} steps; lowest held-out loss at step {held.at}")
    print(f"{'passes':>8}{'training':>10}{'held out':>10}  by quarters of noise")
    for row in trainer.history.rows:
        passes = row["step"] / steps * options.passes
        quarters = "".join(f"{row[f'held_out_{i}']:9.4f}" for i in (1, 2, 3, 4))
        print(f"{passes:8.0f}{row['loss']:10.4f}{row['held_out']:10.4f}{quarters}")


def average(options: Options) -> None:
    """Print the loss of averages."""
    print("\n" + f"{'':22}decay " + "".join(f"{decay:8g}" for decay in DECAYS))
    for problem in options.problem:
        learnt, held = images(problem, options.short)
        found, var = suggest(learnt), Moments(*learnt.moments()).mean_variance()
        begun = found.trainer(steps=1000, held_out=0.0)
        begun.train(2, progress=False)
        start = time.process_time()
        begun.train(2 if options.short else 40, progress=False)
        pace = (begun.step - 2) / (time.process_time() - start)
        steps = max(4, round(pace * options.seconds))
        for decay in SCHEDULES:
            trainer = found.trainer(steps=steps, held_out=0.0, decay=decay, ema=DECAYS)
            trainer.train(progress=False)
            losses = [
                statistics.fmean(judged(model, held, var, 20 if options.short else 250, repeats=1))
                for model in (a.model for a in trainer.ema.whole().results.values())
            ]
            print(
                f"{problem:10}{decay:9}{steps:6} steps" + "".join(f"{x:8.4f}" for x in losses),
                flush=True,
            )


def main(options: Options) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.short:
        options = replace(options, seconds=0.2, passes=20)
    for part in options.parts:
        {"stop": stop, "average": average}[part](options)


if __name__ == "__main__":
    main(tyro.cli(Options))

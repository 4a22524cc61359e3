r"""Measure how long to train, and how long to average, for docs/how-long.md.

1. Stop. One run on few samples (8x8 digits of five classes), longer than `suggest` chooses: the
   training loss and the held-out loss of the log, over the passes through the data.
2. Average. Runs of equal CPU time under three schedules of the rate, each with averages of several
   lengths: the held-out loss of each as in `recipes.py`, and of the last weights (decay 0).
3. Pictures. Runs of several lengths on 800 grey images of 37x53 pixels: the held-out loss, and the
   share of samples that show an ellipse, as the data do.

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
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from problems import PROBLEMS
from recipes import judged
from scipy.ndimage import label
from torch import Tensor

from scoresde import Moments, plot, sample, suggest
from scoresde.data import Data

DECAYS = (0.0, 0.99, 0.999, 0.9997)
SCHEDULES = ("cosine", "wsd", "constant")


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    parts: tuple[Literal["stop", "average", "pictures"], ...] = ("stop", "average", "pictures")
    """What to measure."""
    problem: tuple[str, ...] = ("patches",)
    """On which images the averages are measured, as in recipes.py."""
    seconds: float = 40.0
    """Seconds of one core for each training of an average."""
    passes: int = 600
    """Passes through the few samples."""
    out: Path = Path("figures")
    """Where the picture goes."""
    short: bool = False
    """A run of seconds that shows that everything works and measures nothing."""


def images(problem: str, short: bool) -> tuple[Data, Data]:
    """Return the judging variant of a problem, without labels."""
    learnt, held = PROBLEMS[problem](True, short)
    if "label" in learnt.kinds:
        learnt, held = Data(learnt.without("label")), Data(held.without("label"))
    return learnt, held


def stop(options: Options) -> None:
    """Print the log of a run that overfits."""
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


def ellipses(n: int) -> Tensor:
    """Return grey images of 37x53 pixels as bytes, in each a bright ellipse, as in kinds.py."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:37, :53]
    centre, radii = rng.uniform((12, 14), (25, 39), (n, 2)), rng.uniform(5, 11, (n, 2))
    far = sum(
        ((g - centre[:, i, None, None]) / radii[:, i, None, None]) ** 2
        for i, g in enumerate((y, x))
    )
    return torch.from_numpy((255 / (1 + np.exp(8 * (far - 1)))).astype(np.uint8))[:, None]


def whole(x: Tensor) -> float:
    """Return the share of images whose bright pixels are one piece and nearly fill an ellipse."""
    good = 0
    for image in x[:, 0].numpy() > 127:
        pieces, count = label(image)
        if count != 1:
            continue
        at = np.argwhere(pieces).astype(float)
        # the area of an ellipse of these second moments
        good += len(at) > 0.97 * 4 * np.pi * np.linalg.det(np.cov(at.T)) ** 0.5
    return good / len(x)


def pictures(options: Options) -> None:
    """Print the held-out loss and the share of whole ellipses after runs of several lengths."""
    data, drawn = ellipses(64 if options.short else 800), {}
    print(f"{'steps':>8}{'seconds':>9}{'held out':>10}  ellipses that are whole")
    print(f"{'data':>8}{'':19}{whole(data):10.2f}")
    for steps in (2,) if options.short else (200, 400, 800, 1600, 3200):
        trainer, start = suggest(data).trainer(steps=steps), time.process_time()
        model = trainer.train(progress=False)
        spent = time.process_time() - start
        x = sample(
            model, sampler="dpmpp_2m", n=4 if options.short else 100, seed=0, units=True,
            steps=2 if options.short else 20, batch_size=20, progress=False,
        )  # fmt: skip
        loss = trainer.history.latest["held_out"]
        print(f"{steps:8}{spent:9.0f}{loss:10.4f}{whole(x):10.2f}", flush=True)
        drawn[f"{steps:,} steps, {spent / 60:.1f} min"] = x[:8]
    plot.save(plot.samples(drawn, columns=2, scale=2), options.out / "images_by_length.png")


def main(options: Options) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.short:
        options = replace(options, seconds=0.2, passes=20)
    for part in options.parts:
        {"stop": stop, "average": average, "pictures": pictures}[part](options)


if __name__ == "__main__":
    main(tyro.cli(Options))

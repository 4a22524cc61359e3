r"""Measure the cost of a training step, beside a loop written by hand and with each option.

1. Overhead. The same network, optimiser, average and loss, once in a `Trainer` and once in thirty
   lines of plain torch, for a U-Net of realistic size and for a tiny MLP, where whatever a step
   does beside the network shows most.
2. Options. The U-Net's step with each option of `TrainConfig` that changes how it is computed:
   time, and the memory that a step needs on top of what is there before it.
3. Batches. The same step on images that are decoded, resized and augmented for every batch, in the
   training process or in worker processes.

All contenders take turns, so that a change in the speed of the machine affects all of them. Seconds
are processor time of the thread, or, with workers, of the training process, which is the time of a
step if other cores are free. A figure is the median over the turns; an overhead is the median of
the ratios within a turn, with its 95 % interval.

    python examples/benchmarks/training.py                    # a quarter of an hour
    python examples/benchmarks/training.py --parts options    # one of the three
    python examples/benchmarks/training.py --short            # seconds: does it run?
"""

from __future__ import annotations

import csv
import math
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor, nn

from scoresde import Moments, ScoreModel
from scoresde.data import Data, load
from scoresde.nn import MLP, UNet
from scoresde.objectives import dsm_loss, edm
from scoresde.sde import EDMSDE, LogNormal
from scoresde.training import Callback, TrainConfig, Trainer

DECAY, CLIP, LR = 0.999, 1.0, 1e-3
LOSS = partial(dsm_loss, weight=edm(1.0), law=LogNormal(0.0, 1.2))


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    parts: tuple[Literal["overhead", "options", "batches"], ...] = (
        "overhead", "options", "batches",
    )  # fmt: skip
    """What to measure."""
    turns: int = 21
    """Turns of every contender; the first is not counted."""
    batch: int = 64
    """Samples in a batch."""
    compile: bool = True
    """Whether torch.compile is among the options: it needs a C++ compiler, and minutes."""
    short: bool = False
    """A run of a few seconds that shows that everything works and measures nothing."""
    csv: Path | None = None
    """Where to write the tables of options and batches."""


def unet() -> nn.Module:
    """Return a U-Net with 1.6 million parameters, for images of 28 x 28."""
    return UNet(1, patch=2, channels=(48, 80, 104, 112))


def mlp() -> nn.Module:
    """Return a network for points of the plane."""
    return MLP(2, hidden=(64, 64))


def built(make: Callable[[], nn.Module], x: Tensor) -> ScoreModel:
    """Return a score model with the same initial weights at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(0).get_state())
        return ScoreModel(make(), EDMSDE(), x.shape[1:], moments=Moments(0.0, var=1.0))


# --- the contenders: functions that make some steps -----------------------------------------------

Contender = Callable[[int], Any]


def configured(batch: int, **options: Any) -> TrainConfig:
    """Return the settings of every run."""
    return TrainConfig(steps=10**6, batch_size=batch).changed(
        lr=LR, clip=CLIP, ema=DECAY, decay="constant", warmup=0, **options
    )


def trainer(make: Callable[[], nn.Module], x: Tensor, batch: int, **options: Any) -> Contender:
    """Return a function that makes steps of a `Trainer`."""
    run = Trainer(built(make, x), x, configured(batch, **options), loss=LOSS)
    return lambda steps: run.train(steps, progress=False)


def by_hand(make: Callable[[], nn.Module], x: Tensor, batch: int) -> Contender:
    """Return a function that makes the same steps in plain torch (Karras et al. 2022, table 1)."""
    net = built(make, x).net.train()
    weights = list(net.parameters())
    average = [p.detach().clone() for p in weights]
    optimizer = torch.optim.Adam(weights, lr=LR, betas=(0.9, 0.99), fused=True)
    generator = torch.Generator().manual_seed(0)
    one = (batch, *(1,) * (x.ndim - 1))

    def run(steps: int) -> None:
        for _ in range(steps):
            x0 = x[torch.randint(len(x), (batch,), generator=generator)]
            sigma = (1.2 * torch.randn(one, generator=generator)).exp()
            noisy = x0 + sigma * torch.randn(x0.shape, generator=generator)
            total = 1 + sigma**2
            out = net(noisy / total.sqrt(), 0.25 * sigma.flatten().log())
            denoised = noisy / total + sigma / total.sqrt() * out
            loss = (total / sigma**2 * (denoised - x0) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, CLIP)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(average, weights, 1 - DECAY)

    return run


# --- the measurements -----------------------------------------------------------------------------


def turns(contenders: Mapping[str, Contender], steps: int, n: int) -> dict[str, list[float]]:
    """Return the milliseconds of a step of each contender in each of `n` turns but the first."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(n):
        for name, run in contenders.items():
            start = time.thread_time()
            run(steps)
            if turn:
                found[name].append(1e3 * (time.thread_time() - start) / steps)
    return found


def interval(values: list[float]) -> tuple[float, float]:
    """Return a 95 % interval of the median, from the order of the values."""
    n, ordered = len(values), sorted(values)
    k = max(0, math.floor((n - 1.96 * math.sqrt(n)) / 2))
    return ordered[k], ordered[n - 1 - k]


def overhead(name: str, ms: Mapping[str, list[float]]) -> None:
    """Print what the trainer adds to a step."""
    ours, hand = (statistics.median(ms[key]) for key in ("trainer", "by hand"))
    ratios = [100 * (a / b - 1) for a, b in zip(ms["trainer"], ms["by hand"], strict=True)]
    low, high = interval(ratios)
    print(
        f"{name}: {ours:.3f} ms a step in the trainer, {hand:.3f} by hand: "
        f"{statistics.median(ratios):+.2f} % [{low:+.2f}, {high:+.2f}]"
    )


def memory(make: Callable[[], Contender]) -> float:
    """Return the additional megabytes of two steps, in a process of their own."""
    if sys.platform != "linux":
        return math.nan
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def measure() -> None:
        run = make()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run(2)
        there.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)

    child = context.Process(target=measure)
    child.start()
    child.join()
    return float(here.recv()) if here.poll() else math.nan


class Clock(Callback):
    """Record the processor time of this process at every row of the log."""

    def __init__(self) -> None:
        self.ticks: list[float] = []

    def on_log(self, row: Mapping[str, float]) -> None:
        """Append the processor time."""
        self.ticks.append(time.process_time())


def in_files(folder: Path, n: int) -> Data:
    """Write smooth random pictures of 256 x 256 as JPEG; return them as data of 28 x 28."""
    rng = np.random.default_rng(0)
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8))
        small.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{i:04d}.jpg")
    return load(folder, size=28, lazy=True)


Rows = list[tuple[str, ...]]


def overheads(options: Options, images: Tensor, points: Tensor) -> None:
    """Print what the trainer adds to a step of two networks."""
    pairs = [("U-Net, 1.6M parameters", unet, images, 2), ("MLP, 5k parameters", mlp, points, 100)]
    for name, make, x, steps in pairs:
        pair = {
            "trainer": trainer(make, x, options.batch),
            "by hand": by_hand(make, x, options.batch),
        }
        overhead(name, turns(pair, 1 if options.short else steps, options.turns))


def kinds(options: Options, images: Tensor) -> Rows:
    """Return the table of a step with each option that changes how it is computed."""
    chosen: dict[str, dict[str, Any]] = {
        "as it is": {},
        "bf16": dict(bf16=True),
        "channels_last": dict(channels_last=True),
        "bf16, channels_last": dict(bf16=True, channels_last=True),
        "recompute": dict(recompute=True),
        "accumulate = 4": dict(accumulate=4),
        "fused = False": dict(fused=False),
    }
    if options.compile:
        chosen["compile"] = dict(compile=True)
        chosen["compile, bf16"] = dict(compile=True, bf16=True)

    def made(kind: Mapping[str, Any]) -> Contender:
        return trainer(unet, images, options.batch, **kind)

    # measure memory first, while the process is small
    megabytes = {
        name: memory(partial(made, kind)) for name, kind in chosen.items() if "compile" not in kind
    }
    contenders = {name: made(kind) for name, kind in chosen.items()}
    found = turns(contenders, 1 if options.short else 2, options.turns)
    rows = beside("option", found)
    return [(*rows[0], "MB a step")] + [
        (*row, f"{megabytes[row[0]]:.0f}" if row[0] in megabytes else "") for row in rows[1:]
    ]


def batches(options: Options) -> Rows:
    """Return the table of a step with each number of workers, after the first steps."""
    every = 1 if options.short else 5
    with tempfile.TemporaryDirectory() as folder:
        data = in_files(Path(folder), options.batch if options.short else 1024)
        shown, runs = data.batch(slice(0, 2)), {}
        for workers in (0, 1, 2):
            config = configured(
                options.batch, augment=("hflip", "shift"), workers=workers, log_every=every
            )
            clock = Clock()
            runs[f"workers = {workers}"] = (
                Trainer(built(unet, shown), data, config, loss=LOSS, callbacks=[clock]),
                clock,
            )
        found: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(options.turns):
            for name, (run, clock) in runs.items():
                clock.ticks.clear()
                run.train(5 * every, progress=False)
                if turn:
                    passed = clock.ticks[-1] - clock.ticks[0]
                    found[name].append(1e3 * passed / (4 * every))
    return beside("batches", found)


def beside(what: str, found: Mapping[str, list[float]]) -> Rows:
    """Return the median of every contender, and the median of its ratios to the first."""
    first = next(iter(found.values()))
    rows: Rows = [(what, "ms a step", "times the first")]
    for name, ms in found.items():
        ratios = [a / b for a, b in zip(ms, first, strict=True)]
        rows.append((name, f"{statistics.median(ms):.1f}", f"{statistics.median(ratios):.2f}"))
    return rows


def main(options: Options) -> None:
    """Measure and print."""
    if options.short:
        options = replace(options, turns=2, batch=4, compile=False)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(256, 1, 28, 28, generator=generator)
    points = torch.randn(4096, 2, generator=generator)
    print(f"one thread, batch {options.batch}, median of {options.turns - 1} turns")
    tables = {}
    if "options" in options.parts:
        tables["Options of the U-Net's step"] = kinds(options, images)
    if "batches" in options.parts:
        tables["Batches of augmented images from files"] = batches(options)
    if "overhead" in options.parts:
        print("\nOverhead\n")
        overheads(options, images, points)
    for title, rows in tables.items():
        print(f"\n{title}\n")
        for row in rows:
            print(f"{row[0]:<20}" + "".join(f"{cell:>17}" for cell in row[1:]))
    if options.csv is not None:
        with options.csv.open("w", newline="") as file:
            csv.writer(file).writerows(row for rows in tables.values() for row in rows)


if __name__ == "__main__":
    main(tyro.cli(Options))

"""Train the packaged model of the pulse at a finger, which `scoresde.load("pulse")` reads.

The data are windows of 2.5 seconds of a recording of 11 minutes, which the package heartpy ships
(van Gent et al. 2019, doi:10.1016/j.trf.2019.09.015, MIT licence). The training is as
`scoresde.suggest` proposes. Every fifth piece of ten seconds is held out. Then the script prints

- a comparison of samples with held-out windows, and of training windows with held-out windows;
- the heart rates of samples and data;
- for a second that is removed from held-out windows and drawn from its posterior, the share of the
  removed values within the central 90 % of the draws.

    python examples/pulse.py --out runs/pulse

It takes about half an hour on one core. If it is stopped, the same command continues the training.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
import tyro
from torch import Tensor

import scoresde
from scoresde import ScoreModel, plot
from scoresde.data import Data
from scoresde.guidance import Linear, Mask, posterior
from scoresde.metrics import evaluate
from scoresde.units import Range

WINDOW, PIECE, STRIDE = 256, 1024, 4  # values; there are 102 in a second
RATE = 101.9  # values a second, 68,475 in 671.9 s
GAP = slice(100, 202)  # a second


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("runs/pulse")
    """Where the run and the picture are kept; the same command again continues with it."""
    steps: int = 16_000
    """Training steps, of 32 windows each."""
    short: bool = False
    """A run of seconds, too short to be good."""


def recording() -> Tensor:
    """Return the light that passes through a finger, in numbers from 0 to 1,023."""
    found = find_spec("heartpy")  # its file is read; the package is not imported
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the recording comes with heartpy: pip install --no-deps heartpy")
    path = Path(found.submodule_search_locations[0]) / "data" / "data3.csv"
    with path.open() as rows:
        return torch.tensor([float(row["hr"]) for row in csv.DictReader(rows)])


def windows(pieces: Tensor) -> Data:
    """Return the windows `(n, 1, 256)` of pieces; without those where the sensor slipped."""
    x = pieces.unfold(1, WINDOW, STRIDE).reshape(-1, 1, WINDOW)
    good = (x.amin((1, 2)) > 50) & (x.amax((1, 2)) < 978) & (x.std((1, 2)) > 40)
    return Data(x[good], transform=Range(0, 1023))


def data() -> tuple[Data, Data]:
    """Return the windows that are learnt, and those of every fifth piece, which are not."""
    record = recording()[13_500:]  # before, the sensor clips
    pieces = record[: len(record) // PIECE * PIECE].reshape(-1, PIECE)
    held = torch.arange(len(pieces)) % 5 == 4
    return windows(pieces[~held]), windows(pieces[held])


def heart_rates(x: Tensor) -> Tensor:
    """Return the beats a minute of windows `(n, 1, 256)`, by the peak of their autocorrelation."""
    x = (x - x.mean(2, keepdim=True)).flatten(1)
    spectrum = torch.fft.rfft(x, 2 * WINDOW).abs().square()
    overlap = torch.arange(WINDOW, 0, -1)
    correlation = torch.fft.irfft(spectrum)[:, :WINDOW] / overlap
    shortest, longest = 40, 110  # of a beat: 56 to 153 a minute
    period = shortest + correlation[:, shortest:longest].argmax(1)
    return 60 * RATE / period


def fill(model: ScoreModel, held: Data, n: int, short: bool) -> tuple[Tensor, Tensor]:
    """Return some held-out windows, and n draws of each given all but a second of it."""
    rows = torch.linspace(0, len(held) - 1, 3 if short else 24).long()
    truth = held[rows].x
    known = torch.ones(1, WINDOW)
    known[:, GAP] = 0
    instrument = Linear(Mask(known), std=0.01)
    score = posterior(model, instrument)
    y = instrument(truth)
    draws = scoresde.sample(
        score, sampler="unipc", steps=5 if short else 40, n=len(rows) * n, seed=1, batch_size=128,
        condition={"measurement": y.repeat_interleave(n, dim=0)},
    )  # fmt: skip
    return truth, draws.unflatten(0, (len(rows), n))


def measure(model: ScoreModel, train: Data, held: Data, options: Options) -> None:
    """Print the figures, and write a picture."""
    n = 8 if options.short else 500
    x = scoresde.sample(model, sampler="fast", steps=5 if options.short else 20, n=n, seed=0)
    every = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:n]
    print(f"samples, beside held-out windows\n{evaluate(x, held, train=train, seed=0)}\n")
    print(f"learnt windows, beside held-out ones\n{evaluate(train[every].x, held, seed=0)}\n")
    for name, sample in (("samples", x), ("held-out windows", held[:].x)):
        low, middle, high = heart_rates(sample).quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()
        print(f"{name}: {middle:.0f} beats a minute, 90 % from {low:.0f} to {high:.0f}")

    draws = 8 if options.short else 40
    truth, found = fill(model, held, draws, options.short)
    hidden, drawn = truth[..., GAP], found[..., GAP]
    low, high = drawn.quantile(0.05, dim=1), drawn.quantile(0.95, dim=1)
    inside = ((low <= hidden) & (hidden <= high)).double().mean()
    error = (drawn.mean(1) - hidden).square().mean().sqrt() / hidden.std()
    print(f"a missing second: {inside:.0%} of its values are within 90 % of {draws} draws;")
    print(f"the error of their mean is {error:.2f} of the values' standard deviation")

    draw(train, x, train[every[:3]].x, truth, found, options.out / "pulse.png")


def draw(data: Data, x: Tensor, real: Tensor, truth: Tensor, found: Tensor, path: Path) -> None:
    """Write a picture of data, samples and windows with a missing second, in the sensor's units."""
    seconds = torch.arange(WINDOW) / RATE
    sheet = plot.figure((10, 6.4))
    top, middle, bottom = sheet.subplots(3, 3, sharex=True, sharey=True)
    for i in range(3):
        row = i * (len(truth) - 1) // 2
        top[i].plot(seconds, data.transform.inverse(real[i, 0]), color="0.4")
        middle[i].plot(seconds, data.transform.inverse(x[i, 0]), color="#d1495b")
        draws = data.transform.inverse(found[row, :20, 0, GAP])
        bottom[i].plot(seconds[GAP], draws.T, color="#d1495b", lw=0.5, alpha=0.7)
        bottom[i].plot(seconds, data.transform.inverse(truth[row, 0]), color="0.2", lw=1)
    top[1].set_title("recorded")
    middle[1].set_title("drawn")
    bottom[1].set_title("a second that was hidden, drawn twenty times")
    bottom[1].set_xlabel("seconds")
    print(f"wrote {plot.save(sheet, path)}")


def main(options: Options) -> None:
    torch.manual_seed(0)  # the first weights
    train, held = data()
    folder = options.out / "short" if options.short else options.out
    print(f"{len(train):,} windows are learnt, {len(held):,} held out")
    # no random tenth is held out, since it would overlap with the training windows
    trainer = scoresde.suggest(train).trainer(
        folder, held_out=0.0, steps=20 if options.short else options.steps
    )
    trained = trainer.train()
    budgets = () if options.short else (5, 10, 15, 20)
    trained.pilot = scoresde.pilot(trained, steps=5 if options.short else 63, budgets=budgets)
    # half precision is what the package carries, so it is what is measured
    trained.save_pretrained(folder / "half", dtype=torch.float16)
    measure(ScoreModel.from_pretrained(folder / "half"), train, held, options)


if __name__ == "__main__":
    main(tyro.cli(Options))

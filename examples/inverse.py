r"""Reconstruct a signal from noisy frequencies, and compare with the exact posterior.

Smooth random signals of 64 numbers are Gaussian, so their score and posteriors are exact. A scanner
measures some frequencies of one signal, with noise. For each method the script prints the number of
passes, the errors of the mean and of the standard deviation ("bars") of the draws in units of the
exact standard deviation, and the share of the signal within two standard deviations. The picture
shows draws of `mmps`, with the exact interval as dashed lines.

    python examples/inverse.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor

import scoresde
from scoresde import plot
from scoresde.guidance import Fourier, Linear, posterior
from scoresde.targets import Gaussian

Method = Literal["mmps", "pigdm", "dps"]


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    n: int = 1_000
    """Samples."""
    steps: int = 30
    """Steps of Heun's method."""
    std: float = 0.3
    """Noise of each measurement."""
    short: bool = False
    """A run of seconds, too short to be good."""


def signals() -> Gaussian:
    """Return the law of smooth random signals."""
    place = torch.arange(64.0)
    cov = torch.exp(-0.5 * ((place[:, None] - place) / 4) ** 2) + 1e-4 * torch.eye(64)
    return Gaussian(torch.zeros(64), cov=cov)


def reconstruct(scanner: Linear, y: Tensor, method: Method, options: Options) -> Tensor:
    """Draw signals given the measurement, and print the cost."""
    score = posterior(signals().at(scoresde.VESDE()), scanner, method)
    n, steps = (50, 8) if options.short else (options.n, options.steps)
    given = {"measurement": y}
    found = scoresde.Run.of(
        score, sampler="heun", steps=steps, n=n, seed=0, condition=given, progress=False
    ).draw()
    print(f"{method:6} {found.passes:6} passes", end="")
    return found.x


def main(options: Options) -> None:
    """Measure a signal, draw from its posterior by each method, and draw the picture."""
    law = signals()
    keep = torch.zeros(64)
    keep[[0, 1, 2, 4, 5, 7, 11, 60, 62]] = 1
    scanner = Linear(Fourier(keep), options.std)
    draw = torch.Generator().manual_seed(1)
    truth = law.sample(1, generator=draw)
    clean = scanner(truth)[0]
    y = clean + options.std * torch.randn(clean.shape, generator=draw)

    exact = law.posterior(scanner.A, options.std, y)
    middle, bars = exact.means[0], exact.moments().cov.diagonal().sqrt()
    drawn = {}
    for method in ("mmps", "pigdm", "dps"):
        x = drawn[method] = reconstruct(scanner, y, method, options)
        mean = float(((x.mean(0) - middle) / bars).abs().mean())
        spread = float((x.std(0) / bars - 1).abs().mean())
        inside = float(((truth[0] - x.mean(0)).abs() < 2 * x.std(0)).double().mean())
        print(f"   mean off by {mean:.2f} bars, bars by {spread:.0%}, {inside:.0%} within two")

    x = drawn["mmps"]
    place, mean, spread = range(64), x.mean(0), x.std(0)
    sheet = plot.figure((8, 2.8))
    axis = sheet.subplots()
    low, high = mean - 2 * spread, mean + 2 * spread
    axis.fill_between(place, low, high, color="#d1495b", alpha=0.25, lw=0, label="two bars")
    axis.plot(place, x[:5].T, color="#d1495b", lw=0.5)
    for side in (-2, 2):
        axis.plot(place, middle + side * bars, color="C0", lw=0.8, ls="--")
    axis.plot([], [], color="C0", lw=0.8, ls="--", label="exact")
    axis.plot(place, truth[0], color="black", label="truth")
    axis.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    print(f"wrote {plot.save(sheet, options.out / 'inverse.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))

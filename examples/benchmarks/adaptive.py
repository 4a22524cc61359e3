r"""Measure the bias of `"adaptive"`: the variance of samples of Gaussian data over the exact one.

The score is exact, the starts are draws of p_T, and there is no denoising at the end. The variance
about the known mean is averaged over samples and dimensions, with a 99 % interval.

    python examples/benchmarks/adaptive.py            # 200,000 samples a row: a quarter of an hour
    python examples/benchmarks/adaptive.py --short    # seconds
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import tyro

from scoresde.noise import Noise
from scoresde.samplers import AdaptiveSDE
from scoresde.sde import SDE, VESDE, VPSDE, FlowSDE
from scoresde.targets import Gaussian

# Standard deviations of a normal number on each side of a 99 % interval.
_SIDE = 2.576


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    n: int = 200_000
    """Samples of each row, in batches of 20,000."""
    dimensions: tuple[int, ...] = (1, 2, 16)
    """Numbers in a sample."""
    tolerances: tuple[float, ...] = (0.01, 0.1)
    """Both tolerances of each row; the first is the default."""
    std: float = 0.5
    """The standard deviation of the data."""
    short: bool = False
    """Few samples in one dimension."""


@torch.no_grad()
def bias(
    sde: SDE, size: int, method: AdaptiveSDE, n: int, std: float, batch: int = 20_000
) -> tuple[float, float, int]:
    """Return the variance over the exact one, half its interval, and evaluations of the slowest."""
    score = Gaussian([0.0] * size, std=std).at(sde)
    generator = torch.Generator().manual_seed(0)
    t, s = (torch.tensor(time, dtype=torch.float64) for time in (sde.T, sde.eps))
    exact = float((sde.alpha(s) * std) ** 2 + sde.sigma(s) ** 2)
    squares, nfe = [], 0
    for first in range(0, n, batch):
        count = min(batch, n - first)
        x = score.target.sample(count, sde, t, generator=generator, dtype=torch.float64)
        rsde = sde.reverse(score)
        x = method.step(rsde, x, t, s, Noise.of(0, count, first=first, horizon=sde.T))
        squares.append(x.square().mean(1) / exact)
        nfe = max(nfe, rsde.nfe)
    ratio = torch.cat(squares)
    return float(ratio.mean()), _SIDE * float(ratio.std()) / math.sqrt(n), nfe


def main(options: Options) -> None:
    """Print the table."""
    short = options.short
    n, dimensions = (2_000, (1,)) if short else (options.n, options.dimensions)
    sdes: Sequence[SDE] = (VPSDE(), VESDE(), FlowSDE())
    print(f"{'SDE':10} {'D':>3} {'tolerance':>9} {'variance':>9} {'99 %':>18} {'evaluations':>11}")
    for sde in sdes:
        for size in dimensions:
            for tolerance in options.tolerances:
                found, half, nfe = bias(
                    sde, size, AdaptiveSDE(tolerance, tolerance), n, options.std
                )
                interval = f"[{found - half:.4f}, {found + half:.4f}]"
                name = type(sde).__name__
                print(
                    f"{name:10} {size:3} {tolerance:9} {found:9.4f} {interval:>18} {nfe:11}",
                    flush=True,
                )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

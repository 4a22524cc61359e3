r"""Measure the bias of `"adaptive"`: the variance of samples of Gaussian data over the exact one.

The score is exact, the starts are draws of p_T, and there is no denoising at the end. The variance
about the known mean is averaged over samples and dimensions, with a 99 % interval. The Brownian
paths of all samples are drawn together, by Brownian bridges between the times drawn so far.

    python examples/benchmarks/adaptive.py            # 200,000 samples a row: a quarter of an hour
    python examples/benchmarks/adaptive.py --short    # seconds
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

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


class Paths:
    """Draw the increments of independent Brownian paths, each over an interval of its own.

    Beyond the times drawn so far a path is continued; between two of them it is drawn as a Brownian
    bridge. Times count from the start of the run, `T - t`.
    """

    def __init__(self, n: int, size: int, horizon: float, generator: torch.Generator) -> None:
        self.horizon, self.generator = horizon, generator
        self.times = torch.zeros(n, 1, dtype=torch.float64)
        self.values = torch.zeros(n, 1, size, dtype=torch.float64)

    def __call__(self, like: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Return the increments over `[s, t]`, `(B,)` each, standard normal; 0 where s = t."""
        gap = self._at(self.horizon - s) - self._at(self.horizon - t)
        return (gap / (t - s).sqrt()[:, None].clamp(min=1e-300)).to(like)

    def _at(self, u: Tensor) -> Tensor:
        """Return the paths at times `(B,)`, drawn if they are new."""
        rows, last = torch.arange(len(u)), self.times.shape[1] - 1
        # the first known time at or after u
        after = torch.searchsorted(self.times, u[:, None]).flatten()
        known = (after <= last) & (self.times[rows, after.clamp(max=last)] == u)
        left, right = (after - 1).clamp(min=0), after.clamp(max=last)
        low, high = self.times[rows, left], self.times[rows, right]
        start, end = self.values[rows, left], self.values[rows, right]
        beyond = after > last
        part = torch.where(beyond, 0.0, (u - low) / (high - low).clamp(min=1e-300)).clamp(0, 1)
        std = ((u - low) * (1 - part)).clamp(min=0).sqrt()
        z = torch.randn(start.shape, generator=self.generator, dtype=torch.float64)
        new = torch.lerp(start, end, part[:, None]) + std[:, None] * z
        new = torch.where(known[:, None], self.values[rows, right], new)
        # a known time is entered twice, with one value
        columns = torch.arange(last + 2).expand(len(u), -1)
        source = (columns - (columns > after[:, None]).long()).clamp(max=last)
        here = columns == after[:, None]
        self.times = torch.where(here, u[:, None], self.times.gather(1, source))
        kept = self.values.gather(1, source[..., None].expand(-1, -1, self.values.shape[2]))
        self.values = torch.where(here[..., None], new[:, None], kept)
        return new


@dataclass(frozen=True)
class Many(AdaptiveSDE):
    """Run the adaptive method with the paths of all samples drawn together."""

    def increments(self, noise: Noise, n: int) -> Paths:
        """Return how the increments of n samples are drawn."""
        size = math.prod(noise.like.shape[1:])
        return Paths(n, size, noise.horizon, noise.generator)


@dataclass(frozen=True)
class Source:
    """Hold what `Many` needs instead of a `Noise`."""

    like: Tensor
    horizon: float
    generator: torch.Generator


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
        x = method.step(rsde, x, t, s, Source(x, sde.T, generator))  # type: ignore[arg-type]
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
                found, half, nfe = bias(sde, size, Many(tolerance, tolerance), n, options.std)
                interval = f"[{found - half:.4f}, {found + half:.4f}]"
                name = type(sde).__name__
                print(
                    f"{name:10} {size:3} {tolerance:9} {found:9.4f} {interval:>18} {nfe:11}",
                    flush=True,
                )


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

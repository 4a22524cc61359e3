r"""Count how often `calibrate` raises an alarm, for exact draws and for wrong draws.

The posterior is known: $\theta \sim N(0, I)$ in d dimensions, $y = A \theta$ plus noise. Each run
has 6,000 data sets and 99 draws of each. The table has the share of runs with an alarm, and its 95
% interval (Clopper & Pearson 1934), for exact draws; draws of .9 and .8 of the exact width; draws
shifted by a tenth of the width in one entry; draws for another data set; and draws from the prior.

    python examples/benchmarks/calibration.py            # half an hour on one core
    python examples/benchmarks/calibration.py --short    # seconds, to see that all runs
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import tyro
from scipy.stats import beta
from torch import Tensor
from tqdm import tqdm

from scoresde.metrics import calibrate


@dataclass(frozen=True)
class Linear:
    """Define a linear Gaussian problem, whose posterior is exact."""

    d: int = 2
    noise: float = 0.5

    @property
    def a(self) -> Tensor:
        """Return the matrix that maps parameters to data."""
        at = torch.arange(self.d, dtype=torch.float64)
        return 0.5 ** (at[:, None] - at).abs()

    def simulate(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """Draw parameters and data."""
        g = torch.Generator().manual_seed(seed)
        theta, noise = torch.randn(2, n, self.d, generator=g, dtype=torch.float64)
        return theta, theta @ self.a.T + math.sqrt(self.noise) * noise

    def log_likelihood(self, theta: Tensor, y: Tensor) -> Tensor:
        """Return log p(y | theta) up to a constant."""
        return -(y - theta @ self.a.T).square().sum(1) / (2 * self.noise)

    def draws(self, scale: float = 1.0, shift: float = 0.0) -> Callable[[Tensor, int, int], Tensor]:
        """Return a function that draws from the scaled and shifted posterior."""
        precision = torch.eye(self.d, dtype=torch.float64) + self.a.T @ self.a / self.noise
        cov = torch.linalg.inv(precision)
        gain, root = cov @ self.a.T / self.noise, torch.linalg.cholesky(cov)

        def draw(y: Tensor, k: int, seed: int) -> Tensor:
            g = torch.Generator().manual_seed(seed)
            z = torch.randn(len(y), k, self.d, generator=g, dtype=torch.float64)
            x = (y @ gain.T)[:, None] + scale * z @ root.T
            x[..., 0] += shift * cov[0, 0].sqrt()
            return x

        return draw


def cases(problem: Linear) -> dict[str, Callable[[Tensor, int, int], Tensor]]:
    """Return the tested functions of draws by name."""
    exact = problem.draws()

    def prior(y: Tensor, k: int, seed: int) -> Tensor:
        return problem.simulate(len(y) * k, seed)[0].unflatten(0, (len(y), k))

    return {
        "exact": exact,
        "std x .9": problem.draws(scale=0.9),
        "mean + .1 std in one entry": problem.draws(shift=0.1),
        "std x .8": problem.draws(scale=0.8),
        "another data set's": lambda y, k, seed: exact(y.roll(1, 0), k, seed),
        "the prior's": prior,
    }


@dataclass(frozen=True)
class Options:
    """Choose what to count."""

    n: int = 6000
    """Data sets of a run."""
    repetitions: int = 500
    """Runs of the first three cases; of the others a twentieth."""
    d: int = 2
    """Dimensions of the parameter."""
    short: bool = False
    """Few data sets and runs, to see that all runs."""


def rows(options: Options) -> Iterator[str]:
    """Yield a line for each case."""
    problem = Linear(options.d)
    for i, (name, draw) in enumerate(cases(problem).items()):
        runs = options.repetitions if i < 3 else max(options.repetitions // 20, 1)
        alarms = 0
        for seed in tqdm(range(runs), desc=name, leave=False, disable=None):
            found = calibrate(
                draw, problem.simulate, n=options.n, log_likelihood=problem.log_likelihood,
                rerun=False, seed=seed, progress=False,
            )  # fmt: skip
            alarms += not found.passed
        low = float(beta.ppf(0.025, alarms, runs - alarms + 1)) if alarms else 0.0
        high = float(beta.ppf(0.975, alarms + 1, runs - alarms)) if alarms < runs else 1.0
        yield f"| {name} | {runs} | {alarms / runs:.3f} | [{low:.3f}, {high:.3f}] |"


def main(options: Options) -> None:
    """Count and print."""
    if options.short:
        options = Options(n=100, repetitions=2, d=options.d)
    print("| draws | runs | with an alarm | 95 % interval |\n| --- | --- | --- | --- |")
    for line in rows(options):
        print(line, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))

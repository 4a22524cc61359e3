r"""Measure the cost of noise: a Brownian path and independent draws, beside one evaluation.

`increment` draws from one path for each sample, which does not depend on the number of steps;
`normal` draws independent numbers for each time. Both are called along the grid of "em" for each
SDE, at the shape of a batch of images, and compared with one evaluation of the packaged digits
model. They take turns at each step, so that a change in the speed of the machine affects all of
them. Milliseconds are processor time on one core, averaged over the grid.

    python examples/benchmarks/noise.py               # a minute
    python examples/benchmarks/noise.py --short       # seconds
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import tyro

from scoresde import load
from scoresde.noise import Noise
from scoresde.samplers import EulerMaruyama
from scoresde.sde import EDMSDE, SDE, VESDE, VPSDE, FlowSDE


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    batch: int = 64
    """Images in a batch."""
    steps: int = 100
    """Steps of the grid."""
    short: bool = False
    """A small batch and few steps."""


def measure(sde: SDE, batch: int, steps: int) -> dict[str, float]:
    """Return the mean milliseconds of a step over the grid, by name."""
    model = load("mnist").eval()
    x = torch.zeros(batch, *model.event_shape)
    t = torch.full((batch,), 0.5)
    # the path keeps what its last step needed, so each quantity has a source of its own
    path, area, fresh = (Noise.of(seed, batch, horizon=sde.T) for seed in range(3))
    turns: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
        "increment": lambda s, t: path.increment(x, s, t),
        "area": lambda s, t: area.area(x, s, t),
        "normal": lambda s, t: fresh.normal(x, t),
        "network": lambda *_: model(x, t),
    }
    spent: dict[str, list[float]] = {name: [] for name in turns}
    with torch.no_grad():
        for high, low in pairwise(EulerMaruyama().times(sde, steps)):
            for name, ask in turns.items():
                start = time.process_time()
                ask(low, high)
                spent[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.fmean(times) for name, times in spent.items()}


def main(options: Options) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    batch, steps = (8, 10) if options.short else (options.batch, options.steps)
    size = sum(p.numel() for p in load("mnist").parameters())
    print(f"batch {batch}, {steps} steps, a network of {size:,} parameters; ms, and parts of it\n")
    for sde in (VESDE(), VPSDE(), EDMSDE(), FlowSDE()):
        ms = measure(sde, batch, steps)
        cells = (f"{name} {cost:.2f} ({cost / ms['network']:.1%})" for name, cost in ms.items())
        print(f"{type(sde).__name__:8}" + "  ".join(cells))
        print(f"{'':8}a path costs {ms['increment'] / ms['normal']:.1f} fresh draws")


if __name__ == "__main__":
    main(tyro.cli(Options))

r"""Compare our U-Net with those of EDM, azula and diffusers after equal CPU time on images.

`scoresde` is `UNet.small`, `base` is `UNet.base`, and `default` is the network that `train` chooses
for the data. `edm` is the DDPM++ and `adm` the ADM of Karras et al. (2022,
arXiv:2206.00364, appendix F). All but `default` and `base` have about as many parameters, and
`--network ablations` is our U-Net with one thing changed at a time. All are trained by the same
optimiser, rate, law of times, weight and precision, for the same seconds of one core, of which each
makes as many steps as it can.

The table has the milliseconds of a step, the steps, and the held-out loss as in `recipes.py`, where
1 is that of a denoiser that knows only the mean and the variance of the data: the mean over all
noise levels, and its four parts from little noise to much, each with the half-width of a 95 %
interval over the seeds (of Student's t).

    pip install 'scoresde[peers,test]'
    python examples/benchmarks/networks.py --seconds 120 --seeds 3
    python examples/benchmarks/networks.py --rule adam --problem mnist
    python examples/benchmarks/networks.py --rule muon --problem patches --seconds 40 \
        --network ablations
    python examples/benchmarks/networks.py --short    # seconds: does it run?
"""

from __future__ import annotations

import csv
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from problems import PROBLEMS
from recipes import Recipe, judged, trained
from scipy import stats
from unets import ABLATIONS, NETWORKS, Make

from scoresde import Moments, suggest
from scoresde.data import Data

Key = tuple[str, ...]


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    problem: tuple[str, ...] = ("patches", "mnist")
    """Which images: patches (3x32x32) and mnist (1x28x28), as in recipes.py."""
    rule: tuple[str, ...] = ("muon", "adam")
    """Which optimisers."""
    network: tuple[str, ...] = ("scoresde", "default", "edm", "adm", "azula", "diffusers")
    """Which networks, or "ablations"."""
    seconds: float = 120.0
    """Seconds of one core for each training."""
    seeds: int = 3
    """Trainings of each, by their first weights, batches and noise."""
    variant: Literal["tuning", "judging"] = "judging"
    """Which of the two variants of each problem."""
    short: bool = False
    """A run of seconds that shows that everything works and measures nothing."""
    csv: Path | None = None
    """A table to which lines are added; what it has already is not measured again."""


def recipe_of(make: Make, rule: str) -> Recipe:
    """Return the recipe of `scoresde.suggest` with another network."""

    def recipe(problem: str, data: Data, steps: int) -> tuple[Any, ...]:
        found = suggest(data).adapted(rule=rule)
        return make(data), found.sde(), found.loss(), found.config

    return recipe


@cache
def images(problem: str, judging: bool, short: bool) -> tuple[Data, Data]:
    """Return training and held-out images without labels."""
    learnt, held = (
        data.without("label") if "label" in data.kinds else data
        for data in PROBLEMS[problem](judging, short)
    )
    return Data(learnt), Data(held)


def measured(key: Key, options: Options) -> list[float]:
    """Train a network; return its size, steps, ms a step, mean loss and the four parts."""
    variant, problem, rule, name, seconds, seed = key
    learnt, held = images(problem, variant == "judging", options.short)
    make = (NETWORKS | ABLATIONS)[name]
    model, steps, spent = trained(recipe_of(make, rule), problem, learnt, float(seconds), int(seed))
    var = Moments(*learnt.moments()).mean_variance()
    bins = judged(model, held, var, 20 if options.short else 250, repeats=1)
    size = sum(p.numel() for p in make(learnt).parameters())
    parts = [statistics.fmean(bins[i : i + 3]) for i in range(0, 12, 3)]
    return [size, steps, 1e3 * spent / steps, statistics.fmean(bins), *parts]


# --- the table ------------------------------------------------------------------------------------


def interval(values: Sequence[float]) -> str:
    """Return the mean as text, with the half-width of its 95 % interval if there are several."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.4f}"
    wide = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.4f} +- {wide:.4f}"


def table(found: Mapping[Key, Sequence[float]]) -> None:
    """Print a line for each network, over its seeds."""
    for group in dict.fromkeys(key[:-1] for key in found):
        rows = [values for key, values in found.items() if key[:-1] == group]
        size, steps, ms, *losses = zip(*rows, strict=True)
        _, problem, rule, name, _ = group
        print(
            f"{problem:9}{rule:6}{name:27}{size[0]:9,.0f} parameters {statistics.fmean(ms):6.1f} ms"
            f" {statistics.fmean(steps):7.0f} steps  {len(rows)} seeds  "
            + "  ".join(interval(column) for column in losses)
        )


def kept(path: Path | None) -> dict[Key, list[float]]:
    """Read the lines of an earlier run."""
    if path is None or not path.exists():
        return {}
    with path.open(newline="") as file:
        return {tuple(row[:6]): [float(value) for value in row[6:]] for row in csv.reader(file)}


def main(options: Options) -> None:
    """Measure and print."""
    torch.set_num_threads(1)  # else the seconds of the processor are those of several
    warnings.simplefilter("ignore")
    if options.short:
        options = replace(
            options, seconds=0.1, seeds=1, rule=("muon",), problem=options.problem[:1]
        )
    if options.network == ("ablations",):
        options = replace(options, network=tuple(ABLATIONS))
    print(f"{options.variant}, {options.seconds:g} s each; loss at all noise, then low to high")
    keys: list[Key] = [
        (options.variant, problem, rule, name, f"{options.seconds:g}", str(seed))
        for seed in range(options.seeds)
        for rule in options.rule
        for problem in options.problem
        for name in options.network
    ]
    known, found = kept(options.csv), dict[Key, Sequence[float]]()
    for key in keys:
        found[key] = known[key] if key in known else measured(key, options)
        if key not in known:
            print(*key, *(f"{value:.4g}" for value in found[key]), flush=True)
            if options.csv is not None:
                with options.csv.open("a", newline="") as file:
                    csv.writer(file).writerow([*key, *found[key]])
    order = [key for group in sorted({k[:-1] for k in keys}) for key in keys if key[:-1] == group]
    print()
    table({key: found[key] for key in order})


if __name__ == "__main__":
    main(tyro.cli(Options))

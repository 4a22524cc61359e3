r"""Compare recipes for training by the held-out loss after equal CPU time.

A recipe returns a network, an SDE, a loss and the settings of the training for given data. All
recipes are trained for the same seconds of one core. The number of steps is chosen for this time,
and the learning rate falls to 0 at its end.

Losses of different SDEs and objectives are not comparable. So all models denoise the same held-out
samples $x_0$ of variance $v$ with the same noise, at common ratios $\rho = \sigma / \alpha$. The
loss is $\frac{\rho^2 + v}{\rho^2 v} \|D(x_t, t) - x_0\|^2 / d$, which is 1 for a denoiser that
knows only the mean and the variance of the data. The ratios lie in twelve bins of equal width in
$\log\rho$, from $.02\sqrt v$ to $10\sqrt v$; the table has the loss of each bin, and the mean over
all bins. A model is evaluated at the time of its own SDE with this ratio. For ratios below its
smallest noise the noisy sample is used as the denoised one, and for ratios above its largest noise
the mean of the data, with the losses $1 + \rho^2 / v$ and $1 + v / \rho^2$.

Every problem has two variants with different seeds, shapes, classes or pictures. Constants are
chosen on the variant "tuning", and recipes are compared on the variant "judging".

    python examples/benchmarks/recipes.py --recipe old auto --problem digits --seconds 60 --seeds 2
    python examples/benchmarks/recipes.py --custom mine.py --variant judging
    python examples/benchmarks/recipes.py --short     # seconds: does it run?

The file of `--custom` has a function `recipe(problem, data, steps)`: the name of a problem, its
`scoresde.data.Data`, and the number of steps that fit into the time (at the first call, a guess).
It returns a network `net(x, c, **condition)`, an SDE, a loss or None, a `TrainConfig`, whose steps
are replaced, and optionally the name of what the network predicts.
"""

from __future__ import annotations

import csv
import itertools
import math
import runpy
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from problems import PROBLEMS, generator
from torch import Tensor, nn

from scoresde import SDE, VESDE, Moments, ScoreModel, dsm_loss, suggest
from scoresde.data import Data
from scoresde.nn import MLP, UNet
from scoresde.objectives import edm
from scoresde.sde import Classes, Field, LogNormal
from scoresde.training import Optimiser, TrainConfig, Trainer

BINS, LOW, HIGH = 12, 0.02, 10.0  # of the ratio of noise to signal, in units of the data's std
NUMBERS = 3  # that are denoised for each bin, at least, times the most samples

Recipe = Callable[[str, Data, int], tuple[Any, ...]]


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    recipe: tuple[str, ...] = ("old", "auto", "packaged")
    """Which recipes: old, auto, packaged (where it fits), custom."""
    problem: tuple[str, ...] = tuple(PROBLEMS)
    """On which problems."""
    variant: Literal["tuning", "judging"] = "tuning"
    """Which of the two variants of each problem."""
    custom: Path | None = None
    """A file with a recipe of your own, which is then one of the recipes."""
    seconds: float = 120.0
    """Seconds of one core for each training."""
    seeds: int = 2
    """Trainings of each recipe, by their first weights, batches and noise."""
    short: bool = False
    """A run of seconds that shows that everything works and measures nothing."""
    csv: Path | None = None
    """A table to which lines are added."""


# --- recipes --------------------------------------------------------------------------------------


def known(data: Data) -> dict[str, Any]:
    """Return the arguments of a network for the conditions of the data."""
    kinds = data.kinds
    return dict(
        num_classes={k: kind.n for k, kind in kinds.items() if isinstance(kind, Classes)},
        condition={k: kind.shape for k, kind in kinds.items() if isinstance(kind, Field)},
    )


def old(problem: str, data: Data, steps: int) -> tuple[Any, ...]:
    """Return fixed settings that do not depend on the data, except on their shape."""
    shape = data.event_shape
    if len(shape) == 3:
        patch = 2 if min(shape[1:]) >= 16 else 1
        net: nn.Module = UNet(shape[0], channels=(32, 64), patch=patch, **known(data))
    else:
        net = MLP(shape, hidden=(128, 128, 128), **known(data))
    return net, VESDE(), None, TrainConfig()


def packaged(problem: str, data: Data, steps: int) -> tuple[Any, ...]:
    """Return the settings of examples/digits.py, or of the packaged model of MNIST."""
    weight = edm(Moments(*data.moments()).mean_variance())
    small = problem == "digits"
    if small:
        net = UNet(1, channels=(32, 64), blocks=1, **known(data))
    else:
        net = UNet(1, channels=(48, 64, 96), patch=2, features=128, **known(data))
    loss = partial(dsm_loss, weight=weight, law=LogNormal(-0.5 if small else 0.0, 1.2))
    config = TrainConfig(optimiser=Optimiser(lr=2e-3))
    return net, VESDE(0.01, 20.0 if small else 50.0), loss, config


def auto(problem: str, data: Data, steps: int) -> tuple[Any, ...]:
    """Return the settings of `scoresde.suggest`, which `scoresde train` uses by default."""
    found = suggest(data)
    return found.net.build(data.event_shape, data.kinds), found.sde(), found.loss(), found.config


FITS = {"packaged": ("digits", "mnist")}


def recipes(options: Options) -> dict[str, Recipe]:
    """Return the chosen recipes by name."""
    found: dict[str, Recipe] = {"old": old, "auto": auto, "packaged": packaged}
    chosen = list(options.recipe)
    if options.custom is not None:
        found["custom"] = runpy.run_path(str(options.custom))["recipe"]
        chosen += [] if "custom" in chosen else ["custom"]
    if unknown := [name for name in chosen if name not in found]:
        sys.exit(f"unknown recipe {', '.join(unknown)}; choose from {', '.join(found)}")
    return {name: found[name] for name in chosen}


# --- training -------------------------------------------------------------------------------------


def begun(recipe: Recipe, problem: str, data: Data, steps: int, seed: int) -> Trainer[ScoreModel]:
    """Return a trainer of a recipe for a number of steps."""
    torch.manual_seed(seed)  # the first weights
    net, sde, loss, config, *predicts = recipe(problem, data, steps)
    if not isinstance(sde, SDE):
        sys.exit(f"a recipe returns (net, sde, loss, config), got {sde!r} for the SDE")
    model = ScoreModel(
        net, sde, data.event_shape, *predicts, moments=Moments(*data.moments()),
        condition_moments=data.condition_moments(),
    )  # fmt: skip
    config = config.changed(steps=steps, seed=seed, log_every=10**6, save_every=10**6, held_out=0.0)
    return Trainer(model, data, config, loss=loss)


def trained(
    recipe: Recipe, problem: str, data: Data, seconds: float, seed: int
) -> tuple[ScoreModel, int, float]:
    """Train for some seconds of the processor; return the model, its steps and its seconds."""
    trial = begun(recipe, problem, data, 1000, seed)
    trial.train(2, progress=False)
    count, start = 0, time.process_time()
    while (spent := time.process_time() - start) < min(3.0, seconds / 10):
        trial.train(5, progress=False)
        count += 5
    steps = max(2, round(seconds * count / spent))
    trainer = begun(recipe, problem, data, steps, seed)
    start = time.process_time()
    model = trainer.train(progress=False)
    return model, steps, time.process_time() - start


# --- judging --------------------------------------------------------------------------------------


@torch.no_grad()
def judged(model: ScoreModel, held: Data, var: float, most: int, repeats: int = 4) -> list[float]:
    """Return the loss of every bin, from `repeats` noises of each sample, more for small ones."""
    rows = slice(min(len(held), most))
    x0 = held.batch(rows).float()
    condition = held.condition(rows)
    sde, size = model.sde, x0[0].numel()
    low, high = sde.log_snr(torch.tensor([sde.T, sde.eps], dtype=torch.float64))
    g = generator(12345)
    edges = torch.linspace(math.log(LOW), math.log(HIGH), BINS + 1, dtype=torch.float64)
    repeats = max(repeats, NUMBERS * most // x0.numel())
    found = []
    for first, last in itertools.pairwise(edges):
        total = 0.0
        for _ in range(repeats):
            u = torch.rand(len(x0), generator=g, dtype=torch.float64)
            rho = math.sqrt(var) * torch.exp(first + (last - first) * u)
            z = torch.randn(x0.shape, generator=g)
            log_snr = -2 * rho.log()
            t = sde.time(log_snr.clamp(low, high)).clamp(sde.eps, sde.T)
            part, axes = rho.float(), (-1, *(1,) * (x0.ndim - 1))
            alpha, sigma = (f(t).float().reshape(axes) for f in (sde.alpha, sde.sigma))
            noisy = alpha * (x0 + part.reshape(axes) * z)
            denoised = in_parts(model, noisy, t.float(), condition) * sigma**2
            error = ((noisy + denoised) / alpha - x0).square().flatten(1).sum(1).double() / size
            error = torch.where(log_snr > high, rho**2, torch.where(log_snr < low, var, error))
            total += float((error * (rho**2 + var) / (rho**2 * var)).mean()) / repeats
        found.append(total)
    return found


def in_parts(model: ScoreModel, x: Tensor, t: Tensor, condition: Any, size: int = 250) -> Tensor:
    """Return the score of a large batch, computed in parts."""
    parts = []
    for i in range(0, len(x), size):
        rows = slice(i, i + size)
        own = None if condition is None else {k: v[rows] for k, v in condition.items()}
        parts.append(model(x[rows], t[rows], own))
    return torch.cat(parts)


# --- the table ------------------------------------------------------------------------------------


def main(options: Options) -> None:
    torch.set_num_threads(1)  # else the seconds of the processor are those of several
    warnings.simplefilter("ignore")
    seconds, seeds, most = options.seconds, options.seeds, 1000
    if options.short:
        seconds, seeds, most = 0.1, 1, 10
        options = replace(options, problem=options.problem[::3])
    edges = torch.logspace(math.log10(LOW), math.log10(HIGH), BINS + 1)
    middles = "".join(f"{float(r):7.2g}" for r in (edges[1:] * edges[:-1]).sqrt())
    print(f"{options.variant}, {seconds:g} s each; losses by noise over the data's std\n")
    print(f"{'problem':12}{'recipe':10}{'seed':>5}{'steps':>7}{'s':>5}{'mean':>8} {middles}")
    for problem in options.problem:
        train, held = PROBLEMS[problem](options.variant == "judging", options.short)
        var = Moments(*train.moments()).mean_variance()
        for name, recipe in recipes(options).items():
            if problem not in FITS.get(name, (problem,)):
                continue
            means = []
            for seed in range(seeds):
                model, steps, spent = trained(recipe, problem, train, seconds, seed)
                bins = judged(model, held, var, most)
                means.append(statistics.fmean(bins))
                row = [problem, name, seed, steps, round(spent, 1), round(means[-1], 4)]
                values = "".join(f"{value:7.3f}" for value in bins)
                print("{:12}{:10}{:5}{:7}{:5.0f}{:8.4f} ".format(*row) + values, flush=True)
                if options.csv is not None:
                    with options.csv.open("a", newline="") as file:
                        bins = [round(value, 5) for value in bins]
                        csv.writer(file).writerow([options.variant, seconds, *row, *bins])
            spread = statistics.stdev(means) if len(means) > 1 else math.nan
            what = f"{statistics.fmean(means):.4f} +- {spread:.4f} (std of {len(means)})"
            print(f"{problem:12}{name:10}  {what}\n")


if __name__ == "__main__":
    main(tyro.cli(Options))

r"""Our U-Net beside azula's, diffusers' and DDPM++ on images, after equal CPU time by one recipe.

All networks of a problem have about as many parameters, and are trained by the same optimiser,
rate, law of times, weight and precision, for the same seconds of one core, of which each makes as
many steps as it can. The table has the milliseconds of a step, the steps, and the held-out loss as
in `recipes.py`, where 1 is that of a linear denoiser: the mean over all noise levels, and its four
parts from little noise to much, each with the half-width of a 95 % interval over the seeds (of
Student's t).

    pip install 'scoresde[peers,test]'
    python examples/benchmarks/networks.py --seconds 120 --seeds 3
    python examples/benchmarks/networks.py --rule adam --problem mnist
    python examples/benchmarks/networks.py --short    # seconds: does it run?
"""

from __future__ import annotations

import csv
import importlib
import math
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
import tyro
from problems import PROBLEMS
from recipes import Recipe, judged, trained
from scipy import stats
from torch import Tensor, nn

from scoresde import Moments, suggest
from scoresde.data import Data
from scoresde.nn import Fourier, NCSNpp, UNet

FEATURES = 64


@dataclass(frozen=True)
class Options:
    """What to run."""

    problem: tuple[str, ...] = ("patches", "mnist")
    """Which images: patches (3x32x32) and mnist (1x28x28), as in recipes.py."""
    rule: tuple[str, ...] = ("muon", "adam")
    """Which optimisers."""
    network: tuple[str, ...] = ("scoresde", "azula", "diffusers", "ddpm++")
    """Which networks."""
    seconds: float = 120.0
    """Seconds of one core for each training."""
    seeds: int = 3
    """Trainings of each, by their first weights, batches and noise."""
    variant: Literal["tuning", "judging"] = "judging"
    """Which of the two variants of each problem."""
    short: bool = False
    """A run of seconds that shows that everything works and measures nothing."""
    csv: Path | None = None
    """A table to which lines are added."""


# --- networks: modules net(x, c), with c of shape (B,) --------------------------------------------


def peer(name: str) -> ModuleType:
    """A module of one of the packages compared with."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"this benchmark needs {name} ({error}); pip install 'scoresde[peers,test]'")


class Azula(nn.Module):
    """azula's U-Net, modulated by a vector made as in our own network."""

    outer = ("embed", "ends")

    def __init__(self, channels: int, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            Fourier(64), nn.Linear(64, FEATURES), nn.SiLU(), nn.Linear(FEATURES, FEATURES)
        )
        self.net = peer("azula.nn.unet").UNet(
            channels, channels, hid_channels=widths, hid_blocks=(blocks,) * len(widths),
            mod_features=FEATURES, norm="group", groups=8,
        )  # fmt: skip

    @property
    def ends(self) -> nn.Module:
        """The layers that touch the data, which Muon leaves to Adam."""
        return nn.ModuleList([self.net.descent[0][0], self.net.ascent[-1][-1]])

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """The network's output for one noise level per sample."""
        return self.net(x, self.embed(c))


class Diffusers(nn.Module):
    """diffusers' UNet2DModel without attention, as the others are."""

    outer = ("ends",)

    def __init__(self, channels: int, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.net = peer("diffusers").UNet2DModel(
            in_channels=channels, out_channels=channels, block_out_channels=widths,
            layers_per_block=blocks, norm_num_groups=8, add_attention=False,
            down_block_types=("DownBlock2D",) * len(widths),
            up_block_types=("UpBlock2D",) * len(widths),
        )  # fmt: skip

    @property
    def ends(self) -> nn.Module:
        """The layers that touch the data, and the embedding, which Muon leaves to Adam."""
        net = self.net
        return nn.ModuleList([net.conv_in, net.conv_out, net.time_embedding])

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """The network's output; its positional embedding is made for times from 0 to 1000."""
        return self.net(x, 250 * (c + 2)).sample


class DDPMpp(nn.Module):
    """DDPM++ of Song et al. (2021), one of the two networks of Karras et al. (2022)."""

    outer = ("ends",)

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.net = NCSNpp.vp(
            channels=channels, size=size, width=24, mult=(1, 2, 2), blocks=1, attention=(),
            dropout=0.0,
        )  # fmt: skip

    @property
    def ends(self) -> nn.Module:
        """The layers that touch the data, and the embedding, which Muon leaves to Adam."""
        layers = self.net.all_modules
        return nn.ModuleList([*layers[:3], layers[-1]])

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """The network's output; its positional embedding is made for times from 0 to 1000."""
        return self.net(x, 250 * (c + 2))


Make = Callable[[tuple[int, ...]], nn.Module]
NETWORKS: dict[str, Make] = {
    "scoresde": lambda shape: UNet(shape[0], channels=(32, 64, 96), bounded=True),
    "azula": lambda shape: Azula(shape[0], (24, 40, 64), 2),
    "diffusers": lambda shape: Diffusers(shape[0], (24, 40, 64), 1),
    "ddpm++": lambda shape: DDPMpp(shape[0], shape[1]),
}


def recipe_of(make: Make, rule: str) -> Recipe:
    """What `scoresde.suggest` says, with another network, and without labels."""

    def recipe(problem: str, data: Data, steps: int) -> tuple[Any, ...]:
        found = suggest(data).adapted(rule=rule)
        return make(data.event_shape), found.sde(), found.loss(), found.config

    return recipe


# --- the table ------------------------------------------------------------------------------------


def interval(values: Sequence[float]) -> str:
    """The mean, with the half-width of its 95 % interval where there are several."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.4f}"
    wide = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.4f} +- {wide:.4f}"


def main(options: Options) -> None:
    """Measure and print."""
    torch.set_num_threads(1)  # else the seconds of the processor are those of several
    warnings.simplefilter("ignore")
    seconds, seeds, most = options.seconds, options.seeds, 1000
    if options.short:
        seconds, seeds, most = 0.2, 1, 20
        options = replace(options, rule=("muon",))
    print(f"{options.variant}, {seconds:g} s each, {seeds} seeds; all noise, then from low to high")
    for problem in options.problem:
        learnt, held = PROBLEMS[problem](options.variant == "judging", options.short)
        learnt, held = (x.without("label") if "label" in x.kinds else x for x in (learnt, held))
        var = Moments(*learnt.moments()).mean_variance()
        for rule in options.rule:
            for name in options.network:
                make = NETWORKS[name]
                size = sum(p.numel() for p in make(learnt.event_shape).parameters())
                bins, counts = [], []
                for seed in range(seeds):
                    model, steps, spent = trained(
                        recipe_of(make, rule), problem, learnt, seconds, seed
                    )
                    counts.append((steps, 1e3 * spent / steps))
                    own = judged(model, held, var, most)
                    quarters = [statistics.fmean(own[i : i + 3]) for i in range(0, 12, 3)]
                    bins.append([statistics.fmean(own), *quarters])
                    if options.csv is not None:
                        with options.csv.open("a", newline="") as file:
                            row = [problem, rule, name, seed, *counts[-1], *bins[-1]]
                            csv.writer(file).writerow(row)
                steps, ms = (statistics.fmean(column) for column in zip(*counts, strict=True))
                print(
                    f"{problem:9}{rule:6}{name:10}{size:9,} parameters {ms:6.1f} ms "
                    f"{steps:7.0f} steps  "
                    + "  ".join(interval(column) for column in zip(*bins, strict=True)),
                    flush=True,
                )


if __name__ == "__main__":
    main(tyro.cli(Options))

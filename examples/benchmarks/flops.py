r"""Measure a U-Net's step over the time of its convolutions, and its operations per second.

1. Ratio. The time of a forward and a backward pass of our U-Net, over the sum of the times of its
   convolutions and matrix products alone: the same shapes, strides, layout and threads, in the
   precision in which they are computed, each forward and backward; and the same for forward passes.
2. Presets. The parameters of `UNet.small`, `.base` and `.large`, and the milliseconds that an image
   takes in a forward pass, and in a forward and a backward pass.
3. Layout. The operations per second (`torch.utils.flop_counter`: those of convolutions and matrix
   products) of our parts in the layouts of azula and diffusers, over those of azula and diffusers:
   the same widths, blocks, resolutions and convolutions, so as many operations. More than 1 is
   faster than the peer.
4. Speed. The operations per second of a step beside azula's, diffusers', EDM's DDPM++ and ADM, each
   in its own layout. All have three resolutions of the same widths, but not the same convolutions:
   azula and diffusers concatenate skips, where our U-Net adds them.

All networks take turns, so that a change in the speed of the machine affects all of them. A figure
is the median over the turns, in seconds of the thread; a ratio is the median of the ratios within a
turn, with its quartiles.

    pip install 'scoresde[peers,test]'
    python examples/benchmarks/flops.py
    python examples/benchmarks/flops.py --parts ratio --width 64
    python examples/benchmarks/flops.py --short    # seconds: does it run?
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from unets import ADM, EDM, Azula, Diffusers
from unets.layouts import AsDiffusers, as_azula

from scoresde.nn import UNet
from scoresde.precision import has_bfloat16

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
SHAPES = ((3, 32, 32), (1, 28, 28), (3, 64, 64), (2, 128), (1, 12, 12, 12))
WIDTHS = (32, 64, 96)


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    parts: tuple[Literal["ratio", "presets", "layout", "speed"], ...] = (
        "ratio", "presets", "layout", "speed",
    )  # fmt: skip
    """What to measure."""
    width: tuple[int, ...] = (32, 64, 128)
    """Widths of the networks of the ratio, the same at their three resolutions."""
    bf16: bool = has_bfloat16(torch.device("cpu"))
    """Whether networks run in bfloat16, as `train` runs them where the processor has it."""
    batch: int = 16
    """Samples in a batch."""
    turns: int = 15
    """Turns of every contender; the first is not counted."""
    short: bool = False
    """A run of seconds that shows that everything works and measures nothing."""


def half(options: Options) -> Any:
    """Return the context in which networks run."""
    return torch.autocast("cpu", torch.bfloat16) if options.bf16 else contextlib.nullcontext()


def step_of(net: nn.Module, x: Tensor, options: Options) -> Callable[[], None]:
    """Return a function that makes a forward and a backward pass."""
    c, g = torch.zeros(len(x)), torch.randn(x.shape)
    weights = [p for p in net.parameters() if p.requires_grad]

    def step() -> None:
        with half(options):
            y = net(x, c)
        torch.autograd.grad(y, weights, g.to(y.dtype), allow_unused=True)

    return step


def forward_of(net: nn.Module, x: Tensor, options: Options) -> Callable[[], None]:
    """Return a function that makes a forward pass."""
    c = torch.zeros(len(x))

    @torch.no_grad()
    def forward() -> None:
        with half(options):
            net(x, c)

    return forward


# --- a network's layers, each alone ---------------------------------------------------------------


def layers_of(net: nn.Module, x: Tensor, options: Options) -> list[tuple[nn.Module, Tensor, int]]:
    """Return the different layers of a network, each with its input and the number of its calls."""
    calls: list[tuple[nn.Module, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, given: calls.append((layer, given[0])))
        for layer in net.modules()
        if isinstance(layer, LAYERS)
    ]
    with half(options):
        net(x, torch.zeros(len(x)))
    for hook in hooks:
        hook.remove()

    def kind(layer: nn.Module, given: Tensor) -> tuple[Any, ...]:
        inside = given.requires_grad
        return str(layer), given.shape, given.stride(), inside

    counts = Counter(kind(*call) for call in calls)
    return [
        (layer, given, counts.pop(kind(layer, given)))
        for layer, given in calls
        if kind(layer, given) in counts
    ]


def alone(
    layer: nn.Module, given: Tensor, options: Options
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return functions that make a step and a forward pass of one layer."""
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    own = copy.deepcopy(layer).to(dtype)
    x = given.detach().to(dtype).requires_grad_(given.requires_grad)
    wanted = [*own.parameters(), *([x] if x.requires_grad else [])]
    g = torch.randn_like(own(x))

    def step() -> None:
        torch.autograd.grad(own(x), wanted, g)

    @torch.no_grad()
    def forward() -> None:
        own(x)

    return step, forward


# --- turns ----------------------------------------------------------------------------------------


def seconds(call: Callable[[], None]) -> float:
    """Return the seconds of the thread for one call."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def quartiles(values: list[float]) -> str:
    """Return the median, with the quartiles, as text."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def ratio(options: Options) -> None:
    """Print a network's time over that of its layers."""
    print("width   step, ms  layers, ms  ratio of a step       ratio of a forward pass")
    for width in options.width:
        net = UNet(3, channels=(width,) * 3, bounded=True)
        for p in net.parameters():  # layers that begin at zero are no faster
            nn.init.normal_(p, 0.0, 0.02)
        x = torch.randn(options.batch, 3, 32, 32)
        whole = step_of(net, x, options), forward_of(net, x, options)
        own = [(alone(*found, options), n) for *found, n in layers_of(net, x, options)]
        times: list[list[float]] = []
        for turn in range(options.turns):
            row = [seconds(call) for call in whole]
            row += [sum(n * seconds(calls[i]) for calls, n in own) for i in range(2)]
            times += [row] if turn else []
        step, _, layers, _ = (
            1e3 * statistics.median(column) for column in zip(*times, strict=True)
        )
        ratios = [quartiles([row[i] / row[2 + i] for row in times]) for i in range(2)]
        print(f"{width:5}{step:11.1f}{layers:12.1f}  {ratios[0]:22}{ratios[1]}", flush=True)


def presets(options: Options) -> None:
    """Print what images of 3x32x32 cost."""
    print("preset    parameters  ms an image, forward     with the backward pass")
    x = torch.randn(options.batch, 3, 32, 32)
    for make in (UNet.small,) if options.short else (UNet.small, UNet.base, UNet.large):
        net = make(3)
        calls = forward_of(net, x, options), step_of(net, x, options)
        times = [[1e3 * seconds(call) / len(x) for call in calls] for _ in range(options.turns)]
        size = sum(p.numel() for p in net.parameters())
        ahead, both = (quartiles(list(column)) for column in zip(*times[1:], strict=True))
        print(f"{make.__name__:8}{size:12,}  {ahead:24} {both}", flush=True)


def flops_of(call: Callable[[], None]) -> float:
    """Return the number of operations of convolutions and matrix products in a call, in 1e9."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


def layout(options: Options) -> None:
    """Print operations per second over those of a peer with the same convolutions."""
    print(f"{'shape':12}{'layout of':11}{'GFLOP':>7}{'theirs':>7}", end="  ")
    print(f"{'GFLOP/s':22}{'theirs':22}{'ratio of a step':23}of a forward pass")
    for shape in SHAPES[-2:] if options.short else SHAPES:
        x, spatial = torch.randn(options.batch, *shape), len(shape) - 1
        pairs: dict[str, tuple[nn.Module, nn.Module]] = {
            "azula": (as_azula(shape[0], WIDTHS, spatial), Azula(shape[0], WIDTHS, 1, spatial))
        }
        if spatial == 2:
            pairs["diffusers"] = AsDiffusers(shape[0], WIDTHS, 1), Diffusers(shape[0], WIDTHS, 1)
        for peer, nets in pairs.items():
            calls = [make(net, x, options) for make in (step_of, forward_of) for net in nets]
            work = [flops_of(call) for call in calls]
            rows: list[list[float]] = []
            for turn in range(options.turns):
                # every second turn begins with the peer
                order = range(4) if turn % 2 else (1, 0, 3, 2)
                taken = {i: seconds(calls[i]) for i in order}
                rows += [[work[i] / taken[i] for i in range(4)]] if turn else []
            ours, theirs = (quartiles([row[i] for row in rows]) for i in range(2))
            step, ahead = (quartiles([row[i] / row[i + 1] for row in rows]) for i in (0, 2))
            print(
                f"{'x'.join(map(str, shape)):12}{peer:11}{work[0]:7.2f}{work[1]:7.2f}  "
                f"{ours:22}{theirs:22}{step:23}{ahead}",
                flush=True,
            )


def contenders(shape: tuple[int, ...]) -> dict[str, nn.Module]:
    """Return networks of the same widths for samples of a shape."""
    channels, spatial = shape[0], len(shape) - 1
    found: dict[str, nn.Module] = {
        "scoresde": UNet(channels, channels=WIDTHS, spatial=spatial, bounded=True),
        "azula": Azula(channels, WIDTHS, 1, spatial),
    }
    if spatial == 2:
        found["diffusers"] = Diffusers(channels, WIDTHS, 1)
        found["edm"] = EDM(channels, shape[1], WIDTHS[0], (1, 2, 3))
        found["adm"] = ADM(channels, WIDTHS[0], (1, 2, 3), 1, (1, 2))
    return found


def speed(options: Options) -> None:
    """Print operations per second."""
    print(f"{'shape':12}{'network':10}{'ms a step':>10}{'GFLOP':>9}  GFLOP/s")
    for shape in SHAPES[-2:] if options.short else SHAPES:
        x = torch.randn(options.batch, *shape)
        steps = {name: step_of(net, x, options) for name, net in contenders(shape).items()}
        flops = {name: flops_of(step) for name, step in steps.items()}
        times: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(options.turns):
            for name, step in steps.items():
                taken = seconds(step)
                times[name] += [taken] if turn else []
        for name, taken in times.items():
            rates = [flops[name] / value for value in taken]
            print(
                f"{'x'.join(map(str, shape)):12}{name:10}{1e3 * statistics.median(taken):10.1f}"
                f"{flops[name]:9.2f}  {quartiles(rates)}",
                flush=True,
            )


def main(options: Options) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.short:
        options = replace(options, turns=2, batch=2, width=(16,))
    for part in options.parts:
        {"ratio": ratio, "presets": presets, "layout": layout, "speed": speed}[part](options)
        print()


if __name__ == "__main__":
    main(tyro.cli(Options))

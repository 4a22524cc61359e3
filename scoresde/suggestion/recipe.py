"""The numbers of a training that suits some data: law of times, rate, batch, steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from scoresde import distributed
from scoresde.precision import has_bfloat16
from scoresde.sde import LogNormal
from scoresde.suggestion.network import NetConfig
from scoresde.suggestion.noise import significant

__all__ = ["law_of", "rate_of", "recipe"]

# The middle of the law of log(sigma / alpha), in units of the data's std, and its width.
_MIDDLE, _WIDTH = 0.45, 1.5
# The largest learning rate, and its largest product with the widest level: Adam moves every weight
# by about the rate, and what a neuron sums grows with their number.
_RATE, _MOVE = 5e-3, 0.32
# The learning rate of Muon, whose steps are as long in any direction.
_OF_MUON = 1e-2
_RULES = {
    "muon": "orthogonal steps teach convolutions more in the same time",
    "adam": "for an MLP",
}
# Samples of a batch, by how many positions a U-Net's finest level has at most. A sample of many
# positions has a steadier gradient, and takes longer.
_BATCHES = {64: 64, 256: 32, 1000: 16}
_SMALLEST, _OF_MLP = 8, 256
# Positions, or numbers of a vector, that one batch has at most, to bound its memory.
_POSITIONS = 2**16
# Passes through the data after which a network knows them by heart, sooner where it learns faster.
_PASSES = {"muon": 250, "adam": 500}
# The share of the samples that is held out, how many of them at most, and how many there must be.
_HELD, _MOST_HELD, _FEW = 0.1, 1_000, 50
# Updates: as many as one core of a CPU makes in these seconds, within bounds.
_FEWEST, _STEPS, _SECONDS = 2_000, 30_000, 600
# Its operations a second, and the seconds of an update beside them, for each level of a U-Net.
_SPEED, _OVERHEAD = 1.2e11, 0.003


def law_of(sigma_data: float) -> tuple[LogNormal, str]:
    """Return the law of the training times for data of a standard deviation, and why."""
    law = LogNormal(round(math.log(_MIDDLE * sigma_data), 3), _WIDTH)
    return law, (
        f"of log(sigma / alpha): half of the times between noise of "
        f"{significant(_MIDDLE * sigma_data * math.exp(-0.6745 * _WIDTH), 2):g} and "
        f"{significant(_MIDDLE * sigma_data * math.exp(0.6745 * _WIDTH), 2):g}, around the data's "
        f"std of {significant(sigma_data, 2):g}; levels far below or above are easy"
    )


def rate_of(widest: int, rule: str) -> tuple[float, str]:
    """Return the largest learning rate of a rule, and why.

    Args:
        widest: The width of the network's widest layer.
        rule: "adam" or "muon".
    """
    if rule == "muon":
        return _OF_MUON, "the largest, for any width; it falls to 0 along a cosine"
    rate = significant(min(_RATE, _MOVE / widest), 2)
    return rate, f"the largest, for a width of {widest}; it falls to 0 along a cosine"


def recipe(event_shape: Sequence[int], net: NetConfig, n: int) -> dict[str, tuple[Any, str]]:
    """Choose the numbers of a training; return by the names of `TrainConfig` values and reasons.

    Args:
        event_shape: The shape of one sample.
        net: The network.
        n: The number of samples.
    """
    positions = _positions(event_shape, net)
    usual = _OF_MLP
    if net.type == "unet":
        usual = next((batch for most, batch in _BATCHES.items() if positions <= most), _SMALLEST)
    room, half = (2 ** int(math.log2(max(1, m))) for m in (_POSITIONS // positions, n // 2))
    batch = min(usual, room, half)
    why = "smaller ones leave time for more updates, larger ones have steadier gradients"
    if batch < usual:
        why = (
            f"at most half of the {n} samples"
            if batch == half
            else "so that a step fits into memory"
        )
    levels = len(net.channels) if net.type == "unet" else 1
    seconds = _OVERHEAD * levels + batch * _operations(event_shape, net) / _SPEED
    rule = "muon" if net.type == "unet" else "adam"
    known = int(_PASSES[rule] * n / batch)
    steps = max(_FEWEST // 2, min(_STEPS, known, max(_FEWEST, int(_SECONDS / seconds))))
    steps = int(significant(steps, 2))
    reason = f"{_spelt(steps * seconds)} on one core of a CPU, {_passes(steps * batch / n, n)}"
    if steps < _STEPS:
        reason += "; more would learn them by heart" if known < 1.1 * steps else "; more are better"
    fast, half = net.type == "unet", "for an MLP, which needs all digits"
    if fast:
        fast = has_bfloat16(distributed.device())
        half = "the device computes in bfloat16" if fast else "the device has no bfloat16"
    return {
        "rule": (rule, _RULES[rule]),
        "lr": rate_of(max(net.channels), rule),
        "batch_size": (batch, why),
        "steps": (steps, reason),
        "held_out": held_out_of(n),
        "bf16": (fast, half),
    }


def held_out_of(n: int) -> tuple[float, str]:
    """Return the share of n samples that a training leaves out, and why."""
    if n < _FEW:
        return 0.0, f"there are {n} samples, of which none can be spared"
    share = min(_HELD, significant(_MOST_HELD / n, 2))
    return share, f"{round(share * n):,} samples are not learnt, but judged by; 0 learns all"


def _positions(event_shape: Sequence[int], net: NetConfig) -> int:
    """Return how many positions a network's finest level has, those of an MLP in its widths."""
    if net.type == "mlp":
        return max(1, math.prod(event_shape) // max(net.channels))
    return math.prod(math.ceil(side / net.patch) for side in event_shape[1:])


def _operations(event_shape: Sequence[int], net: NetConfig) -> float:
    """Return about how many operations an update takes for one sample, there and back."""
    if net.type == "mlp":
        widths = (math.prod(event_shape), *net.channels, math.prod(event_shape))
        return 6 * sum(2 * a * b for a, b in itertools.pairwise(widths))
    spatial = len(event_shape) - 1
    sides = [math.ceil(side / net.patch) for side in event_shape[1:]]
    ends = 2 * event_shape[0] * net.patch**spatial * net.channels[0]
    total: float = 3.0**spatial * ends * math.prod(sides)
    for width in net.channels:
        total += 3.0**spatial * 4 * net.blocks * width**2 * math.prod(sides)
        sides = [math.ceil(side / 2) for side in sides]
    return 6 * total


def _spelt(seconds: float) -> str:
    if seconds < 90:
        return "about a minute" if seconds > 30 else "half a minute"
    return f"about {significant(seconds / 60, 1 if seconds < 600 else 2):g} minutes"


def _passes(times: float, n: int) -> str:
    if times < 1:
        return f"on {significant(100 * times, 2):g} % of the {n:,} samples"
    return f"{significant(times, 2):,g} passes through the {n:,} samples"

"""The numbers of a training that suits some data: law of times, rate, batch, steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from scoresde.sde import LogNormal
from scoresde.suggestion.network import NetConfig
from scoresde.suggestion.noise import significant

__all__ = ["law_of", "recipe"]

# The middle of the law of log(sigma / alpha), in units of the data's std, and its width.
_MIDDLE, _WIDTH = 0.45, 1.5
# Positions, or numbers of a vector, that one batch has at most, to bound its memory.
_POSITIONS = 2**16
# Passes through the data after which a network knows them by heart.
_PASSES = 500
# Updates: few enough for an hour of one core, at so many operations a second.
_STEPS, _FEWEST, _SECONDS, _SPEED = 10_000, 1_000, 3600, 5e10


def law_of(sigma_data: float) -> tuple[LogNormal, str]:
    """Return the law of the training times for data of a standard deviation, and why."""
    law = LogNormal(round(math.log(_MIDDLE * sigma_data), 3), _WIDTH)
    return law, (
        f"of log(sigma / alpha): half of the times between noise of "
        f"{significant(_MIDDLE * sigma_data * math.exp(-0.6745 * _WIDTH), 2):g} and "
        f"{significant(_MIDDLE * sigma_data * math.exp(0.6745 * _WIDTH), 2):g}, around the data's "
        f"std of {significant(sigma_data, 2):g}; levels far below or above are easy"
    )


def recipe(event_shape: Sequence[int], net: NetConfig, n: int) -> dict[str, tuple[Any, str]]:
    """Choose the numbers of a training; return by the names of `TrainConfig` values and reasons.

    Args:
        event_shape: The shape of one sample.
        net: The network.
        n: The number of samples.
    """
    positions = _positions(event_shape, net)
    usual = 256 if net.type == "mlp" else 64 if positions <= 128 else 32
    room = max(1, _POSITIONS // positions)
    batch = min(usual, 2 ** int(math.log2(room)), max(1, n // 2))
    why = "small batches leave time for more updates"
    if batch < usual:
        why = f"half of the {n} samples" if batch == n // 2 else "so that a step fits into memory"
    seconds = batch * _operations(event_shape, net) / _SPEED
    known = max(_FEWEST, int(_PASSES * n / batch))
    steps = min(_STEPS, known, max(_FEWEST, int(_SECONDS / seconds)))
    steps = int(significant(steps, 2))
    reason = f"{significant(steps * batch / n, 2):,g} passes through {n:,} samples"
    if steps < _STEPS:
        reason += "; more would learn them by heart" if known < _STEPS else "; more are better"
    reason += f", about {_spelt(steps * seconds)} on one core of a CPU"
    return {
        "lr": (2e-3, "the largest; it falls to 0 along a cosine"),
        "batch_size": (batch, why),
        "steps": (steps, reason),
    }


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
        return "a minute" if seconds > 30 else "half a minute"
    return f"{significant(seconds / 60, 1 if seconds < 600 else 2):g} minutes"

"""Choose the settings of a training: distribution of times, learning rate, batch size, steps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from scoresde import distributed
from scoresde.precision import has_bfloat16
from scoresde.sde import Classes, Field, LogNormal
from scoresde.suggestion.network import NetConfig
from scoresde.suggestion.noise import significant

__all__ = ["law_of", "rate_of", "recipe"]

# In training log(sigma / alpha) is drawn from N(log(_MIDDLE * std), _WIDTH^2), where std is that of
# the data.
_MIDDLE, _WIDTH = 0.45, 1.5
# The largest learning rate, and the largest product of the rate and the width of the widest layer.
# Adam changes every weight by about the rate, and so the output of a neuron by about the rate times
# the width.
_RATE, _MOVE = 5e-3, 0.32
# The learning rate of Muon, the same for any width, since all singular values of a step are equal.
_OF_MUON = 1e-2
_RULES = {
    "muon": "Muon for a U-Net: its orthogonal steps lower the loss more in the same time",
    "adam": "Adam for an MLP or a transformer",
}
# The batch size of a U-Net or a transformer: each key is the largest number of positions (pixels or
# patches at the finest resolution) for which its value is used; _SMALLEST is used for more
# positions. With more positions the gradients of different samples differ less, and each takes
# longer to compute. _OF_MLP is the batch size of an MLP.
_BATCHES = {64: 64, 256: 32, 1000: 16}
_SMALLEST, _OF_MLP = 8, 256
# The samples of a batch together have at most this many positions, which limits the memory. In an
# MLP a sample counts as (number of its entries / largest width) positions, at least 1.
_POSITIONS = 2**16
# The number of passes through the data after which a network overfits.
_PASSES = {"muon": 250, "adam": 500}
# The share _HELD of the samples is held out, but at most about _MOST_HELD samples. If there are
# fewer than _FEW samples, none are held out.
_HELD, _MOST_HELD, _FEW = 0.1, 1_000, 50
# The usual share of the conditions that is hidden, and the largest share.
_HIDDEN, _MOST_HIDDEN = 0.1, 0.25
# There are at most _STEPS steps, which take at most _SECONDS on one core of a CPU; but _FEWEST
# steps may take longer. With few samples, which a network overfits sooner, half of _FEWEST may be
# chosen.
_FEWEST, _STEPS, _SECONDS = 2_000, 30_000, 600
# The operations per second of one core, and the additional seconds of a step for each resolution of
# a U-Net.
_SPEED, _OVERHEAD = 1.2e11, 0.003


def law_of(sigma_data: float) -> tuple[LogNormal, str]:
    """Return the distribution of the training times for data of this std, and the reason."""
    law = LogNormal(round(math.log(_MIDDLE * sigma_data), 3), _WIDTH)
    return law, (
        f"the distribution of log(sigma / alpha) in training: half of the times have noise between "
        f"{significant(_MIDDLE * sigma_data * math.exp(-0.6745 * _WIDTH), 2):g} and "
        f"{significant(_MIDDLE * sigma_data * math.exp(0.6745 * _WIDTH), 2):g}, near the data's "
        f"std of {significant(sigma_data, 2):g}; at far smaller or larger noise the score is easy "
        "to learn"
    )


def rate_of(widest: int, rule: str) -> tuple[float, str]:
    """Return the largest learning rate of an optimiser, and the reason.

    Args:
        widest: The width of the network's widest layer.
        rule: "adam" or "muon".
    """
    if rule == "muon":
        return _OF_MUON, "the largest learning rate, for any width; it falls to 0 along a cosine"
    rate = significant(min(_RATE, _MOVE / widest), 2)
    return rate, (
        f"the largest learning rate, for layers of width {widest}; it falls to 0 along a cosine"
    )


def recipe(
    event_shape: Sequence[int],
    net: NetConfig,
    n: int,
    kinds: Mapping[str, Classes | Field] | None = None,
) -> dict[str, tuple[Any, str]]:
    """Choose the settings of a training; return values and reasons by the names of `TrainConfig`.

    Args:
        event_shape: The shape of one sample.
        net: The network.
        n: The number of samples.
        kinds: The conditions of the data.
    """
    positions = _positions(event_shape, net)
    usual = _OF_MLP
    if net.type != "mlp":
        usual = next((batch for most, batch in _BATCHES.items() if positions <= most), _SMALLEST)
    room, half = (2 ** int(math.log2(max(1, m))) for m in (_POSITIONS // positions, n // 2))
    batch = min(usual, room, half)
    why = "smaller batches leave time for more steps, larger ones have less noisy gradients"
    if batch < usual:
        why = (
            f"a batch has at most half of the {n} samples"
            if batch == half
            else "the largest batch whose step fits into memory"
        )
    levels = len(net.channels) if net.type == "unet" else 1
    seconds = _OVERHEAD * levels + batch * _operations(event_shape, net) / _SPEED
    rule = "muon" if net.type == "unet" else "adam"
    known = int(_PASSES[rule] * n / batch)
    steps = max(_FEWEST // 2, min(_STEPS, known, max(_FEWEST, int(_SECONDS / seconds))))
    steps = int(significant(steps, 2))
    reason = (
        f"training for {_duration(steps * seconds)} on one idle core of a CPU, "
        f"{_passes(steps * batch / n, n)}"
    )
    if steps < _STEPS:
        reason += "; more steps may overfit" if known < 1.1 * steps else "; more steps are better"
    bf16, precision = False, "an MLP or a transformer is trained in float32"
    if net.type == "unet":
        bf16 = has_bfloat16(distributed.device())
        precision = "the device computes in bfloat16" if bf16 else "the device has no bfloat16"
    return {
        "rule": (rule, _RULES[rule]),
        "lr": rate_of(max(net.channels), rule),
        "batch_size": (batch, why),
        "steps": (steps, reason),
        "held_out": held_out_of(n),
        "bf16": (bf16, precision),
        **_hidden(kinds or {}),
    }


def _hidden(kinds: Mapping[str, Classes | Field]) -> dict[str, tuple[float, str]]:
    """Return the share of samples whose class is hidden in training, and the reason.

    The result is empty if the usual share is enough, or if a class is not the only condition. With
    3 or more classes of equal size, the score without a class is then learnt from about as many
    samples as the score of each class.
    """
    (kind,) = kinds.values() if len(kinds) == 1 else (None,)
    share = _HIDDEN if not isinstance(kind, Classes) else min(_MOST_HIDDEN, 1 / (kind.n + 1))
    if not isinstance(kind, Classes) or share <= _HIDDEN:
        return {}
    return {
        "condition_dropout": (
            significant(share, 2),
            "the share of samples whose class is hidden, so that the score without a class is "
            "learnt from enough samples",
        )
    }


def held_out_of(n: int) -> tuple[float, str]:
    """Return the share of n samples that is held out from training, and the reason."""
    if n < _FEW:
        return 0.0, f"{n} samples are too few to hold some out"
    share = min(_HELD, significant(_MOST_HELD / n, 2))
    return share, f"{round(share * n):,} samples are not trained on; the loss is measured on them"


def _positions(event_shape: Sequence[int], net: NetConfig) -> int:
    """Return the positions of a sample at the finest resolution; for an MLP its entries / width."""
    if net.type == "mlp":
        return max(1, math.prod(event_shape) // max(net.channels))
    return math.prod(math.ceil(side / net.patch) for side in event_shape[1:])


def _operations(event_shape: Sequence[int], net: NetConfig) -> float:
    """Return the approximate operations of an update for one sample, forward and backward."""
    if net.type == "mlp":
        widths = (math.prod(event_shape), *net.channels, math.prod(event_shape))
        return 6 * sum(2 * a * b for a, b in itertools.pairwise(widths))
    if net.type == "dit":
        tokens, width, depth = _positions(event_shape, net), net.channels[0], len(net.channels)
        ends = 2 * math.prod(event_shape) * width
        return 6 * (ends + tokens * depth * (12 * width**2 + 2 * tokens * width))
    spatial = len(event_shape) - 1
    sides = [math.ceil(side / net.patch) for side in event_shape[1:]]
    ends = 2 * event_shape[0] * net.patch**spatial * net.channels[0]
    total: float = 3.0**spatial * ends * math.prod(sides)
    for width in net.channels:
        total += 3.0**spatial * 4 * net.blocks * width**2 * math.prod(sides)
        sides = [math.ceil(side / 2) for side in sides]
    return 6 * total


def _duration(seconds: float) -> str:
    if seconds < 90:
        return "about a minute" if seconds > 30 else "half a minute"
    return f"about {significant(seconds / 60, 1 if seconds < 600 else 2):g} minutes"


def _passes(times: float, n: int) -> str:
    if times < 1:
        return f"on {significant(100 * times, 2):g} % of the {n:,} samples"
    return f"{significant(times, 2):,g} passes through the {n:,} samples"

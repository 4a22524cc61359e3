"""From what was seen at each noise level to its figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scoresde.audit.agreement import Agreement
from scoresde.audit.identities import ROUNDING, Estimate, examine, mean
from scoresde.audit.references import Linear
from scoresde.audit.result import Level, Memory, limit
from scoresde.audit.subject import Sight
from scoresde.sde import SDE

__all__ = ["levels_of"]


def levels_of(
    sde: SDE,
    times: Tensor,
    x: Tensor,
    sights: Sequence[Sight],
    learnt: Sequence[Sight],
    drawn: Sequence[Agreement],
) -> tuple[Level, ...]:
    """Return the figures of all levels.

    Args:
        sde: The process.
        times: The levels, from the largest noise down.
        x: The held-out samples, `(n, *)`.
        sights: What was seen of them.
        learnt: What was seen of training samples; empty where none were given.
        drawn: The samples of the SDE against those of the flow.
    """
    flat = x.double().reshape(len(x), -1)
    # each half of the samples meets the linear denoiser of the other
    even, odd = Linear(flat[::2]), Linear(flat[1::2])
    levels = []
    for i, (t, sight) in enumerate(zip(times, sights, strict=True)):
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        linear = torch.empty_like(sight.losses)
        linear[::2] = odd.loss(flat[::2], alpha, sigma)
        linear[1::2] = even.loss(flat[1::2], alpha, sigma)
        findings, above = examine(sight.table, sight.errors), mean(sight.losses - linear)
        memory = _memory(sight, learnt[i]) if learnt else None
        levels.append(
            Level(
                t=float(t),
                ratio=sigma / alpha,
                log_snr=float(sde.log_snr(t)),
                loss=mean(sight.losses),
                findings=findings,
                linear=mean(linear),
                floor=None if sight.floor is None else mean(sight.floor),
                fisher=None if sight.fisher is None else mean(sight.fisher),
                memory=memory,
                agreement=drawn[i],
                z={
                    **findings.z,
                    "linear": _deviate(above),
                    "memory": 0.0 if memory is None else _deviate(memory.gap),
                },
                limit=limit(len(times)),
            )
        )
    return tuple(levels)


def _memory(held: Sight, learnt: Sight) -> Memory:
    """Return the loss of training samples beside that of held-out ones."""
    assert learnt.floor is not None
    new, old, floor = mean(held.losses), mean(learnt.losses), mean(learnt.floor)
    gap = Estimate(new.value - old.value, math.hypot(new.stderr, old.stderr))
    room = max(new.value - floor.value, 0.0)
    share = Estimate(
        gap.value / room if room > ROUNDING else 0.0,
        gap.stderr / room if room > ROUNDING else math.inf,
    )
    return Memory(old, floor, gap, share)


def _deviate(estimate: Estimate) -> float:
    return estimate.value / math.hypot(estimate.stderr, ROUNDING)

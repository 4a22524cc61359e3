"""Compute the results of each noise scale from the evaluations of the score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scoresde.audit.agreement import Agreement
from scoresde.audit.identities import ROUNDING, Estimate, deviation, examine, mean
from scoresde.audit.references import Linear
from scoresde.audit.result import Level, Memory, limit
from scoresde.audit.subject import Evaluated
from scoresde.sde import SDE

__all__ = ["levels_of"]


def levels_of(
    sde: SDE,
    times: Tensor,
    x: Tensor,
    seen: Sequence[Evaluated],
    learnt: Sequence[Evaluated],
    drawn: Sequence[Agreement],
) -> tuple[Level, ...]:
    """Return the result of every noise scale.

    Args:
        sde: The process.
        times: The times, the largest noise first.
        x: The held-out samples, `(n, *)`.
        seen: The evaluations of the score on the held-out samples.
        learnt: The evaluations of the score on training samples; empty if none are given.
        drawn: The distances between samples of the SDE and of the flow.
    """
    flat = x.double().reshape(len(x), -1)
    # fit a linear denoiser to each half of the samples and evaluate it on the other half
    even, odd = Linear(flat[::2]), Linear(flat[1::2])
    levels = []
    for i, (t, held) in enumerate(zip(times, seen, strict=True)):
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        linear = torch.empty_like(held.losses)
        linear[::2] = odd.loss(flat[::2], alpha, sigma)
        linear[1::2] = even.loss(flat[1::2], alpha, sigma)
        findings, above = examine(held.table, held.errors), mean(held.losses - linear)
        memory = _memory(held, learnt[i]) if learnt else None
        levels.append(
            Level(
                t=float(t),
                ratio=sigma / alpha,
                log_snr=float(sde.log_snr(t)),
                loss=mean(held.losses),
                findings=findings,
                linear=mean(linear),
                floor=None if held.floor is None else mean(held.floor),
                fisher=None if held.fisher is None else mean(held.fisher),
                memory=memory,
                agreement=drawn[i],
                z={
                    **findings.z,
                    "linear": deviation(above),
                    "memory": 0.0 if memory is None else deviation(memory.gap),
                },
                limit=limit(len(times)),
            )
        )
    return tuple(levels)


def _memory(held: Evaluated, learnt: Evaluated) -> Memory:
    """Compare the loss of training samples with the loss of held-out samples."""
    assert learnt.floor is not None
    new, old, floor = mean(held.losses), mean(learnt.losses), mean(learnt.floor)
    gap = Estimate(new.value - old.value, math.hypot(new.stderr, old.stderr))
    room = max(new.value - floor.value, 0.0)
    share = Estimate(
        gap.value / room if room > ROUNDING else 0.0,
        gap.stderr / room if room > ROUNDING else math.inf,
    )
    return Memory(old, floor, gap, share)

"""Announce the measurement of a model's pilot for the sampler "fast", and its time."""

from __future__ import annotations

import time

import torch

from scoresde.cli.terminal import tell
from scoresde.sampling import SAMPLERS
from scoresde.sampling.learn import SAMPLES
from scoresde.sampling.model_pilot import evaluations_of
from scoresde.score import ScoreModel, device_of, evaluating
from scoresde.score.pilot_file import SLOW_PILOT

__all__ = ["announce", "seconds", "steps_of"]

TASK = 'measuring how the score varies with noise, so that the sampler "fast" needs few evaluations'
"""The task that is announced before a pilot is measured."""


def steps_of(model: ScoreModel) -> int:
    """Return the default number of steps of the sampler "fast" for a model."""
    usual = SAMPLERS["fast"].steps
    return min(model.steps or usual, usual)


def seconds(model: ScoreModel, steps: int) -> float:
    """Return the approximate seconds of the measurement, from the time of one evaluation."""
    x = torch.zeros(SAMPLES, *model.event_shape, device=device_of(model))
    with torch.no_grad(), evaluating(model):
        for _ in range(2):  # the first call takes longer than later calls
            start = time.perf_counter()
            model(x, model.sde.T / 2)
            spent = time.perf_counter() - start
    return spent * evaluations_of(steps) / SAMPLES


def announce(model: ScoreModel, steps: int | None) -> None:
    """Announce the measurement for a model without a pilot, if it takes more than 2 seconds."""
    if (spent := seconds(model, steps or steps_of(model))) > SLOW_PILOT:
        tell(f"{TASK}: about {spent:.0f} s, once; --sampler dpmpp_2m draws without")

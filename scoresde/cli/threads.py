"""Choose the number of threads, since many threads are slow if they wait for a busy core."""

from __future__ import annotations

import os
import time

import torch

from scoresde.score import ScoreModel

__all__ = ["choose"]


@torch.no_grad()
def choose(model: ScoreModel, batch: int = 64) -> int:
    """Set one thread or all threads, whichever evaluates a model faster.

    A number of threads that the user has set by `OMP_NUM_THREADS` is kept.

    Args:
        model: A model on the CPU.
        batch: The number of samples of an evaluation.

    Returns:
        The number of threads.
    """
    most = torch.get_num_threads()
    if most == 1 or "OMP_NUM_THREADS" in os.environ:
        return most
    x = torch.zeros(batch, *model.event_shape)
    seconds = {}
    for threads in (1, most):
        torch.set_num_threads(threads)
        model(x, model.sde.T)  # warm up
        start = time.perf_counter()
        model(x, model.sde.T)
        seconds[threads] = time.perf_counter() - start
    best = min(seconds, key=seconds.__getitem__)
    torch.set_num_threads(best)
    return best

"""How many threads compute: more are many times slower where they wait for a core in use."""

from __future__ import annotations

import os
import time

import torch

from scoresde.score import ScoreModel

__all__ = ["choose"]


@torch.no_grad()
def choose(model: ScoreModel, batch: int = 64) -> int:
    """Compute by one thread or by all that there are, whichever is faster here and now.

    A number of threads that the user set, as by `OMP_NUM_THREADS`, stays.

    Args:
        model: A model on the CPU.
        batch: Samples that it is asked for at once.

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
        model(x, model.sde.T)  # the first call of all sets things up
        start = time.perf_counter()
        model(x, model.sde.T)
        seconds[threads] = time.perf_counter() - start
    best = min(seconds, key=seconds.__getitem__)
    torch.set_num_threads(best)
    return best

r"""Choose the samples of every batch, as a function of the seed and the step.

The order of the samples in an epoch is a function of (seed, epoch), and the samples of a batch are
a function of (seed, step). So training can resume at any step without a stored state.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from scoresde.errors import InvalidValueError

__all__ = ["batch_indices", "order"]


def order(n: int, *, seed: int, epoch: int) -> Tensor:
    """Return a permutation of `range(n)`, a function of (seed, epoch).

    It sorts the raw words of a Philox generator (Salmon et al. 2011). numpy guarantees that these
    words never change, but gives no guarantee for `Generator.permutation`.

    Raises:
        InvalidValueError: `seed` is not in [0, 2**64), or `n` is below 1.
    """
    if not (0 <= seed < 2**64 and n >= 1):
        raise InvalidValueError(f"need 0 <= seed < 2**64 and n >= 1, got seed = {seed}, n = {n}")
    # numpy would convert a list with a 64-bit number to float64, and lose the last eleven bits
    key = np.array([seed, epoch], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(n)
    return torch.from_numpy(np.argsort(words, kind="stable"))


_order = functools.lru_cache(maxsize=2)(order)


def batch_indices(n: int, batch_size: int, *, seed: int, step: int) -> Tensor:
    """Return the indices of the samples in batch `step`, `(batch_size,)`.

    Every epoch uses every sample once. Every batch is full, so a batch may hold the end of one
    epoch and the beginning of the next.
    """
    parts, at, end = [], step * batch_size, (step + 1) * batch_size
    while at < end:
        epoch, offset = divmod(at, n)
        part = _order(n, seed=seed, epoch=epoch)[offset : offset + end - at]
        parts.append(part)
        at += len(part)
    return torch.cat(parts)

r"""The order of training: which samples make up which batch, without any state.

The order of an epoch is a pure function of (seed, epoch), and the samples of a batch one of
(seed, step), so that training can go on anywhere without having stored where it was.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from scoresde.errors import InvalidValueError

__all__ = ["batch_indices", "order"]


def order(n: int, *, seed: int, epoch: int) -> Tensor:
    """Return a permutation of `range(n)`, a pure function of (seed, epoch).

    It sorts the raw words of a Philox counter (Salmon et al. 2011), a stream that numpy promises
    never to change, which it does not promise for `Generator.permutation`.

    Raises:
        InvalidValueError: `seed` is no 64-bit number, or there is nothing to order.
    """
    if not (0 <= seed < 2**64 and n >= 1):
        raise InvalidValueError(f"need 0 <= seed < 2**64 and n >= 1, got seed = {seed}, n = {n}")
    # a list would pass through float64 where a number has 64 bits, and lose the last eleven
    key = np.array([seed, epoch], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(n)
    return torch.from_numpy(np.argsort(words, kind="stable"))


_order = functools.lru_cache(maxsize=2)(order)


def batch_indices(n: int, batch_size: int, *, seed: int, step: int) -> Tensor:
    """Return the samples of batch number `step`, `(batch_size,)`, a pure function of (seed, step).

    The epochs follow one another without a gap: a batch may end one and begin the next, every
    batch is full, and every epoch uses every sample once.
    """
    parts, at, end = [], step * batch_size, (step + 1) * batch_size
    while at < end:
        epoch, offset = divmod(at, n)
        part = _order(n, seed=seed, epoch=epoch)[offset : offset + end - at]
        parts.append(part)
        at += len(part)
    return torch.cat(parts)

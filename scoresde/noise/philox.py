"""Standard normal numbers by counter: Philox for the bits, Box & Muller for the law.

Philox (Salmon et al. 2011, *Parallel random numbers: as easy as 1, 2, 3*) maps a key and a counter
to four words of 64 bits. A sample's key is its seed; its index, its place and its stream are the
counter, so that its numbers do not depend on the batch that it comes in. Box & Muller (1958), *A
note on the generation of random normal deviates*, turn two uniform numbers into two normal ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Run", "double", "runs_of", "single", "words"]

_WORD = 2**64
# words that Philox makes at a time
_BLOCK = 4

Run = tuple[int, int, int, int]
"""Samples `start ... stop - 1` of a batch, which follow each other in one seed: their seed, the
index of the first, start and stop."""


def runs_of(seeds: Sequence[int], indices: Sequence[int]) -> list[Run]:
    """The batch as runs of samples whose numbers can be made in one go."""
    names = list(zip(seeds, indices, strict=True))
    starts = [
        i for i, (seed, index) in enumerate(names) if i == 0 or names[i - 1] != (seed, index - 1)
    ]
    stops = [*starts, len(names)][1:]
    return [(*names[start], start, stop) for start, stop in zip(starts, stops, strict=True)]


def words(
    runs: Sequence[Run], count: int, place: tuple[int, int, int], purpose: int
) -> NDArray[np.uint64]:
    """At least `count` words `(B, count)` for each sample.

    Args:
        runs: The batch.
        count: How many; rounded up to whole blocks.
        place: Three words of the counter, modulo 2**64, that say where the numbers are asked for.
        purpose: The second word of the key: numbers of two purposes never meet.
    """
    blocks = -(-count // _BLOCK)
    parts = [np.empty((0, blocks * _BLOCK), dtype=np.uint64)]
    philox = np.random.Philox(key=0)
    state = philox.state
    for seed, index, start, stop in runs:
        # sample i owns the counters [i blocks, (i + 1) blocks): a run of samples is one call
        counter = [word % _WORD for word in (index * blocks, *place)]
        # lists of large and small integers would become floating point
        state["state"] = {
            "counter": np.array(counter, dtype=np.uint64),
            "key": np.array([seed, purpose], dtype=np.uint64),
        }
        philox.state = state
        numbers = philox.random_raw((stop - start) * blocks * _BLOCK)
        parts.append(numbers.reshape(stop - start, blocks * _BLOCK))
    return parts[-1] if len(parts) == 2 else np.concatenate(parts)


def double(raw: NDArray[np.uint64]) -> Tensor:
    """One normal number of 53 bits from each word, `(B, count)`."""
    # the middles of 2**53 cells of (0, 1)
    uniform = torch.from_numpy(((raw >> np.uint64(11)) + 0.5) * 2.0**-53)
    u, v = uniform.chunk(2, dim=1)
    radius, angle = (-2 * u.log()).sqrt(), 2 * math.pi * v
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)


def single(raw: NDArray[np.uint64]) -> Tensor:
    """Two normal numbers of 24 bits from each word, `(B, 2 count)`, in a fifth of the time."""
    half = raw.shape[1]
    # numpy has the faster logarithm and cosine in single precision
    u, v = (
        part.astype(np.float32)
        for part in (raw.view(np.int32)[:, :half], raw.view(np.int32)[:, half:])
    )
    # |u| keeps the small numbers apart, which make the tail
    np.abs(u, out=u)
    u += np.float32(0.5)
    u *= np.float32(2.0**-31)
    radius = np.sqrt(np.float32(-2) * np.log(u))
    v *= np.float32(math.pi * 2.0**-31)
    return torch.from_numpy(np.concatenate((radius * np.cos(v), radius * np.sin(v)), axis=1))

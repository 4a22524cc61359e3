"""Compute standard normal numbers from counters, by Philox and Box-Muller.

Philox (Salmon et al. 2011, *Parallel random numbers: as easy as 1, 2, 3*) maps a key and a counter
to four words of 64 bits. The key is the seed of a sample; the counter is its index, the place of
the draw and its stream, so that the numbers do not depend on the batch. Box & Muller (1958), *A
note on the generation of random normal deviates*, turn two uniform numbers into two normal ones.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Words", "double", "single"]

_WORD = 2**64
# words of one call of Philox
_BLOCK = 4


class _Generator(threading.local):
    """Hold a generator for each thread; its state is set before every draw."""

    def __init__(self) -> None:
        self.philox = np.random.Philox(key=0)
        self.state = self.philox.state


_own = _Generator()


class Words:
    """Compute the random words of a batch of samples.

    Args:
        seeds: The seed of each sample.
        indices: The index of each sample.
    """

    def __init__(self, seeds: Sequence[int], indices: Sequence[int]) -> None:
        keys = np.array(seeds, dtype=np.uint64)
        places = np.array(indices, dtype=np.int64)
        # runs of consecutive samples of one seed, whose words are made in one call
        new = (keys[1:] != keys[:-1]) | (np.diff(places) != 1)
        starts = [0, *(np.flatnonzero(new) + 1).tolist()][: len(seeds)]
        lengths = np.diff([*starts, len(seeds)]).tolist()
        self._runs = [
            (seeds[i], indices[i], length) for i, length in zip(starts, lengths, strict=True)
        ]

    def __call__(self, count: int, place: tuple[int, int, int], purpose: int) -> NDArray[np.uint64]:
        """Return random words `(B, count)`, the count rounded up to whole blocks.

        Args:
            count: The number of words for each sample.
            place: Three words of the counter, modulo 2**64: number of the draw, time and stream.
            purpose: The second word of the key: two purposes never share words.
        """
        blocks = -(-count // _BLOCK)
        parts = [np.empty((0, blocks * _BLOCK), dtype=np.uint64)]
        for seed, index, length in self._runs:
            # sample i owns the counters [i blocks, (i + 1) blocks)
            counter = [word % _WORD for word in (index * blocks, *place)]
            # dtype, since numpy makes a list of large and small integers floating-point
            _own.state["state"] = {
                "counter": np.array(counter, dtype=np.uint64),
                "key": np.array([seed, purpose], dtype=np.uint64),
            }
            _own.philox.state = _own.state
            words = _own.philox.random_raw(length * blocks * _BLOCK)
            parts.append(words.reshape(length, blocks * _BLOCK))
        return parts[-1] if len(self._runs) == 1 else np.concatenate(parts)


def double(raw: NDArray[np.uint64]) -> Tensor:
    """Return one normal number of 53 bits from each word, `(B, count)`."""
    # the middles of 2**53 cells of (0, 1)
    uniform = torch.from_numpy(((raw >> np.uint64(11)) + 0.5) * 2.0**-53)
    u, v = uniform.chunk(2, dim=1)
    radius, angle = (-2 * u.log()).sqrt(), 2 * math.pi * v
    return torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)


def single(raw: NDArray[np.uint64]) -> Tensor:
    """Return two normal numbers of 24 bits from each word, `(B, 2 count)`, 5 times faster."""
    words, half = raw.view(np.int32), raw.shape[1]
    # in numpy, whose logarithm and cosine in single precision are faster than torch's
    u, v = words[:, :half].astype(np.float32), words[:, half:].astype(np.float32)
    # |u| of a signed word: small numbers, which make the tail, keep their precision
    np.abs(u, out=u)
    u += np.float32(0.5)
    u *= np.float32(2.0**-31)
    radius = np.sqrt(np.float32(-2) * np.log(u))
    v *= np.float32(math.pi * 2.0**-31)
    return torch.from_numpy(np.concatenate((radius * np.cos(v), radius * np.sin(v)), axis=1))

r"""Compute random words for the samples of a batch, as a function of seed, index and place only.

A place consists of a time t, the number k of a draw, and the purpose of the draw. The tag of a
place is (numbers after a colon are sizes in bits)

$$ \text{Philox}(\text{seed};\; \text{bits of } t : 64,\ k : 32,\ \text{purpose} : 32), $$

so two places of one seed never have the same tag. The words of sample `index` are

$$ \text{Philox}(\text{tag}_{0 \ldots 63};\;
   \text{block} : 32,\ \text{index} : 40,\ \text{tag}_{64 \ldots 119} : 56), $$

so two words of one draw never have the same counter. Two of N draws have the same key and counter
with a probability below $N^2 / 2^{121}$.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from operator import eq
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.noise import philox
from scoresde.noise.philox import Scratch, Words

__all__ = ["INDICES", "Rows", "Source", "in_numpy"]

INDICES = 2**40
"""The largest number of samples of one seed."""

_WORD = 2**64
_LOW = 2**32 - 1
# up to this many counters Python is faster than numpy
_FEW = 6


def in_numpy(device: torch.device) -> bool:
    """Return True if numpy makes the words for a device, which is fastest on the CPU."""
    return device.type == "cpu"


class Rows:
    """Hold the seed and the index of each sample of a batch.

    Args:
        seeds: The seeds, in [0, 2**64).
        indices: The indices, in [0, 2**40).
    """

    def __init__(self, seeds: Sequence[int], indices: Sequence[int]) -> None:
        self.seeds, self.indices = seeds, indices
        self.seed = seeds[0] if len(seeds) and seeds.count(seeds[0]) == len(seeds) else None
        self._moved: dict[torch.device, tuple[Any, Tensor]] = {}

    def source(self, place: int, device: torch.device, second: int | None = None) -> Source:
        """Return the source of the words of a place.

        Args:
            place: The place: time, draw number and purpose packed into a 128-bit integer.
            device: The device on which the words are needed.
            second: A further 64-bit integer on which the words depend.
        """
        if self.seed is not None:
            tag = philox.block(self.seed, place)
            if second is not None:
                tag = philox.block(tag % _WORD, second | tag >> 64 << 64)
            words: list[Any] = _split(tag)
        else:
            seeds = self.on(device)[0]
            words = _philox([seeds & _LOW, seeds >> 32 & _LOW], _split(place))
            if second is not None:
                words = _philox(words[:2], [*_split(second)[:2], *words[2:]])
        return Source(words, self.on(device)[1])

    def source_of_nodes(self, nodes: Tensor, purpose: int, device: torch.device) -> Source:
        """Return the source of the words of N nodes of a path for each sample, in torch.

        Args:
            nodes: The nodes `(N, B)`, int64. The rows of the words follow in this order.
            purpose: The purpose of the words.
            device: The device on which the words are needed.
        """
        seeds, indices = (
            torch.from_numpy(rows.view(np.int64)).repeat(len(nodes), 1).to(device)
            for rows in self._arrays
        )
        node = nodes.reshape(-1, 1).to(device)
        words = _philox([seeds & _LOW, seeds >> 32 & _LOW], [node & _LOW, node >> 32, 0, purpose])
        return Source(words, indices)

    def reseeded(self, place: int) -> list[int]:
        """Return new seeds, which are a function of the seeds and a place."""
        made = {seed: philox.block(seed, place) % _WORD for seed in {*self.seeds}}
        return [made[seed] for seed in self.seeds]

    def on(self, device: torch.device) -> tuple[Any, Any]:
        """Return seeds and indices `(B, 1)`, numpy arrays for the CPU, else tensors; cached."""
        if in_numpy(device):
            return self._arrays
        if device not in self._moved:
            seeds, indices = (torch.from_numpy(a.view(np.int64)) for a in self._arrays)
            # consecutive indices are computed on the device, which avoids a copy
            self._moved[device] = (
                seeds.to(device) if self.seed is None else None,
                torch.arange(*self._range, device=device).unsqueeze(1)
                if self._range
                else indices.to(device),
            )
        return self._moved[device]

    @functools.cached_property
    def _arrays(self) -> tuple[Words, Words]:
        return _array(self.seeds), _array(self.indices)

    @functools.cached_property
    def _range(self) -> tuple[int, int] | None:
        """Return the first index and the last index plus 1 if the indices are consecutive."""
        indices = self.indices
        places = range(indices[0], indices[0] + len(indices)) if len(indices) else range(0)
        return (places.start, places.stop) if all(map(eq, indices, places)) else None


class Source:
    """Make the random words of one place for all samples.

    Args:
        tag: The four words of the place's tag, integers or `(B, 1)`.
        indices: The indices of the samples, `(B, 1)`.
    """

    def __init__(self, tag: list[Any], indices: Any) -> None:
        self._key = tag[:2]
        self._low, self._high = indices & _LOW, indices >> 32
        # the remaining bits of the tag go into the counter, above the index
        self._high = self._high | (tag[2] & 2**24 - 1) << 8
        self._top = tag[2] >> 24 | (tag[3] & 2**24 - 1) << 8

    def lanes(self, rows: slice, blocks: range, scratch: Scratch) -> Words:
        """Return the lanes `(2, R, C)` for a range of rows and a range of blocks, on the CPU."""
        low, high = self._low[rows], self._high[rows]
        if isinstance(self._top, int) and len(low) * len(blocks) <= _FEW:
            return self._few(low, high, blocks, scratch)
        keys = self._keys if self._keys.shape[2] == 1 else self._keys[:, :, rows]
        top = _array(self._top) if isinstance(self._top, int) else self._top[rows]
        columns = scratch("blocks", (1, len(blocks)), np.uint64)
        np.add(_counted(len(blocks)), np.uint64(blocks.start), columns[0])
        return philox.lanes(keys, (columns, low, high, top), scratch)

    def lanes_on_device(self, blocks: int) -> list[Tensor]:
        """Return the two lanes for all rows and the first `blocks` blocks, `(B, blocks)` each."""
        columns = torch.arange(blocks, device=self._low.device)
        counter = columns, self._low, self._high, self._top
        return philox.lanes_on_device((self._key[0], self._key[1]), counter)

    def _few(self, low: Words, high: Words, blocks: range, scratch: Scratch) -> Words:
        """Return the lanes of a few counters, computed in Python."""
        found = scratch("lanes", (2, len(low), len(blocks)), np.uint64)
        key = self._key[0] | self._key[1] << 32
        for i, (one, two) in enumerate(zip(low[:, 0].tolist(), high[:, 0].tolist(), strict=True)):
            row = one << 32 | two << 64 | self._top << 96
            for j, block in enumerate(blocks):
                words = _split(philox.block(key, row | block))
                found[:, i, j] = words[0] << 32 | words[1], words[2] << 32 | words[3]
        return found

    @functools.cached_property
    def _keys(self) -> Words:
        return philox.keys_of(*map(_array, self._key))


@functools.cache
def _all() -> Words:
    return np.arange(2**15, dtype=np.uint64)


def _counted(n: int) -> Words:
    """Return the integers from 0 to n - 1, cached."""
    return _all()[:n] if n <= len(_all()) else np.arange(n, dtype=np.uint64)


def _split(words: int) -> list[int]:
    """Return the four words of a 128-bit integer, the lowest first."""
    return [words >> shift & _LOW for shift in range(0, 128, 32)]


def _array(word: Any) -> Words:
    return np.array(word, dtype=np.uint64).reshape(-1, 1)


def _philox(key: list[Any], counter: list[Any]) -> list[Any]:
    """Apply Philox to one counter under each of B keys; words are integers or arrays `(B, 1)`."""
    if isinstance(key[0], Tensor):
        whole = [word + torch.zeros_like(key[0]) for word in counter]
        lanes: Any = philox.lanes_on_device(
            (key[0], key[1]), (whole[0], whole[1], whole[2], whole[3])
        )
    else:
        one, two, three, four = map(_array, counter)
        lanes = philox.lanes(philox.keys_of(key[0], key[1]), (one, two, three, four), Scratch())
        lanes = lanes.reshape(2, -1, 1)
    return [word for lane in lanes for word in (lane >> 32 & _LOW, lane & _LOW)]

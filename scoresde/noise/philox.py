r"""Compute random words from keys and counters by Philox 4x32-10.

Philox (Salmon et al. 2011, *Parallel random numbers: as easy as 1, 2, 3*) maps a counter of four
words of 32 bits to four random words. For each 64-bit key this map is a permutation of all
counters. The four words $c_0, \dots, c_3$ are stored in two 64-bit integers, called lanes,
$l = 2^{32} c_0 + c_1$ and $r = 2^{32} c_2 + c_3$. One of the ten rounds, with the multipliers
$M_0, M_1$ and its key $k_0, k_1$, is

$$ (l, r) \to \big(M_1 \lfloor r / 2^{32} \rfloor \oplus 2^{32} (l \oplus k_0), \;
                   M_0 \lfloor l / 2^{32} \rfloor \oplus 2^{32} (r \oplus k_1)\big)
   \bmod 2^{64} . $$

There are three implementations: in Python for one counter, in numpy for the CPU (where numpy is
faster than torch), and in torch with 64-bit integers for all other devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

__all__ = ["Counter", "Scratch", "Words", "block", "keys_of", "lanes", "lanes_on_device"]

Words = NDArray[np.uint64]
Counter = tuple[Words, Words, Words, Words]

_LOW = 2**32 - 1
_FACTORS = 0xD2511F53, 0xCD9E8D57
# the golden ratio and sqrt(3) - 1, which are added to the two words of the key after each round
_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10

# arrays without dimensions, since numpy takes longer with its scalars
_HALF, _LEFT, _RIGHT = map(np.array, np.array([32, *_FACTORS], dtype=np.uint64))
_BOTH = np.array(_FACTORS[::-1], dtype=np.uint64).reshape(2, 1, 1)


class Scratch:
    """Keep buffers for reuse, since allocating memory takes as long as computing the words."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[Any]] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return the buffer with this name, whose content is arbitrary; later calls reuse it."""
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.size < size or kept.dtype != dtype:
            kept = self._kept[name] = np.empty(size, dtype=dtype)
        return kept[:size].reshape(shape)


def block(key: int, counter: int) -> int:
    """Return the 128 random bits of a 128-bit counter under a 64-bit key.

    In the counter and in the key the first word has the lowest bits.

    Examples:
        >>> hex(block(0, 0))
        '0x9b00dbd8bc57ac4ce169c58d6627e8d5'
    """
    left = (counter & _LOW) << 32 | counter >> 32 & _LOW
    right = (counter >> 64 & _LOW) << 32 | counter >> 96
    one, two = _FACTORS
    for k0, k1 in _round_keys(key & _LOW, key >> 32):
        left, right = (
            two * (right >> 32) ^ ((left & _LOW) ^ k0) << 32,
            one * (left >> 32) ^ ((right & _LOW) ^ k1) << 32,
        )
    return left >> 32 | (left & _LOW) << 32 | right >> 32 << 64 | (right & _LOW) << 96


def keys_of(k0: Words, k1: Words) -> Words:
    """Return the keys of all ten rounds, `(10, 2, R, 1)`, from the two words of R keys.

    From the fourth round on, every second entry holds the keys of two rounds, as `lanes` uses them.
    """
    keys = np.array(list(_round_keys(k0, k1)), dtype=np.uint64).reshape(_ROUNDS, 2, -1, 1)
    keys[3::2] <<= _HALF
    keys[3:-1:2] |= keys[4::2]
    return keys


def lanes(keys: Words, counter: Counter, scratch: Scratch) -> Words:
    """Return the random words of R x C counters as lanes `(2, R, C)`, in a buffer of `scratch`.

    Args:
        keys: The result of `keys_of`, `(10, 2, R, 1)` or `(10, 2, 1, 1)`.
        counter: The four words of the counters: the first `(1, C)`, the others `(R, 1)` or
            `(1, 1)`.
        scratch: Buffers.
    """
    c0, c1, c2, c3 = counter
    # the first two rounds: c0 has a value for each column, the other words for each row
    left = _RIGHT * c2 ^ (c1 ^ keys[0, 0]) << _HALF
    one = (c3 ^ keys[0, 1]) << _HALF
    right = scratch("right", (len(one), c0.shape[1]), np.uint64)
    np.bitwise_xor(np.multiply(c0, _LEFT, right[:1]), one, right)
    shape = 2, max(len(left), len(one)), c0.shape[1]
    found, product = scratch("lanes", shape, np.uint64), scratch("product", shape, np.uint64)
    columns = product[0, : len(one)]
    np.right_shift(right, _HALF, columns)
    np.multiply(columns, _RIGHT, columns)
    np.left_shift(right, _HALF, right)
    row = (left ^ keys[1, 0]) << _HALF, _LEFT * (left >> _HALF) ^ keys[1, 1] << _HALF
    np.bitwise_xor(columns, row[0] ^ keys[2, 0], found[0])
    np.bitwise_xor(right, row[1] ^ keys[2, 1], found[1])
    other = found[::-1]
    for i in range(2, _ROUNDS):
        np.right_shift(other, _HALF, product)
        np.multiply(product, _BOTH, product)
        np.left_shift(found, _HALF, found)
        np.bitwise_xor(found, product, found)
        if i % 2:  # the remaining rounds in pairs, each with the keys of its two rounds
            np.bitwise_xor(found, keys[i], found)
    return found


def lanes_on_device(key: tuple[Any, Any], counter: tuple[Any, Any, Any, Any]) -> list[Tensor]:
    """Return the two lanes of random words, `(R, C)` each, int64 with the same bits as `lanes`.

    Args:
        key: The two words of the keys, integers or tensors `(R, 1)`, int64.
        counter: The four words of the counters, integers or tensors that broadcast to `(R, C)`.
    """
    left, right = counter[0] << 32 | counter[1], counter[2] << 32 | counter[3]
    one, two = _FACTORS
    for k0, k1 in _round_keys(*key):
        left, right = (
            two * (right >> 32 & _LOW) ^ (left ^ k0) << 32,
            one * (left >> 32 & _LOW) ^ (right ^ k1) << 32,
        )
    return [left, right]


def _round_keys(k0: Any, k1: Any) -> Iterator[tuple[Any, Any]]:
    """Return the two words of keys in each round, integers or arrays of integers."""
    for _ in range(_ROUNDS):
        yield k0, k1
        k0, k1 = (k0 + _STEPS[0]) & _LOW, (k1 + _STEPS[1]) & _LOW

r"""Where randomness comes from: a pure function of (seed, sample index, where it is asked for).

Draws are keyed by Philox, a counter-based generator (Salmon et al. 2011, *Parallel random
numbers: as easy as 1, 2, 3*): the key is (seed, index), the counter holds the time, the number of
the draw and the stream. Nothing is counted or stored, so a sample never depends on the others,
on the batch it came in, or on what was drawn before.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError

__all__ = ["Noise", "seeds_of"]

_WORD = 2**64
# Philox makes four numbers at a time.
_BLOCK = 4
# The Brownian path is resolved to horizon / 2**_DEPTH.
_DEPTH = 24


class Noise:
    """Standard normal noise for a batch of samples.

    Args:
        seeds: One integer in [0, 2**64) for each sample.
        indices: One index for each sample; sample i of seed k is the same wherever it is drawn.
        horizon: The last time of the Brownian path, which starts at 0.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        indices: Sequence[int],
        *,
        horizon: float = 1.0,
        stream: int = 0,
    ) -> None:
        if len(seeds) != len(indices):
            raise InvalidValueError(f"{len(seeds)} seeds for {len(indices)} indices")
        for seed in seeds:
            if isinstance(seed, bool) or not hasattr(seed, "__index__"):
                raise InvalidTypeError(f"a seed is an integer, got {seed!r}")
            if not 0 <= seed < _WORD:
                raise InvalidValueError(f"a seed must lie in [0, 2**64), got {seed}")
        self.seeds = tuple(int(seed) for seed in seeds)
        self.indices = tuple(int(index) for index in indices)
        self.horizon = horizon
        self.stream = stream
        # the nodes of the Brownian tree on the way to the last times asked for
        self._node = lru_cache(maxsize=2 * _DEPTH)(self._draw_node)

    @classmethod
    def of(cls, seed: int, n: int, *, first: int = 0, horizon: float = 1.0) -> Noise:
        """The noise of samples `first ... first + n - 1` of one seed."""
        return cls([seed] * n, range(first, first + n), horizon=horizon)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, part: slice) -> Noise:
        """The noise of a part of the samples."""
        return Noise(self.seeds[part], self.indices[part], horizon=self.horizon, stream=self.stream)

    def fork(self, k: int) -> Noise:
        """An independent stream for the same samples: for repeated passes and inner loops."""
        # an affine map modulo 2**64 with odd multiplier: forks of forks do not meet in practice
        stream = (self.stream * 0x9E3779B97F4A7C15 + k + 1) % _WORD
        return Noise(self.seeds, self.indices, horizon=self.horizon, stream=stream)

    def normal(self, like: Tensor, t: Tensor | float, k: int = 0) -> Tensor:
        """The `k`-th draw of N(0, I) at time `t`.

        Args:
            like: A tensor `(B, *)` whose shape, dtype and device the result has.
            t: A time, `()`; infinity is the start, before any time.
            k: The number of the draw.
        """
        return self._draw(tuple(like.shape), _bits(float(t)), k).to(like)

    def increment(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        r"""$(W_t - W_s) / \sqrt{t - s}$ of one Brownian path per sample, standard normal.

        Consistent over any intervals in any order: the path is a function on a dyadic grid of
        $[0, \text{horizon}]$, filled in by Lévy's midpoint construction, and times are rounded to
        that grid. It costs more than `normal`, so it is for methods that promise a path.

        Args:
            like: A tensor `(B, *)` whose shape, dtype and device the result has.
            s: The earlier time, in [0, horizon).
            t: The later time, in (s, horizon].

        Raises:
            InvalidValueError: The interval is empty, outside the path, or shorter than its grid.
        """
        low, high = float(s), float(t)
        if not 0 <= low < high <= self.horizon * (1 + 1e-6):
            raise InvalidValueError(
                f"an increment needs 0 <= s < t <= {self.horizon}, got s = {low}, t = {high}"
            )
        cells = 2**_DEPTH
        i, j = (min(round(time / self.horizon * cells), cells) for time in (low, high))
        if i == j:
            raise InvalidValueError(
                f"the step from {high} to {low} is below the resolution of the Brownian path, "
                f"{self.horizon / cells:.3g}; use fewer steps, or a sampler that draws fresh noise"
            )
        shape = tuple(like.shape)
        z = (self._path(j, shape) - self._path(i, shape)) / math.sqrt((j - i) / cells)
        return z.to(like)

    def _path(self, i: int, shape: tuple[int, ...]) -> Tensor:
        """The path at cell border i of 2**_DEPTH, on the unit interval."""
        low, high = 0, 2**_DEPTH
        if i == 0:
            return torch.zeros(shape, dtype=torch.float64)
        left, right = torch.zeros(shape, dtype=torch.float64), self._node(high, 0, shape)
        if i == high:
            return right
        level = 0
        while True:
            level += 1
            middle = (low + high) // 2
            bridge = math.sqrt((high - low) / 2**_DEPTH / 4)
            value = (left + right) / 2 + bridge * self._node(middle, level, shape)
            if i == middle:
                return value
            if i < middle:
                high, right = middle, value
            else:
                low, left = middle, value

    def _draw_node(self, cell: int, level: int, shape: tuple[int, ...]) -> Tensor:
        # a NaN's bit pattern is no time, so nodes never meet the draws of `normal`
        return self._draw(shape, _bits(math.nan) ^ (cell << 8), level)

    def _draw(self, shape: tuple[int, ...], place: int, k: int) -> Tensor:
        """The standard normal numbers `shape` at a place, float64 on the CPU."""
        if shape[0] != len(self):
            raise ShapeError(f"noise for {len(self)} samples was asked for a batch of {shape[0]}")
        size = math.prod(shape[1:])
        blocks = -(-size // _BLOCK)
        raw = np.empty((len(self), blocks * _BLOCK), dtype=np.uint64)
        for start, stop in self._runs:
            # sample i owns the counters [i blocks, (i + 1) blocks): a run of samples is one call
            counter = [self.indices[start] * blocks % _WORD, k % _WORD, place, self.stream]
            # a list of large and small integers would become floating point
            philox = np.random.Philox(
                key=np.array([self.seeds[start], 0], dtype=np.uint64),
                counter=np.array(counter, dtype=np.uint64),
            )
            numbers = philox.random_raw((stop - start) * blocks * _BLOCK)
            raw[start:stop] = numbers.reshape(stop - start, blocks * _BLOCK)
        # the middles of 2**53 cells of (0, 1), then Box & Muller (1958): two numbers make two
        uniform = torch.from_numpy(((raw >> 11) + 0.5) * 2.0**-53)
        u, v = uniform.chunk(2, dim=1)
        radius, angle = (-2 * u.log()).sqrt(), 2 * math.pi * v
        z = torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)
        return z[:, :size].reshape(shape)

    @cached_property
    def _runs(self) -> list[tuple[int, int]]:
        """Where the samples follow each other in one seed: [start, stop) of each such run."""
        names = list(zip(self.seeds, self.indices, strict=True))
        starts = [
            i
            for i, (seed, index) in enumerate(names)
            if i == 0 or names[i - 1] != (seed, index - 1)
        ]
        return list(zip(starts, [*starts, len(names)][1:], strict=True))


def seeds_of(
    n: int,
    seed: int | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    first: int,
) -> tuple[list[int], list[int]]:
    """The seeds and indices of `n` samples, from what the user gave.

    `seed=k` is sample `first + i` of seed k. A generator draws n seeds, a list of n generators
    draws one from each. With neither, one seed is drawn from torch's global generator.

    Raises:
        InvalidValueError: Both a seed and a generator, or a list of another length than n.
    """
    if seed is not None and generator is not None:
        raise InvalidValueError("give seed= or generator=, not both")
    if first < 0:
        raise InvalidValueError(f"first must be >= 0, got {first}")
    if generator is None:
        if seed is None:
            seed = int(torch.randint(2**63 - 1, ()))
        return [seed] * n, list(range(first, first + n))
    if isinstance(generator, torch.Generator):
        draws = torch.randint(2**63 - 1, (n,), generator=generator, device=generator.device)
        return [int(draw) for draw in draws], [first] * n
    if not isinstance(generator, Sequence):
        raise InvalidTypeError(
            f"generator= takes a torch.Generator or a list of them, got {generator!r}; "
            "an integer is a seed="
        )
    if len(generator) != n:
        raise InvalidValueError(f"a list of {len(generator)} generators for n = {n} samples")
    own = [int(torch.randint(2**63 - 1, (), generator=g, device=g.device)) for g in generator]
    return own, [first] * n


def _bits(t: float) -> int:
    """The bit pattern of a time, which is its name."""
    return int(struct.unpack("<Q", struct.pack("<d", t + 0.0))[0])

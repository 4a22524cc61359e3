r"""Draw the noise of a batch as a pure function of seed, sample index, time and number of draw.

The numbers come from a counter-based generator, and a Brownian path is a fixed function of such
numbers. There is no state, so a sample depends neither on the other samples, nor on its batch, nor
on earlier draws.
"""

from __future__ import annotations

import math
import operator
import os
import secrets
import struct
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.noise import path, philox

__all__ = ["Noise", "seeds_of"]

_WORD = 2**64
# samples of one seed: beyond these the counters of samples would overlap
_SAMPLES = 2**40
# the purposes of numbers, the second word of the key
_FRESH, _PATH, _AREA = range(3)
_FORKS = 8


class Noise:
    """Draw standard normal noise for a batch of samples.

    Args:
        seeds: One integer in [0, 2**64) for each sample.
        indices: One index for each sample; sample i of seed k is the same in every batch.
        horizon: The last time of the Brownian path, which starts at 0.
        stream: The number of an independent stream, as `fork` makes them.

    Examples:
        >>> noise = Noise.of(seed=0, n=4)
        >>> z = noise.normal(torch.empty(4, 2), t=0.5)
        >>> bool((z[1:3] == noise[1:3].normal(torch.empty(2, 2), t=0.5)).all())
        True
    """

    def __init__(
        self,
        seeds: Sequence[int],
        indices: Sequence[int],
        *,
        horizon: float = 1.0,
        stream: int = 0,
    ) -> None:
        if not (isinstance(seeds, Sequence) and isinstance(indices, Sequence)):
            raise InvalidTypeError(
                "Noise takes a sequence of seeds and one of indices; Noise.of(seed, n) makes both"
            )
        if len(seeds) != len(indices):
            raise InvalidValueError(f"{len(seeds)} seeds for {len(indices)} indices")
        self.seeds = _checked(seeds)
        self.indices = _integers("an index", indices)
        self.horizon = horizon
        self.stream = stream
        # the values of the last increment, most of whose numbers the next step uses again
        self._ends: dict[tuple[float, int], Tensor] = {}
        self._nodes: dict[tuple[int, int], Tensor] = {}
        self._forks: dict[int, Noise] = {}

    @classmethod
    def of(cls, seed: int, n: int, *, first: int = 0, horizon: float = 1.0) -> Noise:
        """Return the noise of samples `first ... first + n - 1` of one seed."""
        return cls([seed] * n, range(first, first + n), horizon=horizon)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, part: slice) -> Noise:
        """Return the noise of these samples of the batch."""
        return Noise(self.seeds[part], self.indices[part], horizon=self.horizon, stream=self.stream)

    def fork(self, k: int) -> Noise:
        """Return independent noise for the same samples, for repeated steps and inner loops."""
        if k not in self._forks:
            # keep few forks, since each keeps the values of its path
            if len(self._forks) == _FORKS:
                self._forks.clear()
            # affine modulo 2**64 with an odd multiplier, so that forks of forks hardly coincide
            stream = (self.stream * 0x9E3779B97F4A7C15 + k + 1) % _WORD
            self._forks[k] = Noise(self.seeds, self.indices, horizon=self.horizon, stream=stream)
        return self._forks[k]

    def normal(self, like: Tensor, t: Tensor | float, k: int = 0) -> Tensor:
        """Return the `k`-th draw of N(0, I) at time `t`.

        Args:
            like: A tensor `(B, *)` with the shape, dtype and device of the result.
            t: A time, `()`; infinity stands for the start of a run.
            k: The number of the draw.
        """
        size = self._size(like)
        raw = self._words(size, (k, _bits(float(t)), self.stream), _FRESH)
        return philox.double(raw)[:, :size].reshape(like.shape).to(like)

    def increment(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        r"""Return $(W_t - W_s) / \sqrt{t - s}$ of one Brownian path per sample, standard normal.

        Increments over any intervals belong to one path, in whatever order they are drawn; over a
        grid they are independent. W at a time is a sum of some twenty numbers. Neighbouring times
        share many, which are kept from one call to the next, so that a step of a grid draws 11 to
        15.

        Args:
            like: A tensor `(B, *)` with the shape, dtype and device of the result.
            s: The earlier time, in [0, horizon).
            t: The later time, in (s, horizon].

        Raises:
            InvalidValueError: The interval is empty, outside the path, or below its resolution.
        """
        low, high = self._interval(s, t)
        size, kept = self._size(like), self._ends
        self._ends = ends = {  # a local name too, since another thread may replace the attribute
            (u, size): kept[u, size] if (u, size) in kept else self._sum(path.weights(u), size)
            for u in (high, low)
        }
        at_high, at_low = ends.values()
        return ((at_high - at_low) / math.sqrt(high - low)).reshape(like.shape).to(like)

    def area(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        r"""Return the space-time Lévy area of the path over $[s, t]$, as $\sqrt{12/h}\,H$.

        $$ H = \frac1h \int_s^t (W_u - W_s)\,du - \frac{W_t - W_s}2, \qquad h = t - s $$

        Standard normal and independent of the increment, so that the integral is
        $h^{3/2} (z / 2 + a / \sqrt{12})$ with `increment` z and `area` a. Its law over the
        intervals of a grid is exact; at most 1/16 of its standard deviation belongs to the interval
        alone and not to the path, more only for intervals near the resolution of the path.
        Arguments and errors are those of `increment`.
        """
        low, high = self._interval(s, t)
        weights, rest = path.area(low, high)
        size = self._size(like)
        raw = self._words(size, (_bits(high), _bits(low), self.stream), _AREA)
        a = self._sum(weights, size) + rest * philox.double(raw)[:, :size]
        return a.reshape(like.shape).to(like)

    def _interval(self, s: Tensor | float, t: Tensor | float) -> tuple[float, float]:
        """Return the interval in units of the horizon; raise unless the path resolves it."""
        low, high = float(s), float(t)
        if not 0 <= low < high <= self.horizon * (1 + 1e-6):
            raise InvalidValueError(
                f"an increment needs 0 <= s < t <= {self.horizon}, got s = {low}, t = {high}"
            )
        part = low / self.horizon, min(high / self.horizon, 1.0)
        if not path.resolved(*part):
            raise InvalidValueError(
                f"the step from {high} to {low} is below the resolution of the Brownian path, "
                f"{self.horizon * 2.0 ** -path.leaf(part[0]):.3g} there; use fewer steps, or a "
                "sampler that draws fresh noise"
            )
        return part

    def _sum(self, weights: path.Weights, size: int) -> Tensor:
        """Return a linear combination of the numbers of the path's nodes, `(B, size)`, float64."""
        kept = self._nodes
        self._nodes = nodes = {
            (node, size): kept[node, size] if (node, size) in kept else self._node(node, size)
            for node in weights
        }
        total = torch.zeros(len(self), size, dtype=torch.float64)
        for (node, _), z in nodes.items():
            total.add_(z, alpha=weights[node])
        return total

    def _node(self, node: int, size: int) -> Tensor:
        # in single precision, which suffices for a sum of many
        raw = self._words(-(-size // 2), (0, node, self.stream), _PATH)
        return philox.single(raw)[:, :size]

    def _size(self, like: Tensor) -> int:
        """Return the number of entries of a sample; raise unless `like` has the batch's length."""
        if like.shape[0] != len(self):
            raise ShapeError(
                f"noise for {len(self)} samples was asked for a batch of {like.shape[0]}"
            )
        return math.prod(like.shape[1:])

    @cached_property
    def _words(self) -> philox.Words:
        return philox.Words(self.seeds, self.indices)


def seeds_of(
    n: int,
    seed: int | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    first: int,
) -> tuple[list[int], list[int]]:
    """Return the seeds and indices of `n` samples from the arguments of the user.

    `seed=k` gives samples `first + i` of seed k. n seeds are drawn from a generator, or one from
    each of n generators. With neither, one seed is drawn from torch's global generator; a forked
    process, whose generator is a copy of its parent's, adds random bits until the generator is
    seeded.

    Raises:
        InvalidValueError: Both a seed and a generator, a list of another length than n, or a sample
            number outside [0, 2**40).
    """
    if seed is not None and generator is not None:
        raise InvalidValueError("give seed= or generator=, not both")
    if not 0 <= first <= _SAMPLES - n:
        raise InvalidValueError(
            f"samples of a seed are numbered below 2**40, got first = {first} and n = {n}"
        )
    if generator is None:
        if seed is None:
            seed = int(torch.randint(2**63 - 1, ())) ^ _own_bits()
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


class _Fork:
    """Hold random bits that tell a forked process from its parent, whose generator it copied.

    Attributes:
        inherited: The seed of the copied generator; None in a process that was not forked.
        bits: 63 random bits.
    """

    inherited: int | None = None
    bits: int = 0

    @classmethod
    def note(cls) -> None:
        """Record the seed of the copied generator, and draw the bits."""
        cls.inherited, cls.bits = torch.initial_seed(), secrets.randbits(63)


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_Fork.note)


def _own_bits() -> int:
    """Return the bits of a forked process that uses the copied generator, else 0."""
    return _Fork.bits if torch.initial_seed() == _Fork.inherited else 0


def _checked(seeds: Sequence[int]) -> tuple[int, ...]:
    """Return the seeds as integers, checked to lie in [0, 2**64)."""
    found = _integers("a seed", seeds)
    for seed in (min(found), max(found)) if found else ():
        if not 0 <= seed < _WORD:
            raise InvalidValueError(f"a seed must lie in [0, 2**64), got {seed}")
    return found


def _integers(what: str, values: Sequence[int]) -> tuple[int, ...]:
    """Return values as integers."""
    for value in () if {*map(type, values)} == {int} else values:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise InvalidTypeError(f"{what} is an integer, got {value!r}")
    return tuple(map(operator.index, values))


def _bits(t: float) -> int:
    """Return the bit pattern of a time, by which its numbers are keyed."""
    if t != t:
        raise InvalidValueError("the time of a draw is NaN; give a number")
    return int(struct.unpack("<Q", struct.pack("<d", t + 0.0))[0])

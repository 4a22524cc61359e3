r"""Draw the noise of a batch as a function of seed, sample index, time and draw number only.

The numbers come from a counter-based generator, and a Brownian path is a fixed function of such
numbers. The generator has no state. So the noise of a sample depends neither on the other samples
of the batch nor on earlier draws. Numbers are made on the device where they are needed, from random
words that are the same on every device.
"""

from __future__ import annotations

import math
import operator
import os
import secrets
import struct
from collections.abc import Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.noise import drawing, path
from scoresde.noise.rows import INDICES, Rows, Source

__all__ = ["Noise", "seeds_of"]

_WORD = 2**64
# the largest number of normal numbers of one sample in a draw
_SIZE = 2**34
# the purposes of draws; a purpose plus _LOW names the second words that double precision needs
_FRESH, _PATH, _AREA, _FORK, _LOW = range(5)
_FORKS = 8


class Noise:
    """Draw standard normal noise for a batch of samples.

    Args:
        seeds: One integer in [0, 2**64) for each sample.
        indices: One index in [0, 2**40) for each sample. The noise of sample i of seed k is the
            same in every batch.
        horizon: The last time of the Brownian path, which starts at 0.

    Raises:
        InvalidTypeError: The seeds or the indices are not a sequence of integers.
        InvalidValueError: There are more seeds than indices or fewer, or one is out of range.

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
    ) -> None:
        if not (isinstance(seeds, Sequence) and isinstance(indices, Sequence)):
            raise InvalidTypeError(
                "Noise takes a sequence of seeds and one of indices; Noise.of(seed, n) makes both"
            )
        if len(seeds) != len(indices):
            raise InvalidValueError(f"{len(seeds)} seeds for {len(indices)} indices")
        self.seeds = _within("a seed", seeds, _WORD)
        self.indices = _within("an index", indices, INDICES)
        self.horizon = horizon
        # the values of the path that the next step will use, with their shape, dtype and device
        self._path: tuple[object, dict[path.Instant, Tensor]] = None, {}
        self._forks: dict[int, Noise] = {}

    @classmethod
    def of(cls, seed: int, n: int, *, first: int = 0, horizon: float = 1.0) -> Noise:
        """Return the noise of samples `first ... first + n - 1` of one seed."""
        return cls([seed] * n, range(first, first + n), horizon=horizon)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, part: slice) -> Noise:
        """Return the noise of a part of the batch."""
        return Noise(self.seeds[part], self.indices[part], horizon=self.horizon)

    def fork(self, k: int) -> Noise:
        """Return independent `Noise` for the same samples, for repeated steps and inner loops.

        Raises:
            InvalidValueError: k is not in [0, 2**64).
        """
        fork = self._forks.get(k)
        if fork is None:
            _within("the number of a fork", [k], _WORD)
            seeds = self._rows.reseeded(_place(k, 0, _FORK))
            fork = Noise(seeds, self.indices, horizon=self.horizon)
            # cache only a few forks, since each caches values of its path
            if len(self._forks) >= _FORKS:
                self._forks.clear()
            self._forks[k] = fork
        return fork

    def normal(self, like: Tensor, t: Tensor | float, k: int = 0) -> Tensor:
        """Return the `k`-th draw of N(0, I) at time `t`.

        Args:
            like: A tensor `(B, *)` with the shape, dtype and device of the result.
            t: A time, `()`; infinity stands for the start of a run.
            k: The number of the draw, in [0, 2**32).

        Raises:
            InvalidValueError: The time is NaN, or k is outside its range.
            ShapeError: `like` has another number of samples.
        """
        if not 0 <= k < 2**32:
            raise InvalidValueError(
                f"the number of a draw must lie in [0, 2**32), got {k}; use fork() for more draws"
            )
        flat = self._flat(like)
        z = self._fine(flat, _bits(float(t)), k, _FRESH)
        return z.reshape(like.shape).to(like.dtype)

    def increment(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        r"""Return $(W_t - W_s) / \sqrt{t - s}$ of a Brownian path for each sample, standard normal.

        All increments belong to one path, in whatever order they are drawn. Increments over the
        intervals of one grid are independent. W at one time is computed from about twenty 16-bit
        numbers. Values that the next step will need, at an earlier time, are cached, so that a step
        of a grid draws 8 to 12 numbers on average, or about 3 if its times are `path.rounded`.

        Args:
            like: A tensor `(B, *)` with the shape, dtype and device of the result.
            s: The earlier time, in [0, horizon).
            t: The later time, in (s, horizon].

        Raises:
            InvalidValueError: The interval is empty, outside the path, or below its resolution.
            ShapeError: `like` has another number of samples.
        """
        low, high = self._interval(s, t)
        flat, places = self._flat(like), (path.instant(high), path.instant(low))
        z = self._walk(flat, {places[0]: 1 / math.sqrt(high - low)}, places[1], high - low)
        return z.reshape(like.shape).to(like.dtype)

    def increments(self, like: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Return `increment` of each sample over its own interval, or 0 if it is empty.

        The numbers are those of `increment` up to rounding. They are made for all samples at once,
        and nothing is cached.

        Args:
            like: A tensor `(B, *)` with the shape, dtype and device of the result.
            s: The earlier times `(B,)`.
            t: The later times `(B,)`.

        Raises:
            InvalidValueError, ShapeError: As in `increment`.
        """
        flat = self._flat(like)
        pairs = zip(s.tolist(), t.tolist(), strict=True)
        parts = [(0.0, 0.0) if a == b else self._interval(a, b) for a, b in pairs]
        low, high = torch.tensor(parts, dtype=torch.float64).reshape(-1, 2).unbind(1)
        scale = torch.where(low < high, high - low, 1.0).rsqrt()
        z = drawing.normal(self._node(0, flat.device), None, flat.float())
        found = z.to(flat.dtype) * ((high - low) * scale).to(flat)[:, None]
        if flat.numel():
            nodes, weights = path.differences(low.tolist(), high.tolist())
            source = partial(self._rows.source_of_nodes, purpose=_PATH, device=flat.device)
            drawing.add_nodes(found, source, nodes, (weights * scale).to(flat))
        return found.reshape(like.shape).to(like.dtype)

    def area(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        r"""Return the space-time Lévy area of the path over $[s, t]$, as $\sqrt{12/h}\,H$.

        $$ H = \frac1h \int_s^t (W_u - W_s)\,du - \frac{W_t - W_s}2, \qquad h = t - s $$

        The result is standard normal and independent of the increment. The integral is
        $h^{3/2} (z / 2 + a / \sqrt{12})$ with `increment` z and `area` a. Over the intervals of one
        grid the distribution is exact. The path determines H up to a rest, for which a further
        normal number is drawn. The standard deviation of the rest is at most 1/16 of the standard
        deviation of H, but larger for intervals near the resolution of the path. Arguments and
        errors are those of `increment`.
        """
        low, high = self._interval(s, t)
        form, rest = path.area(low, high)
        flat = self._flat(like)
        rest_of_area = self._fine(flat, _bits(high), 0, _AREA, second=_bits(low)) * rest
        a = self._walk(flat, form, path.instant(low), high - low) + rest_of_area
        return a.reshape(like.shape).to(like.dtype)

    def _interval(self, s: Tensor | float, t: Tensor | float) -> tuple[float, float]:
        """Return the interval in units of the horizon; raise unless the path resolves it."""
        low, high = float(s), float(t)
        if not 0 <= low < high <= self.horizon * (1 + 1e-6):
            raise InvalidValueError(
                f"an increment needs 0 <= s < t <= {self.horizon}, got s = {low}, t = {high}"
            )
        part = path.unit(low, self.horizon), path.unit(high, self.horizon)
        if not path.resolved(*part):
            raise InvalidValueError(
                f"the step from {high} to {low} is below the resolution of the Brownian path, "
                f"{self.horizon * 2.0 ** -path.leaf(part[0]):.3g} there; use fewer steps, or a "
                "sampler that draws fresh noise"
            )
        return part

    def _fine(
        self, flat: Tensor, time: int, k: int, purpose: int, second: int | None = None
    ) -> Tensor:
        """Return the fine normal numbers of a time, a draw number and a purpose."""
        words = self._rows.source(_place(time, k, purpose), flat.device, second)
        low = None
        if flat.dtype == torch.float64:
            low = self._rows.source(_place(time, k, purpose + _LOW), flat.device, second)
        return drawing.normal(words, low, flat)

    def _walk(self, flat: Tensor, form: path.Form, base: path.Instant, h: float) -> Tensor:
        r"""Return $\sum_u c_u (W(u) - W(\text{base}))$ for the coefficients c of `form`."""
        alike = flat.shape, flat.dtype, flat.device
        # read the attribute once, since another thread may replace it
        of, known = self._path
        known = known if of == alike else {}
        steps = path.steps([*form, base], known)
        z, kept = drawing.walk(
            self._node, steps, known, form, base, path.worth_keeping(base, h), flat
        )
        self._path = alike, kept
        return z

    def _node(self, node: int, device: torch.device) -> Source:
        return self._rows.source(_place(node, 0, _PATH), device)

    def _flat(self, like: Tensor) -> Tensor:
        """Return a tensor `(B, size)` like a batch, repeating one number, of 32 or 64 bits."""
        if like.shape[0] != len(self):
            raise ShapeError(
                f"noise for {len(self)} samples was asked for a batch of {like.shape[0]}"
            )
        size = math.prod(like.shape[1:])
        if size > _SIZE:
            raise ShapeError(f"noise is made for samples of at most 2**34 numbers, got {size}")
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        return torch.empty((), dtype=dtype, device=like.device).expand(len(self), size)

    @cached_property
    def _rows(self) -> Rows:
        return Rows(self.seeds, self.indices)


def seeds_of(
    n: int,
    seed: int | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
    first: int,
) -> tuple[list[int], list[int]]:
    """Return the seeds and indices of `n` samples from the arguments of the user.

    `seed=k` gives the samples `first`, `first + 1`, ... of seed k. From one generator n seeds are
    drawn, and from each generator of a list one seed. Without seed and generator, one seed is drawn
    from torch's global generator. A forked process has a copy of the generator of its parent, so it
    adds random bits to this seed, unless the generator was seeded after the fork.

    Raises:
        InvalidValueError: Both a seed and a generator are given, a list has another length than n,
            or a sample index lies outside [0, 2**40).
        InvalidTypeError: `generator` is neither a generator nor a list.
    """
    if seed is not None and generator is not None:
        raise InvalidValueError("give seed= or generator=, not both")
    if not 0 <= first <= INDICES - n:
        raise InvalidValueError(
            f"the sample indices of a seed lie in [0, 2**40), got first = {first} and n = {n}"
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
            f"generator= takes a torch.Generator or a list of generators, got {generator!r}; pass "
            "an integer as seed="
        )
    if len(generator) != n:
        raise InvalidValueError(f"a list of {len(generator)} generators for n = {n} samples")
    drawn = [int(torch.randint(2**63 - 1, (), generator=g, device=g.device)) for g in generator]
    return drawn, [first] * n


class _Fork:
    """Hold random bits by which the seeds of a forked process differ from its parent's seeds.

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
    """Return the random bits of a forked process while it uses the copied generator, else 0."""
    return _Fork.bits if torch.initial_seed() == _Fork.inherited else 0


def _place(time: int, k: int, purpose: int) -> int:
    """Pack a time, a draw number and a purpose into one 128-bit integer, called a place."""
    return time | k << 64 | purpose << 96


def _within(what: str, values: Sequence[int], end: int) -> tuple[int, ...]:
    """Return values as integers; raise unless they lie in [0, end)."""
    found = _integers(what, values)
    for value in (min(found), max(found)) if found else ():
        if not 0 <= value < end:
            raise InvalidValueError(
                f"{what} must lie in [0, 2**{end.bit_length() - 1}), got {value}"
            )
    return found


def _integers(what: str, values: Sequence[int]) -> tuple[int, ...]:
    """Return values as integers."""
    for value in () if {*map(type, values)} == {int} else values:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise InvalidTypeError(f"{what} is an integer, got {value!r}")
    return tuple(map(operator.index, values))


def _bits(t: float) -> int:
    """Return the bits of a time, which become part of the tag of its numbers."""
    if t != t:
        raise InvalidValueError("the time of a draw is NaN; give a number")
    return int(struct.unpack("<Q", struct.pack("<d", t + 0.0))[0])

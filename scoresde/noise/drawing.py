"""Draw standard normal numbers, and linear combinations of the values of a Brownian path.

On the CPU the numbers are made in parts that fit its cache, on other devices all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.noise.normals import (
    COARSE,
    FINE,
    coarse,
    coarse_on_device,
    fine,
    fine_on_device,
    table,
    table_on,
)
from scoresde.noise.path import START, Form, Instant, Step
from scoresde.noise.philox import Scratch
from scoresde.noise.rows import Source, in_numpy

__all__ = ["add_nodes", "normal", "walk"]

_Part = tuple[slice, slice]
# The largest number of values in a part. The random words for them fill half of a cache of 1 MB.
_PART = 2**16


def normal(source: Source, low: Source | None, like: Tensor) -> Tensor:
    """Return standard normal random numbers like a tensor `(B, size)`, in its precision.

    Args:
        source: The source of the words.
        low: The source of a second 32-bit word for each number, which gives the lower bits in
            double precision; None for single precision.
        like: A tensor of the shape, dtype and device wanted, of single or double precision.
    """
    rows, size = like.shape
    blocks = -(-size // FINE)
    if not in_numpy(like.device):
        deeper = None if low is None else low.lanes_on_device(blocks)
        return fine_on_device(source.lanes_on_device(blocks), deeper)[:, :size]
    found = np.empty((rows, size), dtype=np.float32 if low is None else np.float64)
    scratch, spare = Scratch(), Scratch()
    for part in _parts(rows, size):
        _, columns = part
        wanted = range(columns.start // FINE, -(-columns.stop // FINE))
        lanes = source.lanes(part[0], wanted, scratch)
        below = None if low is None else low.lanes(part[0], wanted, spare)
        place, width = found[part], columns.stop - columns.start
        whole = width % FINE == 0
        shape = len(place), len(wanted), 1 if width <= FINE // 2 else 2, FINE // 2
        if whole:
            fine(lanes, below, place.reshape(shape), scratch)
        else:  # the last counter may give more numbers than needed
            numbers = scratch("numbers", shape, found.dtype)
            fine(lanes, below, numbers, scratch)
            place[:] = numbers.reshape(len(place), -1)[:, :width]
    return torch.from_numpy(found)


def add_nodes(
    found: Tensor, source: Callable[[Tensor], Source], nodes: Tensor, weights: Tensor
) -> None:
    """Add the weighted numbers of nodes of a path to sums `(B, size)`, by torch.

    Args:
        found: The sums.
        source: A function that returns the source of the words of nodes `(k, B)`.
        nodes: The nodes `(N, B)`.
        weights: The weights of their numbers `(N, B)`.
    """
    rows, size = found.shape
    step = max(1, _PART // found.numel())
    for few, weight in zip(torch.split(nodes, step), torch.split(weights, step), strict=True):
        lanes = source(few).lanes_on_device(-(-size // COARSE))
        numbers = table_on(found.device)[coarse_on_device(lanes)][:, :size].reshape(-1, rows, size)
        for factor, z in zip(weight, numbers, strict=True):
            found += factor[:, None] * z


def walk(
    source: Callable[[int, torch.device], Source],
    steps: Sequence[Step],
    known: Mapping[Instant, Tensor],
    form: Form,
    base: Instant,
    keep: Sequence[Instant],
    like: Tensor,
) -> tuple[Tensor, dict[Instant, Tensor]]:
    r"""Return the sum $\sum_u c_u (W(u) - W(\text{base}))$, and a dictionary of the values to keep.

    The sum and each value have the shape of `like`.

    Args:
        source: A function `(node, device)` that returns the source of random words for that node of
            the path (see `Step.node`).
        steps: The steps that compute further values of the path from the known ones.
        known: The known values by instant, each `(B, size)`.
        form: The coefficients c by instant u.
        base: The instant whose value is subtracted.
        keep: The instants whose values are returned, as far as they are known or computed.
        like: A tensor of the shape, dtype and device wanted, of single or double precision.
    """
    sources = [source(step.node, like.device) for step in steps]
    rows, size = like.shape
    held = [u for u in keep if u in known or any(step.instant == u for step in steps)]
    if not in_numpy(like.device):
        values: dict[Instant, Any] = _walk_on_device(sources, steps, known, like)
        return _combined(form, base, values), {u: values[u] for u in held}
    kind = np.float64 if like.dtype == torch.float64 else np.float32
    found = np.empty((rows, size), dtype=kind)
    # known values are returned unchanged
    stored = {u: known[u] if u in known else torch.empty_like(like) for u in held}
    arrays = {u: value.numpy() for u, value in known.items()}
    targets = {u: value.numpy() for u, value in stored.items() if u not in known}
    scratch, slots = Scratch(), _slots(steps, {base, *form, *held})
    for part in _parts(rows, size, 2 * _PART):
        values = {START: kind(0), **{u: value[part] for u, value in arrays.items()}}
        shape = found[part].shape
        for slot, step, source_of_step in zip(slots, steps, sources, strict=True):
            z = scratch(f"value {slot}", shape, kind)
            np.multiply(_node(step, source_of_step, part, scratch), kind(step.std), z)
            if step.node:
                middle = scratch("middle", shape, kind)
                low, high = values[step.low], values[step.high]
                if step.theta == 0.5:
                    np.add(low, high, middle)
                    middle *= kind(0.5)
                else:
                    np.subtract(high, low, middle)
                    middle *= kind(step.theta)
                    middle += low
                z += middle
            values[step.instant] = z
        found[part] = _combined(form, base, values)
        for u, target in targets.items():
            target[part] = values[u]
    return torch.from_numpy(found), stored


def _slots(steps: Sequence[Step], kept: Set[Instant]) -> list[int]:
    """Return the number of the buffer in which each step writes its value.

    A buffer is reused once the value in it is no longer needed.
    """
    last = {end: i for i, step in enumerate(steps) for end in (step.low, step.high)}
    found: list[int] = []
    free: list[int] = []
    where: dict[Instant, int] = {}
    for i, step in enumerate(steps):
        found.append(free.pop() if free else len(where) and max(where.values()) + 1)
        where[step.instant] = found[-1]
        ends = {step.low, step.high, step.instant} - kept
        free += [where[end] for end in ends if end in where and last.get(end, i) == i]
    return found


def _combined(form: Form, base: Instant, values: Mapping[Instant, Any]) -> Any:
    terms = ((values[u] - values[base]) * c for u, c in form.items() if u != base)
    return sum(terms, start=next(terms))


def _node(step: Step, source: Source, part: _Part, scratch: Scratch) -> Any:
    """Return the standard normal numbers of a node, on the CPU.

    The node at the end of the path has numbers of full precision. All other nodes have 16-bit
    numbers, `normals.COARSE` for each counter.
    """
    rows, columns = part
    unit = COARSE if step.node else FINE
    wanted = range(columns.start // unit, -(-columns.stop // unit))
    width = columns.stop - columns.start
    lanes = source.lanes(rows, wanted, scratch)
    if step.node:
        places = scratch("places", (lanes.shape[1], width), np.intp)
        np.copyto(places, coarse(lanes, scratch)[:, :width])
        # mode="wrap" avoids a copy; all indices are within the table
        z = scratch("numbers", places.shape, np.float32)
        return table().numpy().take(places, out=z, mode="wrap")
    z = scratch("numbers", (lanes.shape[1], len(wanted), 2, 2), np.float32)
    fine(lanes, None, z, scratch)
    return z.reshape(len(z), -1)[:, :width]


def _walk_on_device(
    sources: Sequence[Source],
    steps: Sequence[Step],
    known: Mapping[Instant, Tensor],
    like: Tensor,
) -> dict[Instant, Tensor]:
    """Compute the values of all steps by the same operations as `walk`, on a device."""
    values = {START: torch.zeros_like(like), **known}
    for step, source in zip(steps, sources, strict=True):
        unit = COARSE if step.node else FINE
        lanes = source.lanes_on_device(-(-like.shape[1] // unit))
        z = table_on(like.device)[coarse_on_device(lanes)] if step.node else fine_on_device(lanes)
        value = z[:, : like.shape[1]].to(like.dtype) * step.std
        if step.node:
            low, high = values[step.low], values[step.high]
            half = step.theta == 0.5
            value += (low + high) * 0.5 if half else (high - low) * step.theta + low
        values[step.instant] = value
    return values


def _parts(rows: int, size: int, most: int = _PART) -> Iterator[_Part]:
    """Yield parts of at most `most` numbers: several whole rows, or some columns of one."""
    if size > most:
        for i in range(rows):
            for j in range(0, size, most):
                yield slice(i, i + 1), slice(j, min(j + most, size))
    elif size:
        step = most // size
        for i in range(0, rows, step):
            yield slice(i, min(i + step, rows)), slice(0, size)

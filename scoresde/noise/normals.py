r"""Make normal numbers from random words, in numpy on the CPU and in torch on other devices.

Box & Muller (1958), *A note on the generation of random normal deviates*, turn two uniform numbers
into two normal ones, $\sqrt{-2 \log u}\,(\cos 2 \pi v, \sin 2 \pi v)$. In single precision u and v
are made from words w of 32 bits, $u = (w + 1/2)\,2^{-32}$, so that $|z| \le 6.7637$. In double
precision a second word gives 32 further bits of each, so that the numbers of both precisions agree
up to rounding.

These are fine numbers. Where many numbers are added, 16 bits suffice for each: a coarse number is
one of the means of $2^{16}$ equally probable cells of the normal distribution, scaled to unit
variance. Its fourth moment is 2e-4 too small; that of a sum is closer to the normal one.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoresde.noise.philox import Scratch, Words

__all__ = [
    "COARSE",
    "FINE",
    "coarse",
    "coarse_on_device",
    "fine",
    "fine_on_device",
    "table",
    "table_on",
]

FINE, COARSE = 4, 8
"""How many numbers one counter gives: fine ones by Box and Muller, coarse ones of 16 bits."""

_CELLS = 2**16
_LOW = 2**32 - 1
_SCALE = 2.0**-32
_TURN = math.pi * 2.0**-31


def fine(lanes: Words, low: Words | None, found: NDArray[Any], scratch: Scratch) -> None:
    """Write the numbers of lanes `(2, R, C)`.

    Args:
        lanes: The words; radii come from the first lane, angles from the second.
        low: The lower words for double precision; None for single precision.
        found: The array to write to, `(R, C, 2, 2)`, or `(R, C, 1, 2)` for the first two of four.
        scratch: Buffers.
    """
    u, v = lanes[0].view(np.uint32), lanes[1].view(np.int32)
    kind: Any = np.float32 if low is None else np.float64
    radius, angle, turned = (scratch(name, u.shape, kind) for name in ("radius", "angle", "turned"))
    if low is None:
        np.copyto(radius, u, casting="unsafe")
        np.copyto(angle, v, casting="unsafe")
        radius += kind(0.5)
    else:
        for part, below, word in ((radius, low[0], u), (angle, low[1], v)):
            np.copyto(part, below.view(np.uint32))
            part += 0.5
            part *= _SCALE
            part += word
    radius *= kind(_SCALE)
    angle *= kind(_TURN)
    # numpy's functions are faster in single precision, torch's in double
    log, cos, sin = (
        (np.log, np.cos, np.sin)
        if low is None
        else map(_of_torch, (torch.log, torch.cos, torch.sin))
    )
    log(radius, radius)
    radius *= kind(-2)
    np.sqrt(radius, radius)
    # the words of a lane give two neighbouring numbers, which are copied as one complex number
    pair = np.complex64 if low is None else np.complex128
    places = found.view(pair)
    for k, turn in enumerate((cos, sin)[: found.shape[2]]):
        turn(angle, turned)
        turned *= radius
        places[:, :, k, 0] = turned.view(pair)


def fine_on_device(lanes: list[Tensor], low: list[Tensor] | None = None) -> Tensor:
    """Return the numbers `(R, 4 C)` of the lanes of `lanes_on_device`, as `fine` does."""
    dtype = torch.float32 if low is None else torch.float64
    radius, angle = (_halves(lane, signed=bool(i)).to(dtype) for i, lane in enumerate(lanes))
    if low is None:
        radius = radius + 0.5
    else:
        u, v = ((_halves(lane).to(dtype) + 0.5) * _SCALE for lane in low)
        radius, angle = u + radius, v + angle
    radius, angle = ((radius * _SCALE).log() * -2).sqrt(), angle * _TURN
    return torch.cat((angle.cos() * radius, angle.sin() * radius), dim=-1).flatten(1)


def coarse(lanes: Words, scratch: Scratch) -> NDArray[np.uint16]:
    """Return the indices `(R, 8 C)` in `table` of the coarse numbers of lanes `(2, R, C)`."""
    _, rows, columns = lanes.shape
    cells = scratch("cells", (rows, columns, 2), np.uint64)
    cells[:, :, 0], cells[:, :, 1] = lanes
    return cells.view(np.uint16).reshape(rows, COARSE * columns)


def coarse_on_device(lanes: list[Tensor]) -> Tensor:
    """Return the indices `(R, 8 C)` in `table` for the lanes of `lanes_on_device`, int64."""
    cells = [lane >> shift & _CELLS - 1 for lane in lanes for shift in range(0, 64, 16)]
    return torch.stack(cells, dim=-1).flatten(1)


@functools.cache
def table() -> Tensor:
    """Return the $2^{16}$ coarse numbers, float32."""
    edges = torch.special.ndtri(torch.linspace(0, 1, _CELLS + 1, dtype=torch.float64))
    density = torch.exp(-edges.square() / 2)
    # the mean over a cell, up to a factor
    z = density[:-1] - density[1:]
    return (z / z.square().mean().sqrt()).float()


@functools.cache
def table_on(device: torch.device) -> Tensor:
    """Return `table` on a device; it is copied once."""
    return table().to(device)


def _of_torch(function: Any) -> Any:
    return lambda a, out: function(torch.from_numpy(a), out=torch.from_numpy(out))


def _halves(lane: Tensor, *, signed: bool = False) -> Tensor:
    """Return the two words of a lane, the lower first, `(R, C, 2)`."""
    words = torch.stack((lane << 32 >> 32, lane >> 32), dim=-1)
    return words if signed else words & _LOW

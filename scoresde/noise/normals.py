r"""Make normal numbers from random words, in numpy on the CPU and in torch on other devices.

Box & Muller (1958), *A note on the generation of random normal deviates*, turn two uniform numbers
u, v into two normal numbers, $\sqrt{-2 \log u}\,(\cos 2 \pi v, \sin 2 \pi v)$. In single precision
u and v are made from words w of 32 bits, $u = (w + 1/2)\,2^{-32}$, so that $|z| \le 6.7637$. In
double precision a second word adds 32 lower bits to u and to v. So the numbers of both precisions
agree up to rounding in single precision.

These numbers are called fine. A coarse number needs only 16 bits, and is used where many numbers
are added. To define it, cut the normal distribution into $2^{16}$ cells of equal probability. The
16 bits choose a cell, and the coarse number is the mean over this cell, scaled so that the variance
is 1. Its fourth moment is 2e-4 too small; for a sum of coarse numbers this error is smaller.
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
"""The number of fine normal numbers that one counter gives, and the number of coarse numbers."""

_CELLS = 2**16
_LOW = 2**32 - 1
_SCALE = 2.0**-32
_TURN = math.pi * 2.0**-31


def fine(lanes: Words, low: Words | None, found: NDArray[Any], scratch: Scratch) -> None:
    """Write the fine normal numbers of the words in lanes `(2, R, C)` to `found`.

    Args:
        lanes: The words. The first lane gives the radii, and the second the angles.
        low: The lower words for double precision; None for single precision.
        found: The array to write to: `(R, C, 2, 2)` for all four numbers of each counter, or
            `(R, C, 1, 2)` for the first two.
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
    # numpy's functions are faster in single precision, torch's functions in double precision
    log, cos, sin = (
        (np.log, np.cos, np.sin)
        if low is None
        else map(_of_torch, (torch.log, torch.cos, torch.sin))
    )
    log(radius, radius)
    radius *= kind(-2)
    np.sqrt(radius, radius)
    # the two words of a lane give two neighbouring numbers, which are copied together as one
    # complex number
    pair = np.complex64 if low is None else np.complex128
    places = found.view(pair)
    for k, turn in enumerate((cos, sin)[: found.shape[2]]):
        turn(angle, turned)
        turned *= radius
        places[:, :, k, 0] = turned.view(pair)


def fine_on_device(lanes: list[Tensor], low: list[Tensor] | None = None) -> Tensor:
    """Return the fine numbers `(R, 4 C)` of the lanes that `lanes_on_device` returns."""
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
    """Return, for lanes `(2, R, C)`, the positions of the coarse numbers in `table`, `(R, 8 C)`."""
    _, rows, columns = lanes.shape
    cells = scratch("cells", (rows, columns, 2), np.uint64)
    cells[:, :, 0], cells[:, :, 1] = lanes
    return cells.view(np.uint16).reshape(rows, COARSE * columns)


def coarse_on_device(lanes: list[Tensor]) -> Tensor:
    """Return the result of `coarse`, int64, for the lanes that `lanes_on_device` returns."""
    cells = [lane >> shift & _CELLS - 1 for lane in lanes for shift in range(0, 64, 16)]
    return torch.stack(cells, dim=-1).flatten(1)


@functools.cache
def table() -> Tensor:
    """Return the $2^{16}$ possible coarse numbers, float32."""
    edges = torch.special.ndtri(torch.linspace(0, 1, _CELLS + 1, dtype=torch.float64))
    density = torch.exp(-edges.square() / 2)
    # the mean over each cell, up to a common factor
    z = density[:-1] - density[1:]
    return (z / z.square().mean().sqrt()).float()


@functools.cache
def table_on(device: torch.device) -> Tensor:
    """Return `table` on a device, copied there once."""
    return table().to(device)


def _of_torch(function: Any) -> Any:
    return lambda a, out: function(torch.from_numpy(a), out=torch.from_numpy(out))


def _halves(lane: Tensor, *, signed: bool = False) -> Tensor:
    """Return the two words of a lane, the lower first, `(R, C, 2)`."""
    words = torch.stack((lane << 32 >> 32, lane >> 32), dim=-1)
    return words if signed else words & _LOW

"""Copy times and coefficients to a device together, and keep the times on the CPU beside them.

A score receives its times on the device of the state, but computes its coefficients from them on
the CPU in float64. Reading the times back would wait for all earlier work of the device, and
copying one coefficient takes longer than multiplying by it. So a tensor of times on a device has an
attribute that holds the CPU times from which it was made, and the coefficients of a score that were
copied to the device together with them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from scoresde.checks import unreadable
from scoresde.sde.shapes import expand

__all__ = [
    "batch_time",
    "cpu_time_of",
    "kept_coefficients",
    "on_device",
    "per_sample",
    "with_cpu_time",
]

_NAME = "_scoresde_cpu_time"


class _Origin(NamedTuple):
    """Hold the CPU copy of a tensor of times, valid while its version counter is `version`.

    `rows` are the coefficients of the score `owner` at these times, on the device.
    """

    version: int
    time: Tensor
    owner: object = None
    rows: tuple[Tensor, ...] = ()


def batch_time(time: Tensor, x: Tensor, given: object = None) -> Tensor:
    """Return times `()` or `(B,)` as a new tensor `(B,)` on the device of states `(B, *)`.

    The result has the dtype of `x`, but at least float32, since half precision would round several
    times of a fine grid to the same number.

    Args:
        time: The times on the CPU, in float64.
        x: The states.
        given: The same times as the caller gave them. If this tensor is on the device already, it
            is cloned there.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    known, wanted = _known(given), (x.device, dtype, x.shape[:1])
    if isinstance(given, Tensor) and known and wanted == (given.device, given.dtype, given.shape):
        made = given.clone()
        return _keep(made, known._replace(version=made._version))
    rounded = time.to(dtype)
    made = per_sample(rounded, x, dtype)
    if time.requires_grad or made.is_inference():
        return made
    # a copy, since a solver may change its times in place
    return _keep(made, _Origin(made._version, rounded.to(torch.float64, copy=True)))


def with_cpu_time(column: Tensor, time: Tensor, owner: object, rows: tuple[Tensor, ...]) -> Tensor:
    """Return a column `(B, 1, ...)` of times as a tensor `(B,)` that keeps its times on the CPU.

    Args:
        column: The times on a device.
        time: The same times on the CPU, in float64.
        owner: A score.
        rows: Its coefficients at these times, on the device.
    """
    made = column.reshape(-1).clone()
    if made.is_inference():
        return made
    return _keep(
        made, _Origin(made._version, time.to(made.dtype).to(torch.float64, copy=True), owner, rows)
    )


def cpu_time_of(t: Any) -> Tensor | None:
    """Return the CPU times from which `batch_time` made a tensor, or None for any other tensor."""
    known = _known(t)
    return None if known is None else known.time


def kept_coefficients(t: Any, owner: object) -> tuple[Tensor, ...]:
    """Return the coefficients of the score `owner` that were copied together with `t`, or ()."""
    known = _known(t)
    return known.rows if known is not None and known.owner is owner else ()


def on_device(x: Tensor, *columns: Tensor) -> list[Tensor]:
    """Return CPU coefficients `()` or `(B,)` ready to multiply `x`, with at most one copy."""
    long = [c for c in columns if c.numel() > 1]
    if x.device.type == "cpu" or len(long) < 2:
        return [expand(c, x) for c in columns]
    wide = torch.promote_types(x.dtype, torch.float32)
    table = torch.stack([c.to(wide) for c in long]).to(x.device, non_blocking=True).to(x.dtype)
    rows = iter(table.reshape(len(long), -1, *(1,) * (x.ndim - 1)))
    return [next(rows) if c.numel() > 1 else expand(c, x) for c in columns]


def per_sample(c: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return CPU coefficients `()` or `(B,)` as a new tensor `(B,)` on the device of `x`."""
    if c.requires_grad or c.device.type != "cpu" or unreadable(c):
        return c.to(x.device, dtype).expand(x.shape[0]).clone()
    if c.numel() == 1:
        # a single number is passed to the device kernel as an argument, without a copy
        return torch.full((len(x),), c.item(), dtype=dtype, device=x.device)
    return c.to(device=x.device, dtype=dtype, copy=True)


def _known(t: Any) -> _Origin | None:
    # kept times would become constants of a compiled graph, which would be wrong at other times
    if torch.compiler.is_compiling():
        return None
    known: _Origin | None = getattr(t, _NAME, None)
    return known if known is not None and known.version == t._version else None


def _keep(t: Tensor, known: _Origin) -> Tensor:
    setattr(t, _NAME, known)
    return t

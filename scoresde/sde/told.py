"""Keep the numbers of which times on a device were made, so that nothing has to read them back.

A score is given its times on the device of the state, and computes its coefficients of them on the
CPU in float64. To read the times back would wait for all work that the device was given before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["batch_of", "numbers_of", "per_sample"]

_NAME = "_scoresde_numbers"


def batch_of(time: Tensor, x: Tensor) -> Tensor:
    """Return times `()` or `(B,)` as a new tensor `(B,)` on the device of states `(B, *)`.

    Its dtype is that of `x`, but at least float32, since the times of a fine grid would coincide in
    half precision. `numbers_of` knows its numbers, until it is changed in place.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    made = per_sample(time.to(dtype), x, dtype)
    if not (time.requires_grad or made.is_inference()):
        setattr(made, _NAME, (made._version, time.to(dtype).to(torch.float64)))
    return made


def numbers_of(t: Any) -> Tensor | None:
    """Return the times of which `batch_of` made `t`, on the CPU, `()` if equal, or None."""
    version, time = getattr(t, _NAME, (None, None))
    return time if version is not None and version == t._version else None


def per_sample(c: Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return coefficients `()` or `(B,)` of the CPU as a new tensor `(B,)` on the device of `x`."""
    if c.requires_grad or c.device.type != "cpu":
        return c.to(x.device, dtype).expand(len(x)).clone()
    if c.numel() == 1:
        # a number is given to a kernel and not copied
        return torch.full((len(x),), c.item(), dtype=dtype, device=x.device)
    return c.to(device=x.device, dtype=dtype, copy=True)

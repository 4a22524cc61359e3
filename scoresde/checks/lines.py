"""Format objects in one line: tensors by their shape, modules by their class."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch import Tensor, nn

__all__ = ["brief", "summary"]

_MAX_LISTED = 6  # a tuple or dictionary with more entries is abbreviated


def brief(value: object) -> str:
    """Return a short string for a value.

    Examples:
        >>> import torch
        >>> brief(torch.zeros(2, 3)), brief(torch.tensor(0.25)), brief((1.0,) * 40)
        ('tensor (2, 3)', '0.25', '(1.0, 1.0, 1.0, ..., 40 in all)')
    """
    if isinstance(value, Tensor):
        return f"{value.item():.6g}" if value.ndim == 0 else f"tensor {tuple(value.shape)}"
    if type(value) is dict:
        parts = [f"{name!r}: {brief(one)}" for name, one in value.items()]
        parts = parts if len(parts) <= _MAX_LISTED else [*parts[:3], f"..., {len(parts)} in all"]
        return f"{{{', '.join(parts)}}}"
    if isinstance(value, tuple) and len(value) > _MAX_LISTED:
        return f"({', '.join(map(brief, value[:3]))}, ..., {len(value)} in all)"
    repr_of = type(value).__repr__
    if isinstance(value, nn.Module) and repr_of is nn.Module.__repr__:
        return type(value).__name__
    return type(value).__name__ if repr_of is object.__repr__ else repr(value)


def summary(item: Any) -> str:
    """Return the repr of a dataclass in one line, without fields that are None."""
    known = {f.name: getattr(item, f.name) for f in fields(item)}
    parts = [f"{name}={brief(value)}" for name, value in known.items() if value is not None]
    return f"{type(item).__name__}({', '.join(parts)})"

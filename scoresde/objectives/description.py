r"""Describe losses and weights as strings, to check that a resumed run has the same loss."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping

from torch import nn

__all__ = ["described"]


def described(part: object) -> str:
    """Return a string for a loss or a weight and its bound arguments, equal in every process.

    A function is described by its qualified name, a partial by its function and arguments, and
    anything else by its repr, or by its class if the repr contains a memory address.

    Args:
        part: A loss, a weight, or an argument bound in one.

    Examples:
        >>> from scoresde.objectives import dsm_loss, min_snr
        >>> described(functools.partial(dsm_loss, weight=min_snr(3), control_variate=True))
        'dsm_loss(weight=min_snr(3, 1), control_variate=True)'
    """
    if isinstance(part, functools.partial):
        bound = [described(value) for value in part.args]
        bound += [f"{name}={described(value)}" for name, value in part.keywords.items()]
        return f"{described(part.func)}({', '.join(bound)})"
    if isinstance(part, types.MethodType):
        return f"{described(part.__self__)}.{part.__name__}"
    if isinstance(part, (type, types.FunctionType, types.BuiltinFunctionType)):
        return part.__qualname__
    if isinstance(part, (list, tuple)):
        return f"[{', '.join(map(described, part))}]"
    if isinstance(part, Mapping):
        return f"{{{', '.join(f'{name}: {described(value)}' for name, value in part.items())}}}"
    text = " ".join(repr(part).split())
    if " at 0x" not in text:
        return text
    inside = f"({part.extra_repr()})" if isinstance(part, nn.Module) else ""
    return type(part).__qualname__ + (inside if " at 0x" not in inside else "")

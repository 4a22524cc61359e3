r"""Describe losses and weights as strings, to check that a resumed run has the same loss."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Mapping

from torch import nn

__all__ = ["described"]


def described(part: object) -> str:
    """Return a string for a loss or a weight and its bound arguments, equal in every process.

    A function is described by its qualified name and the numbers in its closure, and a partial by
    its function and arguments. Lists and mappings are described by their entries, and anything else
    by its repr. If the repr contains a memory address, the class is named instead, with the
    `extra_repr` of a module, or else with the public attributes that are numbers.

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
    if isinstance(part, types.FunctionType):
        return part.__qualname__ + _numbers(_closure(part))
    if isinstance(part, (type, types.BuiltinFunctionType)):
        return part.__qualname__
    if isinstance(part, (list, tuple)):
        return f"[{', '.join(map(described, part))}]"
    if isinstance(part, Mapping):
        return f"{{{', '.join(f'{name}: {described(value)}' for name, value in part.items())}}}"
    text = " ".join(repr(part).split())
    if " at 0x" not in text:
        return text
    inside = (
        f"({part.extra_repr()})"
        if isinstance(part, nn.Module)
        else _numbers(getattr(part, "__dict__", {}))
    )
    return type(part).__qualname__ + (inside if " at 0x" not in inside else "")


def _closure(function: types.FunctionType) -> dict[str, object]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    found: dict[str, object] = {}
    for name, cell in cells:
        with contextlib.suppress(ValueError):  # the cell is empty
            found[name] = cell.cell_contents
    return found


def _numbers(values: Mapping[str, object]) -> str:
    """Return the numbers among named values as "(name=value, ...)", or ""."""
    found = [
        f"{name}={value!r}"
        for name, value in sorted(values.items())
        if isinstance(value, bool | int | float) and not name.startswith("_")
    ]
    return f"({', '.join(found)})" if found else ""

"""Data in words: one line, and a small table for notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.data.layout import Laid
from scoresde.data.report import some
from scoresde.data.stores import Memory, Part, Store, is_random
from scoresde.sde import Classes, Field

if TYPE_CHECKING:
    from scoresde.data.samples import Data

__all__ = ["event_of", "facts_of", "html", "kind_of", "line"]

_AXES = {1: "steps", 2: "pixels", 3: "voxels"}
_FEW = 6  # names in one line


def event_of(shape: tuple[int, ...], columns: tuple[str, ...] = ()) -> str:
    """Return how a sample of a shape is read, in words."""
    if len(shape) == 1:
        return f"{_count(shape[0], 'number')}{_listed(columns)}"
    channels, space = shape[0], shape[1:]
    sides = "x".join(map(str, space))
    if len(shape) > 4:
        return f"{_count(channels, 'channel')} of {sides}"
    if len(shape) == 3 and channels in (1, 3):
        return f"{'a grey' if channels == 1 else 'a colour'} image of {sides} pixels"
    return f"{_count(channels, 'channel')} of {sides} {_AXES[len(space)]}"


def kind_of(kind: Classes | Field) -> str:
    """Return what a condition is, in words."""
    if isinstance(kind, Classes):
        return f"{kind.n:,} class{'' if kind.n == 1 else 'es'}{_listed(kind.names)}"
    return event_of(kind.shape, kind.names)


def facts_of(data: Data) -> dict[str, str]:
    """Return what is said of data, by name."""
    raw = data.raw
    first = raw if isinstance(raw, Tensor) else data.store.read(slice(0, 1))
    numbers = "bytes" if first.dtype == torch.uint8 else str(first.dtype).removeprefix("torch.")
    where = "in memory" if _is_held(data.store) else "read when needed"
    if is_random(data.store):
        where += ", drawn anew each time"
    known = {
        "samples": f"{len(data):,}" if data.called == "x" else f"{len(data):,} of {data.called}",
        "each": event_of(data.event_shape, data.columns),
        "numbers": f"{numbers} {where}",
        "transform": str(data.transform),
        **{f"given {name}": kind_of(kind) for name, kind in data.kinds.items()},
    }
    return known | ({"from": data.source} if data.source else {})


def line(data: Data) -> str:
    """Return data in one line."""
    known = facts_of(data)
    rest = [f"{k}: {v}" for k, v in known.items() if k.startswith("given ")]
    rest += [f"from {data.source}"] if data.source else []
    n, _, called = known["samples"].partition(" ")
    return (
        f"Data({n} samples {called}".rstrip() + f", each {known['each']}; {known['numbers']}; "
        f"{'; '.join([known['transform'], *rest])})"
    )


def html(data: Data) -> str:
    """Return data as a table of HTML."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in facts_of(data).items()
    )
    return f"<table>{rows}</table>"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _listed(names: tuple[str, ...]) -> str:
    return f" ({some(names[:_FEW], len(names), most=_FEW)})" if names else ""


def _is_held(store: Store) -> bool:
    """Return whether samples, or those that they are made of, are in memory."""
    while isinstance(store, Part | Laid):
        store = store.store
    return isinstance(store, Memory)

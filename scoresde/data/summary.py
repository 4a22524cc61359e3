"""Describe data in one line, or in a small table for notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.data.layout import Laid
from scoresde.data.stores import InMemory, Part, Store, is_random
from scoresde.sde.words import event_in_words, kind_in_words
from scoresde.units import in_words

if TYPE_CHECKING:
    from scoresde.data.samples import Data

__all__ = ["facts_of", "html", "line"]


def facts_of(data: Data) -> dict[str, str]:
    """Return the facts of data as text, by name."""
    raw = data.raw
    first = raw if isinstance(raw, Tensor) else data.store.read(slice(0, 1))
    numbers = "bytes" if first.dtype == torch.uint8 else str(first.dtype).removeprefix("torch.")
    where = "in memory" if _is_held(data.store) else "read when needed"
    if is_random(data.store):
        where += ", different at each reading"
    known = {
        "samples": f"{len(data):,}" if data.called == "x" else f"{len(data):,} of {data.called}",
        "each": event_in_words(data.event_shape, data.columns),
        "numbers": f"{numbers} {where}",
        "units": in_words(data.transform),
        **{f"given {name}": kind_in_words(kind) for name, kind in data.kinds.items()},
    }
    return known | ({"from": data.source} if data.source else {})


def line(data: Data) -> str:
    """Return a description of data in one line."""
    known = facts_of(data)
    rest = [f"{k}: {v}" for k, v in known.items() if k.startswith("given ")]
    rest += [f"from {data.source}"] if data.source else []
    n, _, called = known["samples"].partition(" ")
    return (
        f"Data({n} samples {called}".rstrip() + f", each {known['each']}; {known['numbers']}; "
        f"{'; '.join([known['units'], *rest])})"
    )


def html(data: Data) -> str:
    """Return a description of data as an HTML table."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in facts_of(data).items()
    )
    return f"<table>{rows}</table>"


def _is_held(store: Store) -> bool:
    """Return True if the samples, or the samples from which a view is made, are in memory."""
    while isinstance(store, Part | Laid):
        store = store.store
    return isinstance(store, InMemory)

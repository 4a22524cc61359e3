"""The modules inside a score: how to find them, and how to run them in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["evaluating", "layers"]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The modules inside a score in evaluation mode, each restored to its own at the end."""
    modules = (m for layer in layers(model) for m in getattr(layer, "modules", tuple)())
    modes = {module: module.training for module in modules}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def layers(score: Any) -> Iterator[Any]:
    """A score, what it wraps as its `model`, and so on inwards."""
    seen: set[int] = set()
    while score is not None and id(score) not in seen:
        seen.add(id(score))
        yield score
        score = getattr(score, "model", None)

"""Read and extend the names of classes, vector entries and columns in a model's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scoresde.errors import CheckpointError

__all__ = ["grown_names", "names_of"]


Words = tuple[str, ...]


def names_of(config: Mapping[str, Any]) -> tuple[dict[str, Words], Words, Words]:
    """Return the names for each condition, of all columns, and of the columns of integers.

    Args:
        config: A model's description.

    Raises:
        CheckpointError: `names`, `columns` or `whole` does not hold names.
    """
    names, columns = config.get("names") or {}, config.get("columns") or []
    whole = config.get("whole") or []
    lists = [*names.values(), columns, whole] if isinstance(names, dict) else [None]
    if not all(isinstance(one, list) and all(isinstance(w, str) for w in one) for one in lists):
        raise CheckpointError("its names of classes and columns must be lists of strings")
    return {name: tuple(words) for name, words in names.items()}, tuple(columns), tuple(whole)


def grown_names(
    names: Mapping[str, tuple[str, ...]], num_classes: int | Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
    """Return the names with new classes added; the name of a new class is its number."""
    more = {"label": num_classes} if isinstance(num_classes, int) else num_classes
    return {
        name: (*words, *(str(k) for k in range(len(words), more.get(name, 0))))
        for name, words in names.items()
    }

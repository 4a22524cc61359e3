"""Warn if a model with named classes is sampled without a class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from scoresde.checks import outside
from scoresde.sde import Classes, Facts

__all__ = ["warn_of_open_classes"]


def warn_of_open_classes(known: Facts, condition: Mapping[str, Any] | None) -> None:
    """Warn if the score has named classes, but no class is given."""
    for name, kind in (known.conditions or {}).items():
        if isinstance(kind, Classes) and len(kind.names) > 1 and name not in (condition or {}):
            warnings.warn(
                f"no {name!r} is given, so the unconditional model is sampled; its samples are "
                f"usually worse, since it has learnt only from samples whose {name!r} was hidden; "
                f"condition={{{name!r}: {kind.names[0]!r}}} draws one class, a list of names "
                f"draws a class for each sample, and {{{name!r}: -1}} hides this warning",
                UserWarning,
                stacklevel=outside(),
            )

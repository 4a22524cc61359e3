"""Warn of samples of a model with classes that are drawn without one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from scoresde.checks import outside
from scoresde.sde import Classes, Facts

__all__ = ["warn_of_open_classes"]


def warn_of_open_classes(known: Facts, condition: Mapping[str, Any] | None) -> None:
    """Warn if the classes of a score have names, and none is given."""
    for name, kind in (known.conditions or {}).items():
        if isinstance(kind, Classes) and len(kind.names) > 1 and name not in (condition or {}):
            warnings.warn(
                f"no {name!r} is given, so the samples are of the model without it, which is "
                f"usually worse: it has learnt from the steps in which {name!r} was left out; "
                f"condition={{{name!r}: {kind.names[0]!r}}} draws one class, a list of names one "
                f"for each sample, and {{{name!r}: -1}} all without this warning",
                UserWarning,
                stacklevel=outside(),
            )

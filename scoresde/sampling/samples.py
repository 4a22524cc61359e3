"""Hold the samples of a run with their cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from torch import Tensor

from scoresde.checks import summary

__all__ = ["Samples", "page_of"]


def page_of(name: str, shown: object) -> str:
    """Return what a notebook shows, by a function of a module that imports this one."""
    pages: Any = import_module("scoresde.sampling.notebook")
    page: str = getattr(pages, name)(shown)
    return page


@dataclass(frozen=True, eq=False, repr=False)
class Samples:
    """Hold the samples of a run, and their cost.

    Attributes:
        x: The samples `(n, *shape)`.
        nfe: The largest number of evaluations of the score for a sample.
        passes: The number of network passes in these evaluations.
        info: Further results of the sampler or the score, by name, with one number for each sample,
            `(n,)`: `residual` of a posterior, `ess` and `log_evidence` of particles.
    """

    x: Tensor
    nfe: int
    passes: int
    info: Mapping[str, Any] = field(default_factory=dict)

    __repr__ = summary

    def _repr_html_(self) -> str:
        return page_of("samples_page", self)

"""Show the progress of the ODE solutions that compute log-densities."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scoresde.progress import Progress

__all__ = ["Percent"]

# The share of the time that the first of two solutions takes; the second is less precise and
# shorter.
_FIRST = 0.67

# Steps are shortest at the start, where the noise is small: the first part of the interval, with
# the share s of its length, takes about the share s ** _POWER of all steps.
_POWER = 0.4


@dataclass
class Percent:
    """Move a progress bar of 100 percent during one or two solutions for a part of the batch.

    Attributes:
        bar: The bar.
        done: The share of all work that was finished before this part.
        share: The share of this part.
        twice: True if a second, less precise solution follows the first.
    """

    bar: Progress
    done: float
    share: float
    twice: bool
    shown: int = 0
    last: float = 0.0
    second: bool = False

    def __post_init__(self) -> None:
        self.shown = math.floor(100 * self.done)

    def __call__(self, way: float) -> None:
        """Move the bar; `way` is the share of the current solution that is done."""
        self.second, self.last = self.second or way < self.last, way
        way = max(way, 0.0) ** _POWER
        first = _FIRST if self.twice else 1.0
        inner = first + (1 - first) * way if self.second else first * way
        now = math.floor(100 * (self.done + self.share * inner) + 1e-9)
        if now > self.shown:
            self.bar.update(now - self.shown)
            self.shown = now

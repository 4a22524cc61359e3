"""Show the progress of the ODE solutions that compute log-densities."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from scoresde.progress import Progress

__all__ = ["Percent"]

# The share of the time that the first of two solutions takes; the second is less precise and
# shorter.
_FIRST = 0.67

# Steps are shortest at the start, where the noise is small: the first share s of the interval takes
# about s ** _POWER of all steps.
_POWER = 0.4


@dataclass
class Percent:
    """Move a progress bar, counted in percent, while one or two ODE solutions for a part run.

    A batch is divided into parts, which are solved one after another.

    Attributes:
        bar: The bar.
        done: The share of all work that was finished before this part.
        share: This part's share of all work.
        twice: True if a second, less precise solution follows the first.
    """

    bar: Progress
    done: float
    share: float
    twice: bool
    shown: int = field(init=False)
    last: float = field(default=0.0, init=False)
    second: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.shown = math.floor(100 * self.done)

    def __call__(self, way: float) -> None:
        """Move the bar; `way` is the share of the interval that is covered."""
        self.second, self.last = self.second or way < self.last, way
        way = max(way, 0.0) ** _POWER
        first = _FIRST if self.twice else 1.0
        inner = first + (1 - first) * way if self.second else first * way
        now = math.floor(100 * (self.done + self.share * inner) + 1e-9)
        if now > self.shown:
            self.bar.update(now - self.shown)
            self.shown = now

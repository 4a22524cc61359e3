"""Hide a measurement from a score that does not take it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scoresde.score import Wrapped
from scoresde.sde import Condition, Score

__all__ = ["Unmeasured"]


class Unmeasured(Wrapped):
    """Evaluate a score without one of the conditions.

    Args:
        score: The score.
        name: The name of the condition.
    """

    def __init__(self, score: Score, name: str) -> None:
        super().__init__(score)
        self.name = name

    def __call__(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the score `(B, *)`."""
        rest = None if condition is None else Condition(condition).without(self.name)
        return self.ask(self.score, x, t, rest)

r"""Scores made of other scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scoresde.checks import brief, door, quoted
from scoresde.errors import InvalidTypeError
from scoresde.sde import Condition, Facts, Score, ask, check_output, facts

__all__ = ["Wrapped"]


class Wrapped:
    r"""Base of every score that is made of another: a subclass is one formula.

    It has the facts of the score inside; a subclass that changes one of them overrides `facts` with
    `dataclasses.replace(super().facts, ...)`.

    Args:
        score: The score inside.
        others: Further scores that the formula uses.

    Attributes:
        score: The score inside.
        others: The further ones.

    Raises:
        InvalidTypeError: One of them cannot be called.

    Examples:
        >>> class Tempered(Wrapped):
        ...     def __call__(self, x, t, condition=None):
        ...         return 0.5 * self.ask(self.score, x, t, condition)
    """

    @door
    def __init__(self, score: Score, *others: Score) -> None:
        for part in (score, *others):
            if not callable(part) or isinstance(part, type):
                raise InvalidTypeError(
                    f"{type(self).__name__} is made of scores, callables (x, t); got {quoted(part)}"
                )
        self.score = score
        self.others = others

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(brief, (self.score, *self.others)))})"

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the score `(B, *)`; a subclass says which."""
        return self.ask(self.score, x, t, condition)

    @property
    def facts(self) -> Facts:
        """Return what is known of this score: what the one inside knows."""
        return facts(self.score)

    @staticmethod
    def ask(
        score: Any, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the value of a score `(B, *)`, which is given the conditions that it takes.

        Raises:
            InvalidTypeError, ShapeError: It is no tensor like `x`: nothing is broadcast.
        """
        return check_output("score", ask(score, x, t, condition), x)

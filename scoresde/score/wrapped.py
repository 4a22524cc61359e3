r"""Define the base class of scores that wrap other scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scoresde.checks import brief, door, quoted
from scoresde.errors import InvalidTypeError
from scoresde.sde import Condition, Facts, Score, ask, check_output, facts

__all__ = ["Wrapped"]


class Wrapped:
    r"""Define a score by a formula that contains another score, as guidance does.

    It has the facts of the inner score. A subclass that changes a fact overrides `facts` and
    returns `dataclasses.replace(super().facts, ...)`.

    Args:
        score: The inner score.
        others: Further scores that the formula uses.

    Attributes:
        score: The inner score.
        others: The further scores.

    Raises:
        InvalidTypeError: A score cannot be called.

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
                    f"{type(self).__name__} takes scores, which are callables (x, t); got "
                    f"{quoted(part)}"
                )
        self.score = score
        self.others = others

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(brief, (self.score, *self.others)))})"

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the score `(B, *)`; a subclass writes its formula here."""
        return self.ask(self.score, x, t, condition)

    @property
    def facts(self) -> Facts:
        """Return the facts of the inner score."""
        return facts(self.score)

    @staticmethod
    def ask(
        score: Any, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Evaluate a score with the conditions that it takes, and return its value `(B, *)`.

        Raises:
            InvalidTypeError, ShapeError: The value is not a tensor of the shape of `x`.
        """
        return check_output("score", ask(score, x, t, condition), x)

r"""Evaluate a point on the line through two scores, a weak and a strong one.

$$ s = s_\text{weak} + w\,(s_\text{strong} - s_\text{weak}) $$

$w = 0$ gives the weak score, $w = 1$ the strong score, and $w > 1$ extrapolates.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from scoresde.checks import check_range, quoted
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.score import Wrapped
from scoresde.sde import Facts, Score, facts, passes_of, process_of
from scoresde.sde.coordinates import ratio

__all__ = ["Between", "Interval", "check_alike"]

Interval = tuple[float, float]

# The relative rounding error of sigma / alpha at a float32 time. The ends of the interval are moved
# by this much, since a time of the grid may be exactly an end.
_ROUNDING = 1e-5


class Between(Wrapped):
    r"""Define the base class of guidance along the line from a weak to a strong score.

    At $w = 0$, at $w = 1$ and outside of the interval only one of the two scores is evaluated. If
    the samples of a batch have different times and one sample needs both scores, both are evaluated
    for the whole batch; samples outside of the interval still get the strong score.

    Args:
        score: The strong score.
        others: The scores from which the weak score is made.
        scale: $w$, finite; a negative number leads away from the strong score.
        interval: The noise scales $\sigma/\alpha \in (low, high]$ at which $w$ is used.

    Raises:
        InvalidValueError: The scale is not finite, the interval is not increasing, or an interval
            is given for a score without an SDE in its facts.
    """

    def __init__(
        self, score: Score, *others: Score, scale: float, interval: Interval | None
    ) -> None:
        super().__init__(score, *others)
        check_range("scale", scale, "(-inf, inf)")
        self.scale = float(scale)
        self.interval = interval
        self._sde = super().facts.sde
        if interval is None:
            return
        low, high = interval
        if not 0 <= low < high:
            raise InvalidValueError(
                f"interval=(low, high) needs 0 <= low < high, got {quoted(interval)}; give noise "
                "levels sigma / alpha, such as (0.2, 2.0)"
            )
        if self._sde is None:
            raise InvalidValueError(
                "interval= is in units of sigma / alpha, but this score has no SDE in its facts; "
                "write it as a subclass of scoresde.Wrapped with `facts`, or leave the interval "
                "out"
            )

    @abc.abstractmethod
    def weak(self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """Return the weak score `(B, *)`."""

    @property
    def weaker(self) -> Score:
        """Return the score that `weak` evaluates."""
        return self.score

    @property
    def facts(self) -> Facts:
        """Return the facts of the strong score, with the passes of both."""
        known = super().facts
        density = known.density if self.scale == 1 else False
        if self.scale == 0 and self.interval is None:
            density = facts(self.weaker).density
        return replace(known, passes=self._passes, density=density)

    def __call__(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the score `(B, *)`."""
        inside = None
        if self.interval is not None:
            assert self._sde is not None
            inside = self._inside(ratio(self._sde, self._sde.cpu_time(t)))
        weakly, strongly = self._needed(inside)
        if not weakly:
            return self.ask(self.score, x, t, condition)
        weak = self.weak(x, t, condition)
        if not strongly:
            return weak
        strong = self.ask(self.score, x, t, condition)
        guided = weak.to(strong.dtype).lerp(strong, self.scale)
        if inside is None:
            return guided
        rows = inside.to(x.device).reshape(-1, *(1,) * (x.ndim - 1))
        return torch.where(rows, guided, strong)

    def _inside(self, ratio: Tensor) -> Tensor:
        """Return a mask of the noise scales in the interval."""
        low, high = (end * (1 + _ROUNDING) for end in self.interval or (0.0, math.inf))
        return (low < ratio) & (ratio <= high)

    def _needed(self, inside: Tensor | None) -> tuple[bool, bool]:
        """Return whether the weak score is needed, and whether the strong score is needed."""
        some = inside is None or bool(inside.any())
        every = inside is None or bool(inside.all())
        return self.scale != 1 and some, self.scale != 0 or not every

    def _passes(self, ratio: Tensor) -> int:
        """Return the network passes of a call at noise scales sigma / alpha."""
        inside = None if self.interval is None else self._inside(ratio)
        weakly, strongly = self._needed(inside)
        cost = passes_of(self.weaker, ratio) if weakly else 0
        return cost + (passes_of(self.score, ratio) if strongly else 0)


def check_alike(score: Score, other: object, what: str) -> None:
    """Raise an error if two scores belong to different processes or to events of different shapes.

    Args:
        score: A score.
        other: Another score or a function of states.
        what: The name of `other` in messages, such as "the weaker score".

    Raises:
        InvalidValueError: The two belong to different processes.
        ShapeError: The two belong to events of different shapes.
    """
    first, known = facts(score), facts(other)
    if None not in (first.sde, known.sde):
        process_of(other, first.sde)
    shapes = {first.event_shape, known.event_shape} - {None}
    if len(shapes) == 2:
        raise ShapeError(
            f"the score is for events of shape {first.event_shape}, and {what} for events of shape "
            f"{known.event_shape}; give two scores of the same data"
        )

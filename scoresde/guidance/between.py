r"""Evaluate the line through two scores, a weak and a strong one.

$$ s = s_\text{weak} + w\,(s_\text{strong} - s_\text{weak}) $$

At $w = 0$ it is the weak score, at $w = 1$ the strong one, above 1 it goes beyond it.
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

# The rounding of sigma / alpha at a time in float32, relative; an end of an interval may be a time.
_ROUNDING = 1e-5


class Between(Wrapped):
    r"""Evaluate the line from a weak score to the strong one, `score`, as a base class.

    Only what is needed is evaluated: one of the two at $w = 0$ and $w = 1$, the strong one outside
    of the interval. In a batch of several times both are, where any sample needs both; samples
    outside of the interval then have the strong score. An interval makes a call look at its times,
    for which another device is waited for.

    Args:
        score: The strong score.
        others: What the weak score is made of.
        scale: $w$, finite; below 0 it leads away from the strong score.
        interval: The noise scales $\sigma/\alpha \in (low, high]$ within which $w$ holds.

    Raises:
        InvalidValueError: The scale is not finite, the interval is none, or it is given where the
            score knows no SDE.
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
                "interval= counts in sigma / alpha, and this score knows no SDE; derive it from "
                "scoresde.Wrapped with `facts`, or leave the interval out"
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
        """Return whether the weak score is needed, and the strong one."""
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
    """Raise an error if two parts of one formula belong to different processes or events.

    Args:
        score: A score.
        other: What is added to it or taken from it.
        what: The noun for it: "the weaker one".

    Raises:
        InvalidValueError: They belong to different processes.
        ShapeError: They belong to events of different shapes.
    """
    own, known = facts(score), facts(other)
    if None not in (own.sde, known.sde):
        process_of(other, own.sde)
    if None not in (own.event_shape, known.event_shape) and own.event_shape != known.event_shape:
        raise ShapeError(
            f"the score is of events {own.event_shape} and {what} of {known.event_shape}; give "
            "both of the same data"
        )

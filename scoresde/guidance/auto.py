"""Extrapolate from a worse score of the same data through a score (autoguidance)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scoresde.checks import door
from scoresde.guidance.between import Between, Interval, check_alike
from scoresde.score import Wrapped
from scoresde.sde import Score

__all__ = ["Auto", "autoguidance"]


class Auto(Between):
    """Evaluate the line from a weaker score to the score."""

    @property
    def weaker(self) -> Score:
        """Return the weaker score."""
        return self.others[0]

    def weak(self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """Return the weaker score, under the conditions that it takes."""
        return self.ask(self.weaker, x, t, condition)


@door
def autoguidance(
    score: Score, weaker: Score, scale: float, *, interval: Interval | None = None
) -> Wrapped:
    r"""Return a score extrapolated from a weaker one.

    $$ s = s_\text{weaker} + w\,(s - s_\text{weaker}) $$

    (Karras et al. 2024, eq. 3, arXiv:2406.02507). The weaker one is smaller or trained for a
    shorter time on the same data, such as an average of few steps; what the two disagree about is
    taken for the error of both. It may be without conditions: then this is classifier-free guidance
    with a network of its own for the unconditional score.

    Args:
        score: A score.
        weaker: A worse score of the same data and the same SDE; it is given the conditions that it
            takes.
        scale: $w$: 0 the weaker score, 1 the score itself, above 1 beyond it; finite.
        interval: Noise levels $\sigma/\alpha \in (low, high]$ within which the guidance acts;
            elsewhere `score` alone is evaluated.

    Raises:
        InvalidValueError: The scale or the interval is impossible, or the two belong to different
            processes.
        ShapeError: They belong to events of different shapes.

    Examples:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> good = scoresde.targets.Gaussian([0.0, 1.0], std=0.5).at(sde)
        >>> bad = scoresde.targets.Gaussian([0.0, 1.0], std=1.0).at(sde)
        >>> x = scoresde.sample(autoguidance(good, bad, 2.0), sampler="heun", n=4, seed=0)
    """
    check_alike(score, weaker, "the weaker one")
    return Auto(score, weaker, scale=scale, interval=interval)

"""Extrapolate a score away from a worse score of the same data (autoguidance)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scoresde.checks import door
from scoresde.guidance.between import Between, Interval, check_alike
from scoresde.score import Wrapped
from scoresde.sde import Score

__all__ = ["Auto", "autoguidance"]


class Auto(Between):
    """Evaluate a point on the line through a weaker score and the score."""

    @property
    def weaker(self) -> Score:
        """Return the weaker score."""
        return self.others[0]

    def weak(self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """Evaluate the weaker score with the conditions that it takes."""
        return self.ask(self.weaker, x, t, condition)


@door
def autoguidance(
    score: Score, weaker: Score, scale: float, *, interval: Interval | None = None
) -> Wrapped:
    r"""Return a score extrapolated from a weaker score.

    $$ s = s_\text{weaker} + w\,(s - s_\text{weaker}) $$

    (Karras et al. 2024, eq. 3, arXiv:2406.02507). The weaker score has a smaller network, or was
    trained for fewer steps, on the same data. Both scores are assumed to make similar errors, but
    the errors of the weaker score are larger, so that their difference points away from the errors.
    If the weaker score takes no conditions, this is classifier-free guidance with a separate
    network for the unconditional score.

    Args:
        score: A score.
        weaker: A less accurate score of the same data and the same SDE. It receives the conditions
            that it takes.
        scale: $w$, finite: 0 for the weaker score, 1 for `score`, above 1 to extrapolate.
        interval: Noise scales $\sigma/\alpha \in (low, high]$ at which guidance is applied;
            elsewhere `score` alone is evaluated.

    Raises:
        InvalidValueError: The scale or the interval is out of range, or the two scores belong to
            different processes.
        ShapeError: The two scores belong to events of different shapes.

    Examples:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> good = scoresde.targets.Gaussian([0.0, 1.0], std=0.5).at(sde)
        >>> bad = scoresde.targets.Gaussian([0.0, 1.0], std=1.0).at(sde)
        >>> x = scoresde.sample(autoguidance(good, bad, 2.0), sampler="heun", n=4, seed=0)
    """
    check_alike(score, weaker, "the weaker score")
    return Auto(score, weaker, scale=scale, interval=interval)

"""Extrapolate from the unconditional through the conditional score (classifier-free guidance)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from scoresde.checks import door
from scoresde.errors import InvalidValueError
from scoresde.guidance.between import Between, Interval
from scoresde.score import Wrapped
from scoresde.sde import Score, facts

__all__ = ["ClassifierFree", "classifier_free"]


class ClassifierFree(Between):
    """Evaluate a point on the line through the unconditional and the conditional score."""

    def __call__(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the score `(B, *)`.

        Raises:
            InvalidValueError: There is no condition, and the scale is not 0.
        """
        if not condition and (self.scale != 0 or self.interval is not None):
            names = list(facts(self.score).conditions or ["label"])
            example = ", ".join(f"{name!r}: ..." for name in names)
            raise InvalidValueError(
                "classifier-free guidance needs a condition, but none was given; give "
                f"condition={{{example}}}, or use the score without guidance"
            )
        return super().__call__(x, t, condition)

    def weak(self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        """Return the score with all conditions missing."""
        return self.ask(self.score, x, t)


@door
def classifier_free(score: Score, scale: float, *, interval: Interval | None = None) -> Wrapped:
    r"""Return the score of classifier-free guidance at a scale.

    $$ s = s(x, t) + w\,\big(s(x, t \mid y) - s(x, t)\big) $$

    (Ho & Salimans 2022, eq. 6, arXiv:2207.12598). Their $w$ is this $w$ minus 1; Imagen and
    diffusers define it as here. The unconditional score is `score` with every condition missing; it
    is trained by dropping conditions at random. A call takes two network passes. At $w = 0$ it
    takes one pass and returns the unconditional score; at $w = 1$ and outside of the interval it
    takes one pass and returns the conditional score.

    Args:
        score: A score that takes conditions, and was also trained with all conditions missing.
        scale: $w$, finite: 0 for the unconditional score, 1 for the conditional score, above 1 for
            a sharper distribution, below 0 for samples unlike the condition.
        interval: Noise scales $\sigma/\alpha \in (low, high]$, in model units, at which guidance is
            applied; elsewhere the conditional score is used (Kynkäänniemi et al. 2024,
            arXiv:2404.07724).

    Raises:
        InvalidValueError: The scale or the interval is out of range, or the score takes no
            condition.

    Examples:
        >>> import scoresde
        >>> guided = classifier_free(scoresde.load("mnist"), 2.0, interval=(0.2, 5.0))
        >>> run = scoresde.Run.of(guided, sampler="fast", n=2, seed=0, condition={"label": 3})
        >>> samples = run.draw()
        >>> samples.nfe, samples.nfe < samples.passes < 2 * samples.nfe
        (21, True)
    """
    if facts(score).conditions == {}:
        raise InvalidValueError(
            "this score takes no condition, so classifier-free guidance has no effect; use "
            "guidance.classifier, or guidance.autoguidance with a weaker score"
        )
    return ClassifierFree(score, scale=scale, interval=interval)

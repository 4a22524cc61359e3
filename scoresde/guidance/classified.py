"""Add the gradient of a condition's log-probability to a score (classifier guidance)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from scoresde.checks import check_range, door
from scoresde.guidance.between import check_alike
from scoresde.score import Wrapped, gradient
from scoresde.sde import Condition, Facts, Score, ask, facts, passes_of

__all__ = ["Classified", "classifier"]


class Classified(Wrapped):
    """Add the gradient of the log-probability `others[0]`, times a scale, to a score."""

    def __init__(self, score: Score, log_prob: Callable[..., Tensor], scale: float) -> None:
        super().__init__(score, log_prob)
        check_range("scale", scale, "(-inf, inf)")
        self.scale = float(scale)

    @property
    def facts(self) -> Facts:
        """Return the facts of the score, with the conditions and passes of the classifier added."""
        known, other = super().facts, facts(self.others[0])
        conditions = None
        if known.conditions is not None and other.conditions is not None:
            conditions = {**known.conditions, **other.conditions}
        return replace(
            known,
            passes=self._passes,
            conditions=conditions,
            density=known.density if self.scale in (0, 1) else False,
        )

    def __call__(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the score `(B, *)`."""
        given = None if condition is None else Condition(condition)
        log_prob, names = self.others[0], facts(self.others[0]).conditions
        rest = given.without(*names) if given and names else given
        score = self.ask(self.score, x, t, rest)
        declared = given.only(names) if given and names else None
        if self.scale == 0 or (names and declared is None):
            return score
        value = lambda x, t, y: ask(log_prob, x, t, y)  # noqa: E731
        if declared is None or not names:
            return score + self.scale * gradient("a log-probability", value, x, t, given)
        lost = torch.stack([names[name].missing(v) for name, v in declared.items()]).all(0)
        filled = {name: _without(lost, value) for name, value in declared.items()}
        pull = gradient("a log-probability", value, x, t, Condition({**(given or {}), **filled}))
        return score + self.scale * _without(lost, pull)

    def _passes(self, ratio: Tensor) -> int:
        """Return the network passes of a call at noise scales sigma / alpha."""
        passes = passes_of(self.score, ratio)
        return passes if self.scale == 0 else passes + passes_of(self.others[0], ratio)


def _without(rows: Tensor, value: Tensor) -> Tensor:
    """Return the tensor `(B, *)` with these rows set to zero."""
    return value.masked_fill(rows.reshape(-1, *(1,) * (value.ndim - 1)), 0)


@door
def classifier(score: Score, log_prob: Callable[..., Tensor], scale: float) -> Wrapped:
    r"""Return a score guided by a classifier of noisy states.

    $$ s = s(x, t) + w\,\nabla_x \log p(y \mid x, t) $$

    (Song et al. 2021, section 5, arXiv:2011.13456; Dhariwal & Nichol 2021, arXiv:2105.05233). At
    $w = 1$ and with the exact $p(y \mid x_t)$ this is Bayes' rule.

    Args:
        score: A score, such as an unconditional one.
        log_prob: A function or module that returns $\log p(y \mid x, t)$, `(B,)`, of
            `(x, t, condition)`, or of `(x, t)` if no condition is given. Autograd must be able to
            differentiate it in x. If it has an attribute `facts`, the conditions declared there are
            passed to the classifier and not to the score, and a sample for which all these
            conditions are missing is not guided. Without `facts` the classifier receives all
            conditions, and the score all that it takes.
        scale: $w$, finite: 0 for no guidance, 1 for Bayes' rule, above 1 for a sharper
            distribution.

    Raises:
        InvalidValueError: The scale is not finite, or score and classifier belong to different
            processes.
        ShapeError: Score and classifier belong to events of different shapes.

    Examples:
        >>> import scoresde, torch
        >>> score = scoresde.targets.Gaussian([0.0], std=1.0).at(scoresde.VPSDE())
        >>> right = lambda x, t: torch.nn.functional.logsigmoid(4 * x[:, 0])  # towards x > 0
        >>> x = scoresde.sample(classifier(score, right, 1.0), sampler="heun", n=50, seed=0)
        >>> bool((x > 0).double().mean() > 0.8)
        True
    """
    check_alike(score, log_prob, "the classifier")
    return Classified(score, log_prob, scale)

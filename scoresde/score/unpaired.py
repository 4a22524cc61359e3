r"""Use the network of a bridge that receives the state only, and not the end y of the bridge.

I2SB (Liu et al. 2023, arXiv:2302.05872) trains $D(x_t, t) = E[x_0 | x_t]$ on the states
$x_t = (1 - t) x_0 + t y + \sigma_t z$ of pairs, without y. The reverse SDE with the score of $D$
then gives the right marginal distribution of $x_0$, but not the joint distribution of $x_0$ and y.
Without noise, as along the probability flow, the marginal distribution is wrong too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from scoresde.checks import as_event, check_finite, door
from scoresde.errors import InvalidValueError
from scoresde.score.wrapped import Wrapped
from scoresde.sde import SDE, Condition, Facts, Field, Score

__all__ = ["Unpaired"]


class _End(Field):
    """Declare the end y of a bridge, of which every number is needed."""

    def check(self, name: str, value: Tensor) -> None:
        """Raise unless `value` is a floating-point tensor of finite numbers."""
        super().check(name, value)
        check_finite(f"condition {name!r}, the end of a bridge,", value)


class Unpaired(Wrapped):
    r"""Return the score of the residuals $r_t = x_t - y$, from a denoiser that receives only $x_t$.

    The score adds the condition `y` to the residuals, and subtracts it from the denoised state:

    $$ s(r, t) = \frac{\alpha_t (D(r + y, t) - y) - r}{\sigma_t^2}. $$

    Samplers that do not add the noise of the reverse SDE raise an error, and so do likelihoods. To
    use these, train a `ScoreModel` with y as a condition.

    Args:
        denoiser: A callable of states `(B, *)` and times `(B,)` that returns $E[x_0 | x_t]$, such
            as `lambda x, t: x - sigma(t) * network(x, t)` of a network of I2SB.
        sde: The process of the residuals, such as `BrownianBridgeSDE`.
        event_shape: The shape of one sample, without the batch; by default the shape in the
            denoiser's facts.

    Raises:
        InvalidValueError: A call has no condition `y`.
        NonFiniteError: A run, a loss or a likelihood is given a `y` with a NaN.

    Examples:
        >>> import scoresde, torch
        >>> from scoresde.samplers import Ancestral
        >>> sde = scoresde.BrownianBridgeSDE()
        >>> def denoiser(x, t):  # for independent ends, both N(0, I)
        ...     t = t[:, None]
        ...     return (1 - t) * x / (1 - t + t**2)
        >>> score = scoresde.score.Unpaired(denoiser, sde, event_shape=(2,))
        >>> y = {"y": [1.0, -0.5]}
        >>> r = scoresde.sample(score, sampler=Ancestral(), n=3, seed=0, condition=y)
    """

    @door
    def __init__(
        self, denoiser: Score, sde: SDE, *, event_shape: Sequence[int] | None = None
    ) -> None:
        super().__init__(denoiser)
        self.sde = sde
        self.event_shape = None if event_shape is None else as_event("event_shape", event_shape)

    @property
    def facts(self) -> Facts:
        """Return the facts of the denoiser, with `flow` and `density` False."""
        known = super().facts
        event = self.event_shape or known.event_shape
        conditions = None if event is None else {**(known.conditions or {}), "y": _End(event)}
        return replace(
            known, sde=self.sde, event_shape=event, conditions=conditions, density=False, flow=False
        )

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the score `(B, *)` of residuals."""
        if condition is None or "y" not in condition:
            raise InvalidValueError(
                "the score of a bridge's residuals needs the condition y; give condition={'y': y}"
            )
        y, rest = condition["y"].to(x), Condition(condition).without("y")
        alpha, sigma = self.sde.at(t, x)
        residual = self.ask(self.score, x + y, t, rest) - y
        return (alpha * residual - x) / sigma / sigma

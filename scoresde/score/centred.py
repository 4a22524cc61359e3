r"""Shift the states of a score by a function of time and condition.

A bridge to a known y has the states $x_t = \alpha_t x_0 + \beta_t y + \sigma_t z$. No SDE of
`scoresde.sde` has such states, but the centred states $u = x_t - \beta_t y$ follow an SDE of
`scoresde.sde` for the data distribution $p(x_0 | y)$.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from scoresde.checks import bind, check_floating, door
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.score.wrapped import Wrapped
from scoresde.sde import Score

__all__ = ["Centred"]

Shift = Callable[[Tensor, Mapping[str, Tensor]], Tensor]

# A shift at t = 0 counts as 0 if it is below this share of the shift at the times of the call.
_ROUNDING = 1e-5


class Centred(Wrapped):
    r"""Turn a score in x into a score in $u = x - \text{shift}(t, \text{condition})$.

    Both have the same value, $\nabla_u \log p_t(u) = \nabla_x \log p_t(x)$. Sampling, training and
    likelihoods then use the states u. Data are the same in u and x, since the shift is 0 at t = 0.

    For example DDBM-VP (Zhou et al. 2023, eq. 8, arXiv:2309.16948): let $\alpha$ and $\sigma$
    belong to a VP SDE, and $q_t = \alpha_T^2 \sigma_t^2 / (\sigma_T^2 \alpha_t^2)$. The shift is
    $q_t \alpha_t / \alpha_T\, y$, and the SDE of u has $\alpha_t (1 - q_t)$ and
    $\sigma_t \sqrt{1 - q_t}$.

    Args:
        score: The score in x. Its `facts` hold the SDE of u.
        shift: A function of times `(B,)` and the conditions. It returns a tensor that broadcasts to
            `(B, *)`, and 0 at t = 0, which is checked at every call.

    Raises:
        InvalidTypeError: The shift is not a function of t and the conditions.

    Examples:
        >>> import scoresde, torch
        >>> sde = scoresde.BrownianBridgeSDE()
        >>> law = scoresde.targets.Gaussian([1.0], std=0.5)
        >>> def bridge(x, t, condition):  # the score of (1 - t) x_0 + t y + sigma_t z
        ...     return law.score(x - t[:, None] * condition["y"], sde, t)
        >>> score = Centred(bridge, lambda t, condition: t[:, None] * condition["y"])
        >>> y = {"y": torch.ones(3, 1)}
        >>> x = scoresde.sample(score, sde, "heun", shape=(1,), n=3, seed=0, condition=y)
    """

    @door
    def __init__(self, score: Score, shift: Shift) -> None:
        super().__init__(score)
        with contextlib.suppress(ValueError):  # the function has no signature
            bind(shift, inspect.signature(shift), ("t", "condition"), {})
        self.shift = shift

    def __call__(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the score `(B, *)` of states u.

        Raises:
            InvalidValueError: The shift is not 0 at t = 0, or uses a condition that is not given.
            InvalidTypeError, ShapeError: The shift is not a tensor that broadcasts to the states.
        """
        centre = self._centre(x, t, condition)
        start = _largest(self._centre(x, torch.zeros_like(t), condition))
        if not start <= _ROUNDING * _largest(centre):
            raise InvalidValueError(
                f"the shift must be 0 at t = 0, where u = x_0, but is up to {float(start):.3g}; "
                "correct the shift"
            )
        return self.ask(self.score, x + centre, t, condition)

    def _centre(self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        try:
            value = self.shift(t, condition or {})
        except KeyError as error:
            raise InvalidValueError(
                f"the shift uses a condition {error}, which is not given; give it as condition="
            ) from error
        if not isinstance(value, Tensor):
            raise InvalidTypeError(f"the shift must return a tensor, got {type(value).__name__}")
        check_floating("the value of the shift", value)
        try:
            return value.to(x).expand_as(x)
        except RuntimeError as error:
            raise ShapeError(
                f"the shift must return the shape of the states, {tuple(x.shape)}, or a shape that "
                f"broadcasts to it; got {tuple(value.shape)}"
            ) from error


def _largest(value: Tensor) -> Tensor:
    """Return the largest absolute value, or 0 if there is none."""
    return value.detach().abs().amax() if value.numel() else value.new_zeros(())

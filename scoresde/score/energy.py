r"""Make a score from a scalar energy E, as $-\nabla_x E$."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from scoresde.attention import twice_differentiable
from scoresde.checks import door
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.sde import SDE, Facts, Moments

__all__ = ["EnergyScore", "gradient"]


class EnergyScore(nn.Module):
    r"""Return the score $-\nabla_x E(x, t)$ of the density $p_t \propto e^{-E(\cdot, t)}$.

    It can be trained and sampled like any other score. Unlike the output of a network it is a
    gradient by construction, and the energy gives $\log p_t$ up to a constant in x.

    Args:
        energy: A module or a function `(x, t) -> (B,)` of `x` `(B, *)` and `t` `(B,)`; with a
            condition, `(x, t, condition)`.
        sde: The process for which the energy is made, if any.
        event_shape: The shape of one sample, if known.
        moments: The data's moments, if known.

    Examples:
        >>> score = EnergyScore(lambda x, t: (x**2).sum(1) / 2)  # of standard normal data under VP
        >>> score(torch.ones(1, 2), torch.tensor([0.5])).detach()
        tensor([[-1., -1.]])
    """

    @door
    def __init__(
        self,
        energy: Callable[..., Tensor],
        sde: SDE | None = None,
        event_shape: Sequence[int] | None = None,
        *,
        moments: Moments | None = None,
    ) -> None:
        super().__init__()
        self.energy = energy
        self.sde = sde
        self.event_shape = None if event_shape is None else tuple(event_shape)
        self.moments = moments

    @property
    def facts(self) -> Facts:
        """Return the SDE, the shape of a sample, the moments, and that a call takes one pass."""
        return Facts(sde=self.sde, event_shape=self.event_shape, moments=self.moments, passes=1)

    def forward(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        r"""Return $-\nabla_x E(x, t)$, `(B, *)`; this works under `no_grad` too.

        While gradients are recorded, the result can be differentiated in x and in the weights.

        Raises:
            InvalidTypeError: The energy is not a floating-point tensor.
            ShapeError: The energy has another shape than `(B,)`.
            InvalidValueError: The energy does not depend on x, or has no gradient in x.
        """
        return -gradient("an energy", self._energy, x, t, condition)

    def log_prob(
        self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        r"""Return $-E(x, t)$, `(B,)`: $\log p_t(x)$ up to a constant in x, for MALA."""
        return -_checked("an energy", self._energy(x, t, condition), x)

    def _energy(self, x: Tensor, t: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        return self.energy(x, t) if condition is None else self.energy(x, t, condition)


def gradient(
    what: str,
    function: Callable[..., Tensor],
    x: Tensor,
    t: Tensor,
    condition: Mapping[str, Tensor] | None = None,
) -> Tensor:
    r"""Return $\nabla_x$ of a function with one value per sample, `(B, *)`, under `no_grad` too.

    While gradients are recorded, the result can be differentiated in x and in the weights.

    Args:
        what: The name of the function's value in error messages, such as "an energy".
        function: A function `(x, t, condition) -> (B,)`.
        x: States `(B, *)`.
        t: Times `(B,)`.
        condition: The third argument.

    Raises:
        InvalidTypeError: The value is not a floating-point tensor.
        ShapeError: The value has another shape than `(B,)`.
        InvalidValueError: The value does not depend on x, or has no gradient in x: it was computed
            under `no_grad` or `inference_mode`, or from `x.detach()`.
    """
    recording = torch.is_grad_enabled()
    with torch.enable_grad(), twice_differentiable(recording):
        at = x if recording and x.requires_grad else x.detach().requires_grad_()
        value = _checked(what, function(at, t, condition), x)
        found = None
        if value.requires_grad:
            (found,) = torch.autograd.grad(
                value.sum(), at, create_graph=recording, allow_unused=True
            )
        if found is None:
            raise InvalidValueError(
                f"{what} does not depend on x in a way that can be differentiated; "
                "remove no_grad and detach inside it, and torch.inference_mode around it"
            )
    return found


def _checked(what: str, value: Tensor, x: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        raise InvalidTypeError(f"{what} must be a tensor (B,), got {type(value).__name__}")
    if not value.is_floating_point():
        raise InvalidTypeError(f"{what} must be floating point, got {value.dtype}")
    if value.shape != x.shape[:1]:
        raise ShapeError(
            f"{what} must be one number per sample, of the shape ({len(x)},), got "
            f"{tuple(value.shape)}; sum over the event, or squeeze"
        )
    return value

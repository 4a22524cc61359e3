r"""Convert velocities of flow matching to scores (flow_matching, torchcfm and others).

In these libraries time runs from noise $x_0$ at $\tau = 0$ to data $x_1$ at $\tau = 1$,
$x_\tau = \tau x_1 + (1 - \tau) x_0$, and the network predicts $dx / d\tau$. In this package the
data are at $t = 0$, so $t = 1 - \tau$ and $dx / dt = -dx / d\tau$.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from scoresde.checks import door
from scoresde.score import NetworkScore, from_network
from scoresde.score.conventions import ReversedVelocity
from scoresde.sde import SDE, FlowSDE

__all__ = ["from_velocity"]


@door
def from_velocity(
    velocity: Callable[..., Tensor], sde: SDE | None = None, **known: Any
) -> NetworkScore:
    r"""Return the score that belongs to a velocity from noise at time 0 to data at time 1.

    $\nabla\log p_t(x) = (\tau v(x, \tau) - x) / (1 - \tau)$ with $\tau = 1 - t$ (Lipman et al.
    2023, arXiv:2210.02747).

    Args:
        velocity: A module or function `v(x, tau, **condition)` with `tau` of shape `(B,)`, trained
            on straight paths to independent noise. Wrap a torchcfm network, which is called as
            `v(tau, x)`, as `lambda x, tau: v(tau, x)`.
        sde: The process of the velocity; `FlowSDE()` by default.
        known: Further arguments of `from_network`: event_shape, moments, steps, transform,
            conditions.

    Examples:
        >>> import torch
        >>> score = from_velocity(lambda x, tau: -x, event_shape=(2,))
        >>> x, t = torch.ones(1, 2), torch.tensor([0.5])
        >>> score(x, t)
        tensor([[-3., -3.]])
    """
    sde = FlowSDE() if sde is None else sde
    return from_network(ReversedVelocity(velocity), sde, "flow", "1-t", **known)

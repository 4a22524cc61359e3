r"""Coordinates of the noise level, each a function of time that no schedule can tell apart.

All are functions of the ratio of noise to signal $\rho_t = \sigma_t / \alpha_t$, on which alone the
difficulty of denoising depends (Kingma et al. 2021, arXiv:2107.00630):

| name | value | used by |
| --- | --- | --- |
| `ratio` | $\rho = \sigma / \alpha$ | Karras's grid, the flow's samplers |
| `SDE.log_snr` | $\lambda = -2 \log\rho$ | the transition, the inverse `SDE.time` |
| `level` | $\ell = \lambda / 2 = -\log\rho$ | exponential multistep methods, the pilot |
| `network_level` | $c = \tfrac14 \log\rho$ | the input of networks |
| `angle` | $\varphi = \arctan\rho$ | adaptive solvers, likelihoods |

and with the angle goes the `scale` $\sqrt{\alpha^2 + \sigma^2}$ of the state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scoresde.sde.process import SDE

__all__ = [
    "REACH",
    "angle",
    "level",
    "level_range",
    "network_level",
    "ratio",
    "scale",
    "time_of_angle",
    "time_of_level",
]

REACH = 16.0
"""The largest distance of a level from the first that is told apart; no noise is infinitely far."""


def ratio(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\rho_t = \sigma_t / \alpha_t$, of the shape of `t`."""
    return sde.sigma(t) / sde.alpha(t)


def level(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\ell_t = \log(\alpha_t / \sigma_t)$, decreasing in `t`, of its shape."""
    return sde.log_snr(t) / 2


def network_level(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $c_t = \tfrac14 \log(\sigma_t / \alpha_t)$, what networks are told, like `t`."""
    return sde.log_snr(t) / -8


def level_range(sde: SDE) -> Tensor:
    r"""Return the levels $\ell$ at T and eps, `(2,)`.

    The last is at most `REACH` from the first, or from -REACH / 2 where that is larger.
    """
    ends = level(sde, torch.tensor([sde.T, sde.eps], dtype=torch.float64))
    # pure noise far before the data are seen at all would else use up the reach
    return torch.minimum(ends, ends[0].clamp(min=-REACH / 2) + REACH)


def time_of_level(sde: SDE, levels: Tensor) -> Tensor:
    """Return the times of `levels`, of any shape: the inverse of `level`."""
    return sde.time(2 * levels)


def angle(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\varphi_t = \arctan(\sigma_t / \alpha_t)$ in $(0, \pi/2)$, increasing, like `t`."""
    return torch.atan(torch.exp(-level(sde, t)))


def time_of_angle(sde: SDE, phi: Tensor) -> Tensor:
    """Return the times of the angles `phi`, of any shape: the inverse of `angle`."""
    return sde.time(-2 * torch.log(torch.tan(phi)))


def scale(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $c_t = \sqrt{\alpha_t^2 + \sigma_t^2}$, of the shape of `t`."""
    return (sde.alpha(t) ** 2 + sde.sigma(t) ** 2).sqrt()

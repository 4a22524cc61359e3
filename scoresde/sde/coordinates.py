r"""Compute coordinates of the noise level that mean the same under every noise schedule.

All are functions of the noise-to-signal ratio $\rho_t = \sigma_t / \alpha_t$. The difficulty of
denoising depends on this ratio alone (Kingma et al. 2021, arXiv:2107.00630).

| name | value | used by |
| --- | --- | --- |
| `ratio` | $\rho = \sigma / \alpha$ | Karras's grid, the flow's samplers |
| `SDE.log_snr` | $\lambda = -2 \log\rho$ | the transition, the inverse `SDE.time` |
| `half_log_snr` | $\ell = \lambda / 2 = -\log\rho$ | exponential multistep methods, the pilot |
| `c_noise` | $c = \tfrac14 \log\rho$ | the input of networks |
| `angle` | $\varphi = \arctan\rho$ | adaptive solvers, likelihoods |

The angle is used together with the `scale` $\sqrt{\alpha^2 + \sigma^2}$ of the state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde.checks import quoted
from scoresde.errors import InvalidValueError

if TYPE_CHECKING:
    from scoresde.sde.process import SDE

__all__ = [
    "REACH",
    "angle",
    "angle_range",
    "c_noise",
    "half_log_snr",
    "half_log_snr_range",
    "ratio",
    "scale",
    "time_of_angle",
    "time_of_half_log_snr",
]

_LARGEST_RATIO = 1e8

REACH = 16.0
"""The range of half log-SNR that grids cover at most, from the value at T or from -8, whichever is
larger. Without this limit the range would be infinite if sigma is 0 at eps."""


def ratio(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\rho_t = \sigma_t / \alpha_t$, of the shape of `t`."""
    return sde.sigma(t) / sde.alpha(t)


def half_log_snr(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\ell_t = \log(\alpha_t / \sigma_t)$, decreasing in `t`, of the shape of `t`."""
    return sde.log_snr(t) / 2


def c_noise(sde: SDE, t: Tensor) -> Tensor:
    r"""Return the noise input of networks, $\tfrac14 \log(\sigma_t / \alpha_t)$, shaped like `t`.

    Karras et al. (2022), table 1, arXiv:2206.00364, where $\alpha = 1$.
    """
    return sde.log_snr(t) / -8


def half_log_snr_range(sde: SDE) -> Tensor:
    r"""Return $\ell$ at T and eps, `(2,)`.

    The second value is limited to $\max(\ell_T, -\text{REACH} / 2) + \text{REACH}$.
    """
    ends = half_log_snr(sde, torch.tensor([sde.T, sde.eps], dtype=torch.float64))
    # without the clamp, the range would end at large noise if sigma at T is huge
    return torch.minimum(ends, ends[0].clamp(min=-REACH / 2) + REACH)


def time_of_half_log_snr(sde: SDE, ell: Tensor) -> Tensor:
    r"""Return the times at which $\ell_t$ is `ell`, of any shape: the inverse of `half_log_snr`."""
    return sde.time(2 * ell)


def angle(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\varphi_t = \arctan(\sigma_t / \alpha_t)$ in $[0, \pi/2)$, increasing in `t`."""
    return torch.atan(torch.exp(-half_log_snr(sde, t)))


def angle_range(sde: SDE, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the angles at two times, between which an adaptive solver may take its steps.

    Raises:
        InvalidValueError: $\sigma / \alpha$ is above 1e8 already at eps, where float64 no longer
            tells the angles of two noise levels apart.
    """
    least = float(ratio(sde, torch.tensor(sde.eps, dtype=torch.float64)))
    if least > _LARGEST_RATIO:
        raise InvalidValueError(
            f"sigma / alpha is {least:.3g} at eps of {quoted(sde)}, and adaptive solvers and "
            f"likelihoods need at most {_LARGEST_RATIO:g}; divide the data and sigma by the "
            "standard deviation of the data"
        )
    return angle(sde, t), angle(sde, s)


def time_of_angle(sde: SDE, phi: Tensor) -> Tensor:
    """Return the times of the angles `phi`, of any shape: the inverse of `angle`."""
    return sde.time(-2 * torch.log(torch.tan(phi)))


def scale(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $c_t = \sqrt{\alpha_t^2 + \sigma_t^2}$, of the shape of `t`."""
    return (sde.alpha(t) ** 2 + sde.sigma(t) ** 2).sqrt()

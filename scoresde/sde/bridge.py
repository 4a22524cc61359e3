r"""Define the Brownian bridge between two data distributions, given one of its two ends.

A bridge from $x_0$ to $y$ has the states $x_t = \alpha_t x_0 + \beta_t y + \sigma_t z$ with
$\sigma_1 = 0$. Given y, the centred states $u = x_t - \beta_t y$ follow an SDE of this package for
the data distribution $p(x_0 | y)$. If $\alpha + \beta = 1$, y itself can be subtracted:
$x_t - y = \alpha_t (x_0 - y) + \sigma_t z$ follows an SDE whose data are the residuals $x_0 - y$.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_range
from scoresde.errors import InvalidValueError
from scoresde.sde import spacings, time_laws
from scoresde.sde.process import SDE

__all__ = ["BrownianBridgeSDE"]

# The noise-to-signal ratio at T, and its inverse at eps.
_RATIO = 100.0
# The smallest distance of T from 1.
_NEAREST = 9e-7


class _FromS(float):
    """Mark a default T or eps, computed from s, so that `dataclasses.replace` recomputes it."""


@dataclass(frozen=True)
class BrownianBridgeSDE(SDE):
    r"""Define the Brownian bridge: $\alpha_t = 1 - t$, $\sigma_t^2 = s^2 t (1 - t)$.

    $$ dx = -\frac{x}{1 - t}\,dt + s\,dw $$

    Its data are residuals $r = x_0 - y$, and y is a condition of the score. Then $y + r_t =
    (1 - t) x_0 + t y + \sigma_t z$ is the bridge from $x_0$ to y of I2SB (Liu et al. 2023,
    arXiv:2302.05872, constant $\beta$), BBDM (Li et al. 2023, arXiv:2205.07680) and DDBM-VE
    (Zhou et al. 2023, arXiv:2309.16948). Wherever moments or a scale of the data are asked for,
    give the moments or the scale of r. Samples, losses and likelihoods refer to $p(r | y)$.

    Its noise-to-signal ratio is $s \sqrt{t / (1 - t)}$, by default from .01 at `eps` to 100 at `T`.
    The default grid is evenly spaced in the logarithm of the ratio, and the default training times
    are `Logistic`, which is uniform in t for s = 1.

    Args:
        s: The scale of the noise, positive; about the standard deviation of the residuals.

    Raises:
        InvalidValueError: A field is out of range, or T is above 1 - 9e-7.

    Examples:
        >>> sde = BrownianBridgeSDE()
        >>> a, v = sde.transition(0.25, 0.5)
        >>> print(f"r_t = {a:.4f} r_s + {v.sqrt():.4f} z")
        r_t = 0.6667 r_s + 0.4082 z
        >>> print(f"{sde.eps:.4f} {sde.T:.4f}")
        0.0001 0.9999
    """

    s: float = 1.0
    T: float = field(default=_FromS("nan"), kw_only=True)
    eps: float = field(default=_FromS("nan"), kw_only=True)

    spacing: ClassVar[spacings.Spacing] = spacings.LogSNR()
    time_law: ClassVar[time_laws.TimeLaw] = time_laws.Logistic()

    def __post_init__(self) -> None:
        check_fields(self)
        check_range("s", self.s, "(0, 1e150)")  # its square may not overflow
        for name, ratio in (("T", _RATIO), ("eps", 1 / _RATIO)):
            given, default = getattr(self, name), _FromS(1 / (1 + self.s**2 / ratio**2))
            # a default that was read from a file is no `_FromS`, so compare its value too
            if isinstance(given, _FromS) or given == default:
                object.__setattr__(self, name, default)
        if not 1 - self.T >= _NEAREST:
            raise InvalidValueError(
                f"BrownianBridgeSDE needs 1 - T >= {_NEAREST:g}, since a network takes times in "
                f"float32; got T = {self.T!r} for s = {self.s!r}; scale the data so that s is at "
                f"least {_RATIO * _NEAREST**0.5:.2g}, or give a smaller T"
            )
        super().__post_init__()

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return $\alpha_t = 1 - t$."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return $\sigma_t = s \sqrt{t (1 - t)}$."""
        return self.s * torch.sqrt(t * (1 - t))

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f = -1 / (1 - t)$, $g^2 = s^2$."""
        return -1 / (1 - t), torch.full_like(t, self.s**2)

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return $\log((1 - t) / t) - 2 \log s$."""
        return torch.log1p(-t) - torch.log(t) - 2 * math.log(self.s)

    def time(self, log_snr: Tensor) -> Tensor:
        r"""Return $1 / (1 + s^2 e^\lambda)$, the inverse of `log_snr`."""
        return 1 / (1 + self.s**2 * torch.exp(log_snr))

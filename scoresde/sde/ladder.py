r"""Define ladders, SDEs that are given by a table of noise levels.

A ladder has its levels at $t_i = i T / (L - 1)$ and interpolates its table linearly in the
log signal-to-noise ratio between them, so that it has every method of an SDE.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scoresde.checks import check_increasing, check_integer, door, quoted
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.sde.process import SDE

__all__ = ["BetaLadder", "NCSNLadder"]


@dataclass(frozen=True)
class _Table(SDE):
    """Define an SDE by the values of its log signal-to-noise ratio at L levels."""

    eps: float = field(default=0.0, kw_only=True)
    levels: int | None = field(default=None, init=False)

    @abc.abstractmethod
    def _knots(self) -> Tensor:
        """Return the log signal-to-noise ratio at the levels, decreasing, float64 `(L,)`."""

    @cached_property
    def _table(self) -> NDArray[np.float64]:
        # as an array, since a tensor made in inference mode could not be used in autograd later
        return self._knots().numpy()

    def _set_levels(self, name: str) -> None:
        """Convert the field `name` to a tuple of floats, one for each level, and set `levels`."""
        given = getattr(self, name)
        try:
            if isinstance(given, str) or any(
                isinstance(value, (str, bytes, bool)) for value in given
            ):
                raise TypeError("a string or a bool")
            values = tuple(float(value) for value in given)
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(f"{name} must be numbers, got {quoted(given)}") from error
        object.__setattr__(self, name, values)
        if len(values) < 2:
            raise InvalidValueError(f"a ladder needs at least 2 levels, got {len(values)} {name}")
        object.__setattr__(self, "levels", len(values))
        super().__post_init__()
        if self.eps != 0:
            raise InvalidValueError(f"a ladder ends at its first level, eps = 0; got {self.eps}")

    def _check_levels(self, name: str) -> None:
        """Raise InvalidValueError unless the log signal-to-noise ratio falls at each level."""
        if not (np.diff(self._table) < 0).all():
            raise InvalidValueError(
                f"two neighbouring levels are equal in float64; remove some {name}"
            )

    def _interpolate(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log signal-to-noise ratio at t and its slope, in the dtype of t."""
        knots = torch.from_numpy(self._table).to(t)
        last = len(knots) - 1
        position = t / self.T * last
        i = position.detach().floor().long().clamp(0, last - 1)
        rise = knots[i + 1] - knots[i]
        return knots[i] + (position - i) * rise, rise * last / self.T

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return $\lambda_t$, interpolated linearly in the table, of the shape of `t`."""
        return self._interpolate(t)[0]

    def time(self, log_snr: Tensor) -> Tensor:
        """Return the inverse of `log_snr`."""
        knots = torch.from_numpy(self._table).to(log_snr)
        last = len(knots) - 1
        i = torch.searchsorted(-knots, -log_snr.contiguous(), right=True).sub(1).clamp(0, last - 1)
        return self.T * (i + (log_snr - knots[i]) / (knots[i + 1] - knots[i])) / last


@dataclass(frozen=True)
class NCSNLadder(_Table):
    r"""Define the levels of a noise-conditional score network, $\sigma_0 < \dots < \sigma_{L-1}$.

    $\alpha = 1$ and $\log\sigma_t$ is linear between the levels, at the times $t_i = iT/(L-1)$
    (Song & Ermon 2019, arXiv:1907.05600, who number the levels from the largest down). A geometric
    ladder has the same times, marginals and transitions as `VESDE(levels=L)`.

    Args:
        sigmas: The levels, positive and increasing; at least two.

    Examples:
        >>> sde = NCSNLadder(sigmas=(0.01, 0.1, 1.0))
        >>> print([round(t, 2) for t in sde.times().tolist()])
        [1.0, 0.5, 0.0]
        >>> NCSNLadder.geometric(0.01, 1.0, 3).same_process(sde)
        True
    """

    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        self._set_levels("sigmas")
        below = 0.0
        for i, sigma in enumerate(self.sigmas):
            if not below < sigma < math.inf:
                raise InvalidValueError(
                    "sigmas must be positive, finite and strictly increasing, but "
                    f"sigmas[{i}] = {sigma}; got {quoted(self.sigmas)}"
                )
            below = sigma
        self._check_levels("sigmas")

    @classmethod
    @door
    def geometric(cls, sigma_min: float, sigma_max: float, levels: int) -> NCSNLadder:
        r"""Return the ladder $\sigma_i = \sigma_\min (\sigma_\max / \sigma_\min)^{i/(L-1)}$.

        Args:
            sigma_min: The smallest level, positive.
            sigma_max: The largest level.
            levels: The number of levels L, at least two.
        """
        check_increasing(sigma_min=sigma_min, sigma_max=sigma_max)
        check_integer("levels", levels, 2)
        ratio = sigma_max / sigma_min
        return cls(tuple(sigma_min * ratio ** (i / (levels - 1)) for i in range(levels)))

    def _knots(self) -> Tensor:
        return -2 * torch.tensor(self.sigmas, dtype=torch.float64, device="cpu").log()

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return $\alpha_t = 1$."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return $\sigma_t$, log-linear between the levels."""
        return torch.exp(-self.log_snr(t) / 2)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f = 0$, $g^2 = -\sigma_t^2 \frac{d\lambda}{dt}$."""
        log_snr, slope = self._interpolate(t)
        return torch.zeros_like(t), -slope * torch.exp(-log_snr)


@dataclass(frozen=True)
class BetaLadder(_Table):
    r"""Define DDPM's table of betas: $\bar\alpha_i = \prod_{j \le i} (1 - \beta_j)$.

    Variance preserving: $\alpha^2 = \bar\alpha$, $\sigma^2 = 1 - \bar\alpha$ at the levels, linear
    in log-SNR between them (Ho et al. 2020, arXiv:2006.11239). With $\beta_i = \beta(i/N)/N$ it
    equals `VPSDE` up to $O(1/N)$.

    Args:
        betas: The variances added at each level, in (0, 1); at least two.

    Examples:
        >>> sde = BetaLadder(torch.linspace(1e-4, 0.02, 1000))
        >>> sde.levels
        1000
        >>> print(f"{sde.alpha(torch.tensor(sde.T)):.4f}")
        0.0064
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        self._set_levels("betas")
        for i, beta in enumerate(self.betas):
            if not 0 < beta < 1:
                raise InvalidValueError(
                    f"betas must lie in (0, 1), but betas[{i}] = {beta}: a beta of 1 removes all "
                    "signal, and a beta of 0 adds no noise; clip the table, for example to [1e-6, "
                    f"0.999]; got {quoted(self.betas)}"
                )
        self._check_levels("betas")

    @property
    def prior_std(self) -> float:
        """Return 1, the std of the standard normal distribution to which the process converges."""
        return 1.0

    def _knots(self) -> Tensor:
        log_alpha_bar = torch.log1p(
            -torch.tensor(self.betas, dtype=torch.float64, device="cpu")
        ).cumsum(0)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return $\alpha_t = \sqrt{\bar\alpha_t}$."""
        # torch.sigmoid rounds an entry differently at different places of the vector; exp does not
        return (1 + torch.exp(-self.log_snr(t))).rsqrt()

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return $\sigma_t = \sqrt{1 - \bar\alpha_t}$."""
        return (1 + torch.exp(self.log_snr(t))).rsqrt()

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f = -g^2 / 2$, $g^2 = -\sigma_t^2 \frac{d\lambda}{dt}$."""
        log_snr, slope = self._interpolate(t)
        g2 = -slope / (1 + torch.exp(log_snr))
        return -0.5 * g2, g2

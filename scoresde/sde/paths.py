r"""Define the SDEs of the literature, each by closed forms of $\alpha_t$ and $\sigma_t$."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import check_increasing
from scoresde.errors import InvalidValueError
from scoresde.sde import spacings, time_laws
from scoresde.sde.process import SDE

__all__ = ["EDMSDE", "VESDE", "VPSDE", "CosineSDE", "FlowSDE", "SubVPSDE"]


@dataclass(frozen=True)
class VESDE(SDE):
    r"""Define the variance-exploding SDE: $\alpha = 1$, $\sigma_t$ geometric in time.

    $$ \sigma_t = \sigma_\min (\sigma_\max / \sigma_\min)^{t/T}, \qquad
       dx = \sigma_t \sqrt{2 \log(\sigma_\max / \sigma_\min) / T}\,dw $$

    Song et al. (2021), eq. 30, arXiv:2011.13456. The state at $t = 0$ is the data plus noise of
    standard deviation $\sigma_\min$; the SDE adds only the rest of the noise. With `levels=L` it is
    the geometric NCSN ladder of Song & Ermon (2019), arXiv:1907.05600.

    Args:
        sigma_min: The smallest noise level, positive.
        sigma_max: The largest noise level, above `sigma_min`; about the largest distance between
            two data points (Song & Ermon 2020, technique 1, arXiv:2006.09011).

    Examples:
        >>> sde = VESDE(sigma_min=0.01, sigma_max=50.0)
        >>> x = sde.perturb(torch.zeros(4, 2), t=0.5, noise=torch.ones(4, 2))
        >>> print(f"{x[0, 0]:.4f}")
        0.7071
        >>> len(VESDE(levels=30).times())  # the NCSN ladder of 30 levels
        30
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    eps: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_increasing(sigma_min=self.sigma_min, sigma_max=self.sigma_max)

    @property
    def _rate(self) -> float:
        return math.log(self.sigma_max / self.sigma_min) / self.T

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return $\alpha_t = 1$."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return $\sigma_t = \sigma_\min (\sigma_\max / \sigma_\min)^{t/T}$."""
        return self.sigma_min * torch.exp(self._rate * t)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f = 0$, $g^2 = 2 \sigma_t^2 \log(\sigma_\max / \sigma_\min) / T$."""
        return torch.zeros_like(t), 2 * self._rate * self.sigma(t) ** 2

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return $-2 \log \sigma_t$, linear in time."""
        return -2 * (math.log(self.sigma_min) + self._rate * t)

    def time(self, log_snr: Tensor) -> Tensor:
        """Return the inverse of `log_snr`."""
        return (-log_snr / 2 - math.log(self.sigma_min)) / self._rate


@dataclass(frozen=True)
class VPSDE(SDE):
    r"""Define the variance-preserving SDE: $\alpha_t = e^{-B/2}$, $\sigma_t^2 = 1 - e^{-B}$.

    $$ dx = -\tfrac12 \beta(t) x\,dt + \sqrt{\beta(t)}\,dw, \qquad
       \beta(t) = \beta_\min + t\,(\beta_\max - \beta_\min), \qquad B(t) = \int_0^t \beta $$

    Song et al. (2021), eqs. 32-33, arXiv:2011.13456; the limit of DDPM for many steps (Ho et al.
    2020, arXiv:2006.11239), whose table of betas is `BetaLadder`. The prior is $\mathcal N(0, I)$.

    Args:
        beta_min: $\beta(0)$, positive.
        beta_max: $\beta(1)$, at least `beta_min`.

    Examples:
        >>> sde = VPSDE()
        >>> alpha, sigma = sde.at(1.0, torch.zeros(4, 2))
        >>> print(f"alpha {alpha:.4f}, sigma {sigma:.4f}")
        alpha 0.0066, sigma 1.0000
        >>> print([round(t, 3) for t in sde.times(3).tolist()])
        [1.0, 0.667, 0.334, 0.001]
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.beta_min <= self.beta_max:
            raise InvalidValueError(
                "need 0 < beta_min <= beta_max (beta_min must be > 0), "
                f"got beta_min = {self.beta_min}, beta_max = {self.beta_max}"
            )

    @property
    def prior_std(self) -> float:
        """Return 1, for the standard normal to which the process converges."""
        return 1.0

    def beta(self, t: Tensor) -> Tensor:
        r"""Return $\beta(t)$, the rate at which variance is added."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def beta_integral(self, t: Tensor) -> Tensor:
        r"""Return $B(t) = \beta_\min t + \tfrac12 (\beta_\max - \beta_\min) t^2$."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return $\alpha_t = e^{-B/2}$."""
        return torch.exp(-0.5 * self.beta_integral(t))

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return $\sigma_t = \sqrt{1 - e^{-B}}$."""
        return torch.sqrt(-torch.expm1(-self.beta_integral(t)))

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f = -\beta / 2$, $g^2 = \beta$."""
        beta = self.beta(t)
        return -0.5 * beta, beta

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return $-\log(e^{B} - 1)$."""
        return -torch.log(torch.expm1(self.beta_integral(t)))

    def time(self, log_snr: Tensor) -> Tensor:
        r"""Return the inverse of `log_snr`, through $B = \log(1 + e^{-\lambda})$."""
        # softplus rounds an entry differently at different places of the vector; exp and log1p do
        # not
        integral = torch.log1p(torch.exp(-log_snr.abs())) + (-log_snr).clamp(min=0)
        return self._time_of(integral)

    def _time_of(self, integral: Tensor) -> Tensor:
        """Return the t with B(t) = integral, by a formula without cancellation."""
        slope = self.beta_max - self.beta_min
        return 2 * integral / (self.beta_min + (self.beta_min**2 + 2 * slope * integral).sqrt())


@dataclass(frozen=True)
class SubVPSDE(VPSDE):
    r"""Define the sub-variance-preserving SDE: $\alpha_t = e^{-B/2}$, $\sigma_t = 1 - e^{-B}$.

    $dx = -\tfrac12 \beta x\,dt + \sqrt{\beta (1 - e^{-2B})}\,dw$ (Song et al. 2021, eq. 34,
    arXiv:2011.13456). Its mean is the mean of the VP SDE, and its variance is the square of the
    variance of the VP SDE, so it is not larger. Near t = 0 its $\sigma_t$ is proportional to $t$,
    while $\sigma_t$ of the VP SDE is proportional to $\sqrt t$; therefore `eps` is larger here.

    Examples:
        >>> t = torch.tensor(0.2)
        >>> print(f"{SubVPSDE().sigma(t):.4f} = {VPSDE().sigma(t):.4f}^2")
        0.3416 = 0.5845^2
    """

    eps: float = field(default=0.027, kw_only=True)

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return $\sigma_t = 1 - e^{-B}$."""
        return -torch.expm1(-self.beta_integral(t))

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f = -\beta / 2$, $g^2 = \beta (1 - e^{-2B})$."""
        beta = self.beta(t)
        return -0.5 * beta, -beta * torch.expm1(-2 * self.beta_integral(t))

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return $-2 \log(2 \sinh(B / 2))$."""
        # torch.sinh rounds an entry differently at different places of the vector; expm1 does not
        integral = self.beta_integral(t)
        return -integral - 2 * torch.log(-torch.expm1(-integral))

    def time(self, log_snr: Tensor) -> Tensor:
        r"""Return the inverse of `log_snr`, through $B = 2 \sinh^{-1}(e^{-\lambda/2} / 2)$."""
        return self._time_of(2 * torch.asinh(torch.exp(-log_snr / 2) / 2))


@dataclass(frozen=True)
class CosineSDE(SDE):
    r"""Define the cosine SDE: $\alpha_t = \cos(\pi t / 2)$, $\sigma_t = \sin(\pi t / 2)$.

    Variance preserving: Nichol & Dhariwal (2021), arXiv:2102.09672, in the form of Salimans & Ho
    (2022), arXiv:2202.00512. It stops at `T` = 0.992, since samplers divide by $\alpha_T$.

    Examples:
        >>> sde = CosineSDE()
        >>> f, g2 = sde.coefficients(torch.tensor(0.5))
        >>> print(f"dx = {f:.4f} x dt + sqrt({g2:.4f}) dw")
        dx = -1.5708 x dt + sqrt(3.1416) dw
    """

    T: float = field(default=0.992, kw_only=True)
    eps: float = field(default=0.0064, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.T < 1:
            raise InvalidValueError(f"CosineSDE needs T < 1, where alpha is positive; got {self.T}")

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return $\alpha_t = \cos(\pi t / 2)$."""
        return torch.cos(math.pi / 2 * t)

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return $\sigma_t = \sin(\pi t / 2)$."""
        return torch.sin(math.pi / 2 * t)

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f = -\frac\pi2 \tan(\pi t / 2)$, $g^2 = \pi \tan(\pi t / 2)$."""
        tan = torch.tan(math.pi / 2 * t)
        return -math.pi / 2 * tan, math.pi * tan

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return $-2 \log \tan(\pi t / 2)$."""
        # not the logarithm of `torch.tan`, which runtimes of ONNX files do not have in float64
        return 2 * (torch.log(self.alpha(t)) - torch.log(self.sigma(t)))

    def time(self, log_snr: Tensor) -> Tensor:
        """Return the inverse of `log_snr`."""
        return 2 / math.pi * torch.atan(torch.exp(-log_snr / 2))


@dataclass(frozen=True)
class EDMSDE(SDE):
    r"""Define the SDE of EDM: $\alpha_t = 1$, $\sigma_t = t$, so that $dx = \sqrt{2t}\,dw$.

    Karras et al. (2022), table 1, arXiv:2206.00364, with their times $[.002, 80]$, their grid
    ($\rho = 7$) and their distribution of the training times
    ($\log\sigma \sim \mathcal N(-1.2, 1.2^2)$).

    Examples:
        >>> print([round(t, 3) for t in EDMSDE().times(4).tolist()])
        [80.0, 17.528, 2.515, 0.17, 0.002]
    """

    T: float = field(default=80.0, kw_only=True)
    eps: float = field(default=0.002, kw_only=True)

    spacing: ClassVar[spacings.Spacing] = spacings.Karras()
    time_law: ClassVar[time_laws.TimeLaw] = time_laws.LogNormal()

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return $\alpha_t = 1$."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return $\sigma_t = t$."""
        return t.clone()

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f = 0$, $g^2 = 2 t$."""
        return torch.zeros_like(t), 2 * t

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return $-2 \log t$."""
        return -2 * torch.log(t)

    def time(self, log_snr: Tensor) -> Tensor:
        """Return the inverse of `log_snr`."""
        return torch.exp(-log_snr / 2)


@dataclass(frozen=True)
class FlowSDE(SDE):
    r"""Define the SDE of flow matching with straight paths: $\alpha_t = 1 - t$, $\sigma_t = t$.

    Lipman et al. (2023), arXiv:2210.02747; Liu et al. (2023), arXiv:2209.03003, written as a
    diffusion with $f = -1/(1 - t)$, $g^2 = 2t/(1 - t)$. It stops at `T` = 0.999, since samplers
    divide by $\alpha_T$; its grid is uniform in log-SNR.

    Examples:
        >>> sde = FlowSDE()
        >>> x = sde.perturb(torch.ones(4, 2), t=0.25, noise=torch.zeros(4, 2))
        >>> print(f"{x[0, 0]:.2f}")
        0.75
    """

    T: float = field(default=0.999, kw_only=True)
    eps: float = field(default=0.01, kw_only=True)

    spacing: ClassVar[spacings.Spacing] = spacings.LogSNR()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.T < 1:
            raise InvalidValueError(f"FlowSDE needs T < 1, where alpha is positive; got {self.T}")

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return $\alpha_t = 1 - t$."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return $\sigma_t = t$."""
        return t.clone()

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return $f = -1 / (1 - t)$, $g^2 = 2 t / (1 - t)$."""
        return -1 / (1 - t), 2 * t / (1 - t)

    def log_snr(self, t: Tensor) -> Tensor:
        r"""Return $2 \log((1 - t) / t)$."""
        return 2 * (torch.log1p(-t) - torch.log(t))

    def time(self, log_snr: Tensor) -> Tensor:
        """Return the inverse of `log_snr`."""
        return 1 / (1 + torch.exp(log_snr / 2))

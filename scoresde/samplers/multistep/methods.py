"""Define the exponential multistep methods of the literature as special cases of one integrator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.checks import check_range
from scoresde.errors import InvalidValueError
from scoresde.samplers.multistep.integrator import ExponentialMultistep
from scoresde.samplers.multistep.interpolation import (
    Interpolation,
    Midpoint,
    PolynomialInNoise,
    PolynomialInTime,
)
from scoresde.sde import SDE, Moments

__all__ = ["DEIS", "ERSDE", "DPMSolverPP", "SASolver", "TauMultistep", "UniPC"]


@dataclass(frozen=True)
class TauMultistep(ExponentialMultistep):
    r"""Sample by exponential multistep methods with a constant stochasticity $\tau$.

    Args:
        order: The number of residuals that a step uses, 1 to 6.
        corrector: The number of residuals that the corrector uses besides the newest residual, up
            to 6; 0 for no corrector.
        tau: $\tau \ge 0$: 0 is the probability flow, 1 the reverse SDE.
        window: The noise-to-signal ratios $\sigma/\alpha$ between which noise is added.
    """

    order: int = 2
    corrector: int = 0
    tau: float = 0.0
    window: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("order", self.order, "[1, 6]")
        check_range("corrector", self.corrector, "[0, 6]")
        check_range("tau", self.tau, "[0, inf)")
        if not 0 <= self.window[0] <= self.window[1]:
            raise InvalidValueError(f"window needs 0 <= low <= high, got {self.window}")

    @property
    def stochastic(self) -> bool:
        """Return True if `tau` > 0."""
        return self.tau > 0

    @property
    def conditional(self) -> bool:
        """Return True if `tau` is 1 and the window has all noise levels."""
        return super().conditional and self.window == (0.0, math.inf)

    def log_phi(self, rho: Tensor, log_u: Tensor, ends: Tensor) -> Tensor:
        r"""Return $(1 + \tau^2) \log U$."""
        return self.rate(rho, ends) * log_u

    def rate(self, rho: Tensor, ends: Tensor) -> Tensor:
        r"""Return $1 + w \tau^2$, where w is the share of the step inside the window."""
        return 1 + self.noise(ends)

    def noise(self, ends: Tensor) -> Tensor:
        r"""Return $w \tau^2$, with the share w of each step that is inside the window.

        Args:
            ends: The noise-to-signal ratios at the start and the end of each step, `(..., 2)`.
        """
        low, high = self.window
        start, end = ends[..., :1], ends[..., 1:]
        inside = (start.clamp(max=high) / end.clamp(min=low)).log().clamp(min=0)
        whole = (start / end).log()
        return self.tau**2 * torch.where(whole > 0, inside / whole, 0.0)


@dataclass(frozen=True)
class DPMSolverPP(TauMultistep):
    r"""Sample by multistep DPM-Solver++, or by SDE-DPM-Solver++ with `tau` = 1.

    Order 2 uses the line through two data predictions, taken at the middle of the step, as
    published. Order 3 integrates the parabola exactly. The published code takes half of the second
    difference instead, and converges only with order 2. Lu et al. (2022), arXiv:2211.01095,
    algorithm 2 and appendix B.
    """

    def interpolation(self, sde: SDE, moments: Moments | None) -> Interpolation:
        """Return a polynomial in the log-SNR; a line is replaced by its value at the midpoint."""
        return Midpoint()


@dataclass(frozen=True)
class UniPC(TauMultistep):
    r"""Sample by UniPC: a multistep predictor, and a free corrector whose order is higher by one.

    Zhao et al. (2023), arXiv:2302.04867, with $B(h) = e^h - 1$ and data prediction. A predictor of
    order p uses p residuals. The corrector uses these and the residual at the end of the step.
    """

    order: int = 3
    corrector: int = 3

    def interpolation(self, sde: SDE, moments: Moments | None) -> Interpolation:
        """Return a polynomial in the log-SNR; a line is replaced by its value at the midpoint."""
        return Midpoint()


@dataclass(frozen=True)
class SASolver(TauMultistep):
    r"""Sample by SA-Solver: a stochastic Adams predictor and corrector of data prediction.

    Xue et al. (2023), algorithm 1, arXiv:2309.05019, with $\tau$ = 1 at the noise levels of their
    experiments, $\sigma/\alpha \in [.05, 1]$.
    """

    order: int = 3
    corrector: int = 3
    tau: float = 1.0
    window: tuple[float, float] = (0.05, 1.0)


@dataclass(frozen=True)
class DEIS(TauMultistep):
    r"""Sample by DEIS (tAB), which integrates a polynomial in time of the predicted noise exactly.

    Zhang & Chen (2023), section 3, arXiv:2204.13902. Here the order is the number of evaluations
    that a step uses; the paper calls this number minus one the order.
    """

    order: int = 3

    def gaussian(self, sde: SDE, moments: Moments | None) -> Moments:
        """Return a Gaussian far wider than the noise, which gives noise prediction."""
        end = torch.tensor(sde.T, dtype=torch.float64)
        return Moments(0.0, var=1e30 * torch.exp(-sde.log_snr(end)))

    def interpolation(self, sde: SDE, moments: Moments | None) -> Interpolation:
        """Return a polynomial in time."""
        return PolynomialInTime(sde)


@dataclass(frozen=True)
class ERSDE(ExponentialMultistep):
    r"""Sample by ER-SDE-Solver, with $\varphi(\rho) = \rho\,(e^{\rho^{0.3}} + 10)$.

    Cui et al. (2023), arXiv:2309.06169, with the fifth noise scale of the paper. A polynomial in
    $\rho$ interpolates the data prediction and is integrated exactly.

    Args:
        order: The number of residuals that a step uses, 1 to 3.
    """

    conditional = False
    order: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("order", self.order, "[1, 3]")

    @property
    def stochastic(self) -> bool:
        """Return True."""
        return True

    def interpolation(self, sde: SDE, moments: Moments | None) -> Interpolation:
        r"""Return a polynomial in $\rho$."""
        return PolynomialInNoise()

    def log_phi(self, rho: Tensor, log_u: Tensor, ends: Tensor) -> Tensor:
        r"""Return $\log\rho + \log(e^{\rho^{0.3}} + 10)$."""
        return rho.log() + torch.logaddexp(rho**0.3, rho.new_tensor(10.0).log())

    def rate(self, rho: Tensor, ends: Tensor) -> Tensor:
        r"""Return the slope of $\log\varphi$ in $\log\rho$, since $U = \rho$."""
        power = rho**0.3
        return 1 + 0.3 * power * torch.sigmoid(power - math.log(10))

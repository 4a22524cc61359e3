r"""Sample by exponential Runge-Kutta methods of data prediction, with two evaluations per step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.checks import check_range
from scoresde.samplers.sampler import NoiseLike, Sampler
from scoresde.sde import SDE, Moments, ReverseSDE
from scoresde.sde.coordinates import half_log_snr
from scoresde.sde.spacings import even_times

__all__ = ["TwoStage"]


@dataclass(frozen=True)
class TwoStage(Sampler):
    r"""Sample by DPM-Solver++(2S), or by SEEDS-2 with `tau` = 1.

    Let $y = x/\alpha$, $\ell = \log(\alpha/\sigma)$, $h = \ell_s - \ell_t$ and $k = 1 + \tau^2$.
    The first stage ends at $\ell_m = \ell_t + r h$,

    $$ y_m = e^{-k r h} y_t + (1 - e^{-k r h}) D_t + \rho_m \sqrt{1 - e^{-2\tau^2 r h}}\, z_1, $$

    and the step uses the denoised states $D_t$ and $D_m$ at both times,

    $$ y_s = e^{-k h} y_t + (1 - e^{-k h}) \Big[\big(1 - \tfrac{1}{2r}\big) D_t
       + \tfrac{1}{2r} D_m\Big] + n, $$

    where the noise $n$ contains the noise $z_1$ of the first stage and an independent part. The
    second evaluation is between the times of the grid. Lu et al. (2022), algorithm 1,
    arXiv:2211.01095; Gonzalez et al. (2023), arXiv:2305.14267.

    Args:
        r: The position of the second evaluation in the step, in (0, 1].
        tau: $\tau \ge 0$: 0 is the probability flow, 1 the reverse SDE.
    """

    steps: ClassVar[int] = 20
    nfe_per_step = 2
    order = 2
    r: float = 0.5
    tau: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("r", self.r, "(0, 1]")
        check_range("tau", self.tau, "[0, inf)")

    @property
    def stochastic(self) -> bool:
        """Return True if `tau` > 0."""
        return self.tau > 0

    @property
    def between(self) -> bool:
        """Return True if the second evaluation is before the end of the step."""
        return self.r < 1

    def times(self, sde: SDE, steps: int | None, moments: Moments | None = None) -> Tensor:
        """Return a grid even in log-SNR, `(steps + 1,)`; on a ladder the levels nearest to it."""
        return even_times(sde, steps)

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_s from the draw `x` of p_t."""
        sde, k = rsde.sde, 1 + self.tau**2
        start, end = float(half_log_snr(sde, t)), float(half_log_snr(sde, s))
        # without noise at s the step in l is infinite; then the first stage has a finite length
        middle = start + self.r * (end - start if math.isfinite(end) else 8.0)
        m = sde.time(torch.tensor(2 * middle, dtype=torch.float64)).clamp(s, t)
        y, (alpha_m, alpha_s) = x / float(sde.alpha(t)), sde.alpha(torch.stack((m, s))).tolist()
        first = rsde.denoise(x, t)
        y_m = torch.lerp(first, y, math.exp(-k * (middle - start)))
        n = torch.zeros_like(y)
        if self.tau:
            n = _spread(self.tau, start, middle) * noise.normal(x, t)
        second = rsde.denoise(alpha_m * (y_m + n), m)
        mean = torch.lerp(first, second, 0.5 / self.r)
        y_s = torch.lerp(mean, y, math.exp(-k * (end - start)))
        if self.tau:
            n = math.exp(-k * (end - middle)) * n
            n = n + _spread(self.tau, middle, end) * noise.normal(x, t, 1)
        out: Tensor = alpha_s * (y_s + n)
        return out


def _spread(tau: float, start: float, end: float) -> float:
    r"""Return $\rho_s \sqrt{1 - e^{-2\tau^2 h}}$."""
    return math.exp(-end) * math.sqrt(-math.expm1(-2 * tau**2 * max(end - start, 0.0)))

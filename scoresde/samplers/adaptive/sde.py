r"""Solve the reverse SDE with adaptive steps; two evaluations give a step and an error estimate.

In the variables of the probability flow (`scoresde.samplers.adaptive.ode`), $z = x / c_t$ with
velocity $u$ and angle $\varphi$, the drift of the reverse SDE is the drift of the
Ornstein-Uhlenbeck process with the stationary distribution $\mathcal N(0, I)$, plus twice the drift
of the flow. A step from $\varphi$ down to $\psi$ with the increment $\xi$ has two results,

$$ z' = a z - w\,u(z, \varphi) + \sqrt{1 - a^2}\,\xi, \qquad
   z'' = a z - w\,u(z', \psi) + \sqrt{1 - a^2}\,\xi, $$

$$ a = \frac{\cos\varphi}{\cos\psi}, \quad w = 2\,\frac{\sin\varphi - \sin\psi}{\cos\psi}, $$

whose difference is twice the error of the first result. The step takes the mean of both. This is
the stochastic Heun method, which has weak order 2 and is exact for standard normal data.

In few dimensions this error estimate is noisy, and sometimes small by chance. Steps chosen only by
the estimate would then be too long, and the samples too wide. So steps grow slowly, and stay short
until two successive estimates agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.errors import ConvergenceError
from scoresde.ode import check_ratio, nearest_factor, rms
from scoresde.samplers.adaptive.ode import velocity
from scoresde.samplers.sampler import Adaptive, NoiseLike
from scoresde.sde import ReverseSDE, expand
from scoresde.sde.coordinates import REACH, scale

__all__ = ["AdaptiveSDE"]

# The first step, and the longest step until two successive error estimates agree, in log-SNR.
_FIRST, _UNSETTLED = 0.1, 0.5
# Two error estimates agree if their ratio is at most this.
_AGREEMENT = 4.0
# The largest factor between a step and the accepted step before it.
_GROWTH = 1.5


@dataclass(frozen=True)
class AdaptiveSDE(Adaptive):
    r"""Solve the reverse SDE by adaptive stochastic Heun steps, with a step size for each sample.

    The method is that of Jolicoeur-Martineau et al. (2021), *Gotta Go Fast When Generating Data
    with Score-Based Models*, arXiv:2105.14080, with four changes:

    - The linear part is integrated exactly in the variables of the probability flow, so that the
      steps are the same for all SDEs.
    - The tolerance of a step is the sum of the relative and the absolute tolerance, not the larger
      of the two. The step size changes with the power 3/4 of the error, not 9/10.
    - A step grows by at most one half, does not grow after a rejected step, and stays below .5 in
      log-SNR until two accepted errors agree within a factor 4.
    - A rejected step is repeated with the increment of the same Brownian path over the shorter
      interval. To rescale the rejected increment would bias the samples.

    The seed determines the path, whatever the tolerance.

    Large tolerances make samples too wide, most of all in one dimension; see *Which sampler*.

    Args:
        rtol: The tolerance relative to $z$, positive.
        atol: The absolute tolerance of $z$, positive.
        max_nfe: The largest number of evaluations between two times of the grid, at least 2.

    Raises:
        InvalidValueError: A parameter is out of range, or a step falls below the resolution of the
            Brownian path.
        NonFiniteError: The state or the score is NaN or infinite.
        ConvergenceError: `max_nfe` is used up before the next time of the grid.
    """

    rtol: float = 0.01
    atol: float = 0.01
    max_nfe: int = 2000

    def step(self, rsde: ReverseSDE, x: Tensor, t: Tensor, s: Tensor, noise: NoiseLike) -> Tensor:
        """Return a draw of p_s from the draw `x` of p_t."""
        sde, spent = rsde.sde, 0
        z, time = x / expand(scale(sde, t), x), t.repeat(len(x))
        h, end = torch.full_like(time, _FIRST), sde.log_snr(s)
        settled = retried = torch.zeros_like(time, dtype=torch.bool)
        previous = torch.full_like(time, torch.inf)
        if end.isinf():
            # if sigma_s = 0, the log-SNR at s is infinite, so the last step starts when the range
            # REACH has been covered
            end = sde.log_snr(t) + 2 * REACH
        while (time > s).any():
            spent += 2
            if spent > self.max_nfe:
                raise ConvergenceError(
                    f"sample {int((time > s).nonzero()[0])} reached only t = "
                    f"{float(time.max()):.6g} of [{float(s):.6g}, {float(t):.6g}] in max_nfe = "
                    f"{self.max_nfe} evaluations; increase max_nfe, or rtol and atol"
                )
            h = torch.where(settled, h, h.clamp(max=_UNSETTLED))
            now = sde.log_snr(time)
            to = torch.where(now + 1.01 * h < end, sde.time(now + h), s)
            to = torch.minimum(to.clamp(min=s), time)
            # limit the step to the rest of the interval now: if it is rejected, the next step must
            # be shorter than the step that was tried
            h = torch.minimum(h, end - now)
            (cos, sin), (cos_to, sin_to) = (_angles(rsde, u) for u in (time, to))
            fresh = ((sin - sin_to) * (sin + sin_to)).clamp(min=0).sqrt() / cos_to
            xi = noise.increments(x, to, time)
            base = expand(cos / cos_to, x) * z + expand(fresh, x) * xi
            width = expand(2 * (sin - sin_to) / cos_to, x)
            first = base - width * velocity(rsde, z, time)
            second = base - width * velocity(rsde, first, to)
            size = torch.maximum(z.abs(), first.abs())
            ratio = rms((first - second) / 2 / (self.atol + self.rtol * size)).cpu()
            check_ratio(ratio, time, torch.arange(len(x)))
            ok = ratio <= 1
            z = torch.where(expand(ok, x).bool(), (first + second) / 2, z)
            time = torch.where(ok, to, time)
            least, most = torch.minimum(ratio, previous), torch.maximum(ratio, previous)
            settled = settled | (ok & (most <= _AGREEMENT * least))
            previous = torch.where(ok, ratio, previous)
            root = ratio.sqrt()
            factor = nearest_factor(0.9 / (root * root.sqrt()))
            h, retried = h * factor.clamp(max=torch.where(retried, 1.0, _GROWTH)), ~ok
        return z * expand(scale(sde, s), x)


def _angles(rsde: ReverseSDE, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosine and the sine of the angle at times `(B,)`."""
    c = scale(rsde.sde, t)
    return rsde.sde.alpha(t) / c, rsde.sde.sigma(t) / c

r"""Use a score of one SDE under another SDE, at the same noise-to-signal ratio."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scoresde.checks import door, quoted
from scoresde.errors import InvalidValueError
from scoresde.score.wrapped import Wrapped
from scoresde.sde import SDE, Condition, Facts, Score, expand, process_of
from scoresde.sde.cpu_times import batch_time
from scoresde.sde.score import warn_between

__all__ = ["Rescheduled"]


class Rescheduled(Wrapped):
    r"""Return a score under another SDE than its own.

    Let primes denote the score's own SDE. If $\sigma'_u / \alpha'_u = \sigma_t / \alpha_t$, then
    $y = x\,\alpha'_u / \alpha_t$ has the distribution $p'_u$, so
    $\nabla\log p_t(x) = \frac{\alpha'_u}{\alpha_t} \nabla\log p'_u(y)$ (Karras et al. 2022, eq. 20,
    arXiv:2206.00364).

    Args:
        score: A score whose facts have an SDE.
        sde: The new SDE. Its noise levels must lie within the range of the score's SDE.

    Raises:
        InvalidValueError: The score's facts have no SDE, or `sde` has noise levels outside the
            range of the score's SDE.

    Warns:
        UserWarning: The score belongs to an SDE with levels, and `sde` has other noise levels.

    Examples:
        >>> import scoresde
        >>> model = scoresde.load("mnist")  # of a variance-exploding SDE
        >>> flow = scoresde.FlowSDE(T=0.98, eps=0.01)
        >>> x = scoresde.sample(scoresde.Rescheduled(model, flow), sampler="heun", steps=8, seed=0)
    """

    @door
    def __init__(self, score: Score, sde: SDE) -> None:
        super().__init__(score)
        self.process = process_of(score, None)
        self.sde = sde
        ends = torch.tensor([sde.T, sde.eps], dtype=torch.float64)
        inner_ends = torch.tensor([self.process.T, self.process.eps], dtype=torch.float64)
        (low, high), (inner_low, inner_high) = sde.log_snr(ends), self.process.log_snr(inner_ends)
        if low < inner_low - 1e-6 or high > inner_high + 1e-6:
            raise InvalidValueError(
                f"the noise levels sigma / alpha of {quoted(sde)} go from "
                f"{float((-high / 2).exp()):.4g} to {float((-low / 2).exp()):.4g}, beyond those of "
                f"the score, {float((-inner_high / 2).exp()):.4g} to "
                f"{float((-inner_low / 2).exp()):.4g}; give it an eps and a T within them"
            )
        times = None if sde.levels is None else self._inner_time(sde.times())
        warn_between(self.process, times)

    @property
    def facts(self) -> Facts:
        """Return the facts of the score, with the new SDE."""
        return replace(super().facts, sde=self.sde)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        """Return the score `(B, *)`."""
        time = self.sde.cpu_time(t)
        u = self._inner_time(time)
        ratio = expand(self.process.alpha(u) / self.sde.alpha(time), x)
        return ratio * self.ask(self.score, ratio * x, batch_time(u, x), condition)

    def _inner_time(self, t: Tensor) -> Tensor:
        """Return the times at which the score's SDE has the log-SNR of the new SDE at `t`."""
        return self.process.time(self.sde.log_snr(t)).clamp(self.process.eps, self.process.T)

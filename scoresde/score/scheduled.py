r"""Make an SDE from a function that returns $\alpha_t$ and $\sigma_t$, as in azula and sbi."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from scoresde.sde import SDE

__all__ = ["Scheduled"]


@dataclass(frozen=True)
class Scheduled(SDE):
    r"""Define an SDE by a function `t -> (alpha, sigma)` that torch can differentiate.

    Args:
        schedule: A function of times, float64 of any shape, that returns $\alpha_t$ and $\sigma_t$
            of the same shape.

    Examples:
        >>> from scoresde import FlowSDE
        >>> sde = Scheduled(lambda t: (1 - t, t), T=0.999)
        >>> print(sde.same_process(FlowSDE()))
        True
    """

    schedule: Callable[[Tensor], tuple[Tensor, Tensor]]

    def __repr__(self) -> str:
        name = getattr(self.schedule, "__name__", type(self.schedule).__name__)
        return f"Scheduled({name}, T={self.T}, eps={self.eps})"

    def alpha(self, t: Tensor) -> Tensor:
        r"""Return $\alpha_t$."""
        return self.schedule(t)[0]

    def sigma(self, t: Tensor) -> Tensor:
        r"""Return $\sigma_t$."""
        return self.schedule(t)[1]

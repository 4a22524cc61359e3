r"""Turn a denoiser into a score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from scoresde.checks import check_noise, door
from scoresde.score.wrapped import Wrapped
from scoresde.sde import SDE, Condition, Facts, Score, ask, check_output

__all__ = ["DenoiserScore", "from_denoiser"]


class DenoiserScore(Wrapped):
    r"""Turn a denoiser into a score: $\nabla\log p_t(x) = (\alpha D(x, t) - x) / \sigma^2$.

    Vincent (2011), doi:10.1162/NECO_a_00142; Efron (2011), Tweedie's formula.
    """

    def __init__(self, denoiser: Score, sde: SDE) -> None:
        super().__init__(denoiser)
        self.sde = sde

    @property
    def facts(self) -> Facts:
        """Return the facts of the denoiser, with the SDE."""
        return replace(super().facts, sde=self.sde)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
        r"""Return the score `(B, *)`.

        Raises:
            InvalidValueError: $\sigma_t = 0$.
            InvalidTypeError, ShapeError: The denoiser does not return a tensor of the shape of `x`.
        """
        time = self.sde.cpu_time(t)
        remedy = f"a score is singular there; stay at or above eps = {self.sde.eps}"
        check_noise(self.sde.sigma(time), time, remedy)
        out: Any = ask(self.score, x, t, condition)
        alpha, sigma = self.sde.at(time, x)
        # sigma^2 may overflow in half precision where sigma does not
        return (alpha * check_output("denoiser", out, x) - x) / sigma / sigma


@door
def from_denoiser(denoiser: Score, sde: SDE) -> DenoiserScore:
    r"""Return the score of a denoiser `D(x, t)` $= E[x_0 | x_t]$, under `sde`.

    Args:
        denoiser: A callable of `x` `(B, *)` and `t` `(B,)` that returns `(B, *)`.
        sde: The process whose noise the denoiser removes.

    Examples:
        >>> import scoresde, torch
        >>> sde = scoresde.EDMSDE()
        >>> score = scoresde.from_denoiser(lambda x, t: x / (1 + t[:, None] ** 2), sde)
        >>> x = scoresde.sample(score, shape=(2,), sampler="heun", n=4, seed=0)
    """
    return DenoiserScore(denoiser, sde)

r"""Compute the exact flow map, from $x_T$ to $x_\epsilon$ along the probability-flow ODE.

With $y = x / \alpha$ and $\ell = \log(\sigma / \alpha)$ the ODE of every SDE has the smooth form

$$ \frac{dy}{d\ell} = y - D(y, \ell), \qquad D = E[x_0 \mid x_t] $$

(Karras et al. 2022, eq. 4, arXiv:2206.00364, here in the logarithm of the noise).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_range
from scoresde.errors import NonFiniteError
from scoresde.score import modules

if TYPE_CHECKING:
    from scoresde.arena.problem import Problem

__all__ = ["DOP853", "FlowMap", "RungeKutta4", "usual_flow"]

# The steps for a network. For the packaged models "mnist" and "pulse" the results of 200 steps
# differ from those of 400 by 1e-7 and 4e-4 of the data's scale; those of 50 by 3e-5 and 3e-3.
_STEPS = 250


class FlowMap(Protocol):
    """Define the interface of methods that compute the flow map of a problem."""

    def __call__(self, problem: Problem, x: Tensor) -> Tensor:
        r"""Return the state $x_\epsilon$, `(B, *)`, of the flow from `x` at `T`."""
        ...


@dataclass(frozen=True)
class DOP853:
    """Solve the flow by the adaptive method of order 8 of Dormand & Prince, by scipy, in float64.

    Args:
        rtol: The tolerance of each step, relative to the state and to the data's scale, positive.

    Raises:
        InvalidValueError: `rtol` is not positive.
    """

    rtol: float = 1e-11

    def __post_init__(self) -> None:
        check_range("rtol", self.rtol, "(0, inf)")

    def __call__(self, problem: Problem, x: Tensor) -> Tensor:
        """Return the state at `eps`, `(B, *)`.

        Raises:
            NonFiniteError: The integration failed.
        """
        from scipy.integrate import solve_ivp

        y, start, end, alpha = _ends(problem, x)
        shape = y.shape

        def slope(log_rho, flat):  # type: ignore[no-untyped-def]  # scipy's arrays
            y = torch.from_numpy(flat).reshape(shape)
            return (y - problem.denoise(y, math.exp(log_rho))).flatten().numpy()

        solution = solve_ivp(
            slope, (start, end), y.flatten().numpy(), method="DOP853",
            rtol=self.rtol, atol=self.rtol * problem.scale, t_eval=(end,),
        )  # fmt: skip
        if not solution.success:
            raise NonFiniteError(
                f"the reference of {problem.name} failed: {solution.message} "
                "Check the score, or take a problem with less noise"
            )
        return (alpha * torch.from_numpy(solution.y[:, -1]).reshape(shape)).to(x)


@dataclass(frozen=True)
class RungeKutta4:
    r"""Solve the flow by Runge-Kutta's method of order 4 with equal steps in $\ell$.

    It is meant for learned scores: their rounding in float32 would make an adaptive method take
    tiny steps.

    Args:
        steps: The number of steps, at least 1, of 4 evaluations each.

    Raises:
        InvalidValueError: `steps` is not an integer of at least 1.
    """

    steps: int = 2500

    def __post_init__(self) -> None:
        check_integer("steps", self.steps, 1)

    def __call__(self, problem: Problem, x: Tensor) -> Tensor:
        """Return the state at `eps`, `(B, *)`."""
        y, start, end, alpha = _ends(problem, x)
        h = (end - start) / self.steps

        def slope(log_rho: float, y: Tensor) -> Tensor:
            return y - problem.denoise(y, math.exp(log_rho))

        for i in range(self.steps):
            log_rho = start + i * h
            k1 = slope(log_rho, y)
            k2 = slope(log_rho + h / 2, y + h / 2 * k1)
            k3 = slope(log_rho + h / 2, y + h / 2 * k2)
            k4 = slope(log_rho + h, y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return (alpha * y).to(x)


def usual_flow(problem: Problem, x: Tensor) -> Tensor:
    """Return the state at `eps`, by `RungeKutta4(250)` if the score has networks, else `DOP853`."""
    flow: FlowMap = RungeKutta4(_STEPS) if modules(problem.score) else DOP853()
    return flow(problem, x)


def _ends(problem: Problem, x: Tensor) -> tuple[Tensor, float, float, float]:
    r"""Return the rescaled state at T, $\ell$ at T and at eps, and $\alpha$ at eps."""
    sde = problem.sde
    first, last = (torch.tensor(t, dtype=torch.float64) for t in (sde.T, sde.eps))
    y = x.double() / sde.alpha(first)
    ends = (float(problem.rho(t).log()) for t in (first, last))
    return y, *ends, float(sde.alpha(last))  # type: ignore[return-value]

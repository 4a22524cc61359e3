r"""Fit the weights of the fast sampler to the trajectories of a pilot run.

An update of a run is a weighted sum of the state $y$ and of the residuals $R_j$ of earlier
evaluations. The state of the pilot run at the same time, $y^*$, is nearly exact. To fit the
weights, a run starts from the initial states of the pilot run. Each update adds corrections
$\delta$ to its weights,

$$ \delta = \arg\min_\delta \sum \Big|y^* - y_\text{new} - \delta_0 y - \sum_j \delta_j R_j\Big|^2
   + \lambda \sum_j \delta_j^2\, |R_j|^2, \qquad R_0 = y, $$

and the run continues from the corrected state. So the corrections also reduce the errors of earlier
steps, which the covariance of exact trajectories does not describe. The sums are over entries and
over two thirds of the trajectories. Of these, the tenth with the largest errors before the
correction is left out. The other third of the trajectories is used to test the corrections.

Wang et al. (2024), arXiv:2411.06503, introduced the idea: to correct each step by a few numbers
that are fitted to trajectories of many steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.quadrature import interpolated
from scoresde.samplers import ExponentialMultistep, NoiseLike, State
from scoresde.samplers.around import Around
from scoresde.samplers.multistep.fast import with_numbers
from scoresde.samplers.multistep.frame import Frame
from scoresde.samplers.multistep.integrator import Step, Update, integrate, weighted_sum
from scoresde.score import Pilot
from scoresde.sde import SDE, ReverseSDE
from scoresde.sde.coordinates import half_log_snr

__all__ = ["Fitting", "Updated", "fitted_on", "nearest", "ridge", "states_at"]

# lambda, and the share of the trajectories that is left out because their errors are the largest.
_RIDGE, _LEFT_OUT = 1e-4, 0.1


@dataclass(frozen=True, eq=False)
class Updated(Around):
    """Run a multistep method whose predictions and corrections are made by another function.

    Args:
        sampler: The method.
        update: The function that makes the predictions and corrections.
    """

    sampler: ExponentialMultistep
    update: Update

    def trajectory(
        self, rsde: ReverseSDE, x: Tensor, times: Tensor, noise: NoiseLike
    ) -> Iterator[State]:
        """Yield the states at `times[1:]`."""
        method = self.sampler.for_run(rsde.sde, times)
        return integrate(method, rsde, x, times, noise, self.update)


class Fitting:
    """Fit the corrections of each update of a run.

    Args:
        exact: The states of the pilot run at the times of the run, `(N + 1, n, *)`.

    Attributes:
        rows: The corrections of the updates so far.
    """

    def __init__(self, exact: Tensor) -> None:
        self.exact = exact
        self.rows: list[tuple[float, ...]] = []

    def __call__(
        self,
        step: Step,
        state: Tensor,
        excesses: list[Tensor],
        noise: Tensor | None,
        frame: Frame,
        i: int,
    ) -> Tensor:
        """Return the coordinates at time i, computed with corrected weights."""
        terms = [state, *excesses[: len(step[1])]]
        new = weighted_sum(step, state, excesses, noise, frame, i)
        gap = frame.from_state(self.exact[i].to(new), i) - new
        train = fitted_on(len(new))
        self.rows.append(ridge(*(_rows(x[:train]) for x in (gap, *terms))))
        step = with_numbers(step, self.rows[-1])
        return weighted_sum(step, state, excesses, noise, frame, i)


def fitted_on(n: int) -> int:
    """Return the number m such that the first m of n trajectories are used for a fit."""
    return n - n // 3


def states_at(pilot: Pilot, states: Tensor, sde: SDE, times: Tensor) -> Tensor:
    """Interpolate the states of a pilot run to other times, `(N + 1, n, *)`."""
    shape = (-1, *(1 for _ in states.shape[1:]))
    alpha = sde.alpha(sde.time(2 * pilot.ell)).to(states).reshape(shape)
    y = interpolated(pilot.ell, (states / alpha).flatten(1), half_log_snr(sde, times))
    return sde.alpha(times).to(states).reshape(shape) * y.reshape(-1, *states.shape[1:])


def ridge(gap: Tensor, *terms: Tensor) -> tuple[float, ...]:
    """Return the coefficients with which the sum of terms `(n, D)` is nearest to a gap `(n, D)`."""
    kept = nearest(gap.square().sum(1))
    columns = torch.stack([term[kept].flatten() for term in terms])
    gram = columns @ columns.T
    penalty = torch.diag(_RIDGE * gram.diagonal() + 1e-300)
    found: Tensor = torch.linalg.solve(gram + penalty, columns @ gap[kept].flatten())
    return tuple(found.tolist())


def nearest(squares: Tensor) -> Tensor:
    """Return the indices of squared distances `(n,)` in rising order, without the largest tenth."""
    return squares.argsort()[: max(round((1 - _LEFT_OUT) * len(squares)), 1)]


def _rows(x: Tensor) -> Tensor:
    return x.detach().cpu().double().flatten(1)

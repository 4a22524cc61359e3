"""Check the times of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scoresde.checks import quoted
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.sde import SDE

__all__ = ["check_first", "checked_times"]

# Smaller differences of the log signal-to-noise ratio are treated as rounding.
_ROUNDING = 1e-9


def checked_times(sde: SDE, times: Tensor | Sequence[float], *, given: bool = False) -> Tensor:
    """Return a grid as a decreasing float64 tensor, at levels if the SDE has levels.

    Args:
        sde: The process.
        times: The grid.
        given: True if the user gave the times.

    Raises:
        InvalidValueError: The times do not decrease, or are not levels of the SDE; or two times
            that the user gave, or two levels, have the same signal-to-noise ratio.
        ShapeError: The times are not one-dimensional.
    """
    grid = sde.as_time(times).clone()  # a copy, not a view of the user's tensor
    if grid.ndim != 1 or len(grid) == 0:
        raise ShapeError(f"times must be one-dimensional and not empty, got {tuple(grid.shape)}")
    if not (grid.diff() < 0).all():
        raise InvalidValueError(
            f"times must decrease strictly, from noise to data; got {quoted(times)}"
        )
    if sde.levels is not None:
        nearest = sde.times().flip(0)[sde.index(grid)]
        if not torch.allclose(nearest, grid, rtol=1e-6, atol=1e-6 * sde.T):
            raise InvalidValueError(
                f"this SDE has levels={sde.levels} and is defined only at them; take times from "
                "sde.times()"
            )
        grid, given = nearest, True
    rises = sde.log_snr(grid).diff()
    if given and not (rises > _ROUNDING).all():
        i = int((~(rises > _ROUNDING)).nonzero()[0])
        raise InvalidValueError(
            f"at the times {float(grid[i]):.6g} and {float(grid[i + 1]):.6g} the signal-to-noise "
            f"ratio of {type(sde).__name__} is the same, so there is nothing to do between them; "
            "leave one of them out"
        )
    return grid


def check_first(sde: SDE, start: float) -> None:
    """Raise if alpha / sigma is 0 at the start."""
    if not sde.log_snr(torch.tensor(start, dtype=torch.float64)) > -math.inf:
        raise InvalidValueError(
            f"at t = {start:.6g} the state of {type(sde).__name__} is pure noise, since alpha / "
            "sigma is 0, and samplers divide by it; choose a smaller T, for example T = "
            f"{0.999 * start:.6g}"
        )

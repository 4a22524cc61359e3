r"""Compute the time input of networks of other libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from scoresde.errors import InvalidValueError
from scoresde.sde import SDE

__all__ = ["TIMES", "check_time"]


def _place(sde: SDE, t: Tensor) -> Tensor:
    """Return the position of a time among the levels as a float: i at level i."""
    place = (t - sde.eps) / (sde.T - sde.eps) * ((sde.levels or 1) - 1)
    nearest = place.round()
    return torch.where((place - nearest).abs() < 1e-3, nearest, place)


TIMES: Mapping[str, Callable[[SDE, Tensor], Tensor]] = MappingProxyType(
    {
        "t": lambda sde, t: t,
        "sigma": lambda sde, t: sde.sigma(t),
        "log_sigma": lambda sde, t: sde.sigma(t).log(),
        "index": lambda sde, t: sde.index(t),
        "descending": lambda sde, t: (sde.levels or 1) - 1 - sde.index(t),
        "place": _place,
        "999t": lambda sde, t: 999 * t,
        "1-t": lambda sde, t: 1 - t,
    }
)
r"""The time inputs of networks by name, as functions of the SDE and the time.

- `t`: the time of the SDE.
- `sigma`, `log_sigma`: $\sigma_t$ (EDM and k-diffusion, for $\alpha = 1$), and its logarithm.
- `index`: the number of the nearest level, an integer that is 0 at `eps` (DDPM).
- `descending`: the number of the nearest level, counted down from the largest noise (NCSN and its
  successors).
- `place`: the position among the levels, with fractions between levels (diffusers).
- `999t`: $999\,t$ (the continuous models of Song et al. 2021).
- `1-t`: time that runs from noise at 0 to data at 1 (flow matching).
"""

_COUNTED = {"index", "descending", "place"}


def check_time(time: str, sde: SDE) -> None:
    """Raise InvalidValueError if this time input is not defined for an SDE."""
    if time in _COUNTED and sde.levels is None:
        raise InvalidValueError(
            f"time={time!r} needs an SDE with levels, but {type(sde).__name__} has none; give "
            "levels=L, a BetaLadder, or a function of the time"
        )
    if time in {"999t", "1-t"} and sde.T > 1:
        raise InvalidValueError(
            f"time={time!r} is for processes on [0, 1], but this one ends at T = {sde.T}; "
            "give a function of the time"
        )

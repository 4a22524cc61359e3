"""Shapes, conditions and processes in the words of people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from scoresde.sde import SDE, Classes, Field
from scoresde.sde.coordinates import ratio

__all__ = ["conditions_in_words", "sde_in_words", "shape_in_words"]

_MOST = 8  # names of classes that are listed
_PROCESSES = {
    "VESDE": "variance exploding, x_t = x_0 + sigma_t z, sigma_t from {sigma_min:g} to "
    "{sigma_max:g}",
    "VPSDE": "variance preserving, x_t = alpha_t x_0 + sqrt(1 - alpha_t²) z, beta from "
    "{beta_min:g} to {beta_max:g}",
    "SubVPSDE": "sub-VP, x_t = alpha_t x_0 + (1 - alpha_t²) z, beta from {beta_min:g} to "
    "{beta_max:g}",
    "NCSNLadder": "an NCSN ladder, x_t = x_0 + sigma_i z",
    "BetaLadder": "DDPM's table of betas, x_i = sqrt(abar_i) x_0 + sqrt(1 - abar_i) z",
    "CosineSDE": "cosine, x_t = cos(pi t / 2) x_0 + sin(pi t / 2) z",
    "EDMSDE": "EDM's variance exploding, x_t = x_0 + t z",
    "FlowSDE": "the straight line of flow matching, x_t = (1 - t) x_0 + t z",
    "BrownianBridgeSDE": "a Brownian bridge, x_t = (1 - t) x_0 + s sqrt(t (1 - t)) z",
}


def shape_in_words(shape: Sequence[int]) -> str:
    """Return what an event of a shape is.

    Examples:
        >>> shape_in_words((2,)), shape_in_words((3, 37, 53)), shape_in_words((1, 128))
        ('2 numbers', '3 channels of 37x53', '1 channel of 128')
    """
    if len(shape) == 1:
        return "1 number" if shape[0] == 1 else f"{shape[0]:,} numbers"
    channels = "1 channel" if shape[0] == 1 else f"{shape[0]:,} channels"
    return f"{channels} of {'x'.join(map(str, shape[1:]))}"


def sde_in_words(sde: SDE) -> str:
    """Return what a process does, and between which noise levels.

    Examples:
        >>> from scoresde.sde import FlowSDE
        >>> sde_in_words(FlowSDE())
        'the straight line of flow matching, x_t = (1 - t) x_0 + t z (FlowSDE)'
    """
    name = type(sde).__name__
    known = {k: getattr(sde, k) for k in sde.__dataclass_fields__}
    text = _PROCESSES[name].format(**known) if name in _PROCESSES else "a process"
    if name not in ("VESDE", "FlowSDE", "CosineSDE", "VPSDE", "SubVPSDE"):
        low, high = (float(ratio(sde, torch.tensor(t).double())) for t in (sde.eps, sde.T))
        text += f", sigma / alpha from {low:.3g} to {high:.3g}"
    levels = f" at {sde.levels} levels" if sde.levels is not None else ""
    return f"{text}{levels} ({name})"


def conditions_in_words(kinds: Mapping[str, Classes | Field]) -> Iterator[str]:
    """Yield what a model takes beside the noise, by name.

    Examples:
        >>> list(conditions_in_words({"label": Classes(10), "y": Field((2,))}))
        ['label, one of 10 classes, 0 to 9', 'y, 2 numbers']
    """
    for name, kind in kinds.items():
        if isinstance(kind, Classes):
            names: Sequence[str] = getattr(kind, "names", ())
            listed = ", ".join(names[:_MOST]) + (" ..." if len(names) > _MOST else "")
            yield f"{name}, one of {kind.n} classes, {listed or f'0 to {kind.n - 1}'}"
        else:
            yield f"{name}, {shape_in_words(kind.shape)}"

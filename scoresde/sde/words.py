"""Describe shapes, conditions and processes in plain English."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from scoresde.sde.condition import Classes, Field
from scoresde.sde.coordinates import ratio
from scoresde.sde.process import SDE

__all__ = ["conditions_in_words", "event_in_words", "kind_in_words", "sde_in_words"]

_MAX_NAMES = 8  # at most this many names are listed
_AXES = {1: "steps", 2: "pixels", 3: "voxels"}
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


def event_in_words(shape: Sequence[int], names: Sequence[str] = ()) -> str:
    """Return a description of a sample in words.

    Args:
        shape: The shape of a sample, channels first.
        names: The names of the entries of a vector.

    Examples:
        >>> event_in_words((2,), ["height", "mass"]), event_in_words((3, 37, 53))
        ('2 numbers (height, mass)', 'a colour image of 37x53 pixels')
        >>> event_in_words((1, 128)), event_in_words((2, 8, 8, 8))
        ('1 channel of 128 steps', '2 channels of 8x8x8 voxels')
    """
    if len(shape) <= 1:
        return f"{_count(math.prod(shape), 'number')}{_listed(names)}"
    channels, space = shape[0], shape[1:]
    sides = "x".join(map(str, space))
    if len(space) > 3:
        return f"{_count(channels, 'channel')} of {sides}"
    if len(space) == 2 and channels in (1, 3):
        return f"{'a grey' if channels == 1 else 'a colour'} image of {sides} pixels"
    return f"{_count(channels, 'channel')} of {sides} {_AXES[len(space)]}"


def kind_in_words(kind: Classes | Field) -> str:
    """Return a description of a condition in words.

    Examples:
        >>> kind_in_words(Classes(2, names=("cat", "dog"))), kind_in_words(Field((2,)))
        ('2 classes (cat, dog)', '2 numbers')
    """
    if isinstance(kind, Classes):
        return f"{_count(kind.n, 'class', 'es')}{_listed(kind.names) or f', 0 to {kind.n - 1}'}"
    return event_in_words(kind.shape, kind.names)


def sde_in_words(sde: SDE) -> str:
    """Return a description of a process: its formula, its range of noise, and its levels.

    The range of sigma / alpha is left out where the formula already gives the range of the noise.

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


def conditions_in_words(kinds: Mapping[str, Classes | Field]) -> str:
    """Return a description of the conditions that a model takes, by name.

    Examples:
        >>> conditions_in_words({"label": Classes(10), "y": Field((2,))})
        'label: 10 classes, 0 to 9; y: 2 numbers'
    """
    return "; ".join(f"{name}: {kind_in_words(kind)}" for name, kind in kinds.items()) or "none"


def _count(n: int, what: str, many: str = "s") -> str:
    return f"{n:,} {what}{'' if n == 1 else many}"


def _listed(names: Sequence[str]) -> str:
    """Return the first names in brackets, or an empty string if there are none."""
    rest = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f" ({', '.join(names[:_MAX_NAMES])}{rest})" if names else ""

r"""What a network's output means, as coefficients.

A network $F$ is handed the centred state $\tilde x = x - \alpha\mu$, scaled. Whatever its output
stands for, score and denoiser are affine in $\tilde x$ and $F$,

$$ \nabla\log p_t(x) = a_s \tilde x + b_s F, \qquad E[x_0 | x_t] = \mu + a_d \tilde x + b_d F, $$

with coefficients that are simplified by hand: neither is computed from the other through a
division by $\sigma^2$.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.sde import SDE

__all__ = ["PARAMETERIZATIONS", "Affine"]


class Affine(NamedTuple):
    """The coefficients of a network's output: score and denoiser as functions of (x, F)."""

    score_x: Tensor
    score_f: Tensor
    denoise_x: Tensor
    denoise_f: Tensor


def _edm(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    total = a**2 * var + s**2
    root = math.sqrt(var) / total.sqrt()
    return Affine(-1 / total, a * root / s, a * var / total, s * root)


def _eps(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    return Affine(torch.zeros_like(t), -1 / s, 1 / a, -s / a)


def _x0(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    return Affine(-1 / s**2, a / s**2, torch.zeros_like(t), torch.ones_like(t))


def _v(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    total = a**2 + s**2
    return Affine(-1 / total, -a / (s * total), a / total, -s / total)


def _flow(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    f, g2 = sde.coefficients(t)
    # alpha sigma' - sigma alpha', with alpha' = f alpha and sigma' = f sigma + g^2 / (2 sigma)
    wronskian = a * g2 / (2 * s)
    slope = f * s + g2 / (2 * s)
    return Affine(f * a / (s * wronskian), -a / (s * wronskian), slope / wronskian, -s / wronskian)


def _score(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    return Affine(torch.zeros_like(t), 1 / s, 1 / a, s / a)


PARAMETERIZATIONS: Mapping[str, Callable[[SDE, Tensor, float], Affine]] = MappingProxyType(
    {"edm": _edm, "eps": _eps, "x0": _x0, "v": _v, "flow": _flow, "score": _score}
)
r"""What a network's output F means, by name.

- `edm`: the unit-variance residual of Karras et al. (2022), eq. 7, arXiv:2206.00364, applied to
  $x/\alpha$ at the noise level $\sigma/\alpha$.
- `eps`: the noise $\varepsilon$ (Ho et al. 2020, arXiv:2006.11239).
- `x0`: the (centred) data.
- `v`: $\alpha\varepsilon - \sigma x_0$ (Salimans & Ho 2022, arXiv:2202.00512).
- `flow`: the velocity $\dot\alpha x_0 + \dot\sigma\varepsilon$ (Lipman et al. 2023,
  arXiv:2210.02747).
- `score`: $\sigma\,\nabla\log p_t$ (Song & Ermon 2019, arXiv:1907.05600).
"""

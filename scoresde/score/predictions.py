r"""Compute the score from the output of a network, for each quantity that the output may predict.

The input of the network is the centred state $\tilde x = x - \alpha\mu$ times a number that depends
on t. For every prediction the score is linear in $\tilde x$ and the output $F$,

$$ \nabla\log p_t(x) = a \tilde x + b F. $$
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.checks import check_noise
from scoresde.sde import SDE
from scoresde.sde.coordinates import c_noise

__all__ = ["PREDICTIONS", "Affine", "affine"]


class Affine(NamedTuple):
    """Hold the coefficients $a$ and $b$ of the centred state and of the network's output."""

    a: Tensor
    b: Tensor


def _edm(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    total = a**2 * var + s**2
    return Affine(-1 / total, a * var**0.5 / total.sqrt() / s)


def _eps(sde: SDE, t: Tensor, var: float) -> Affine:
    return Affine(torch.zeros_like(t), -1 / sde.sigma(t))


def _x0(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    return Affine(-1 / s**2, a / s**2)


def _v(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    total = a**2 + s**2
    return Affine(-1 / total, -a / (s * total))


def _flow(sde: SDE, t: Tensor, var: float) -> Affine:
    a, s = sde.alpha(t), sde.sigma(t)
    f, g2 = sde.coefficients(t)
    # alpha sigma' - sigma alpha', with alpha' = f alpha and sigma' = f sigma + g^2 / (2 sigma)
    wronskian = a * g2 / (2 * s)
    return Affine(f * a / (s * wronskian), -a / (s * wronskian))


def _score(sde: SDE, t: Tensor, var: float) -> Affine:
    return Affine(torch.zeros_like(t), torch.ones_like(t))


def _sigma_score(sde: SDE, t: Tensor, var: float) -> Affine:
    return Affine(torch.zeros_like(t), 1 / sde.sigma(t))


PREDICTIONS: Mapping[str, Callable[[SDE, Tensor, float], Affine]] = MappingProxyType(
    {
        "edm": _edm,
        "eps": _eps,
        "x0": _x0,
        "v": _v,
        "flow": _flow,
        "score": _score,
        "sigma_score": _sigma_score,
    }
)
r"""The quantities that a network's output F can predict, by name.

- `edm`: the unit-variance residual of Karras et al. (2022), eq. 7, arXiv:2206.00364, applied to
  $x/\alpha$ at the noise level $\sigma/\alpha$.
- `eps`: the noise $\varepsilon$ (Ho et al. 2020, arXiv:2006.11239).
- `x0`: the (centred) data.
- `v`: $\alpha\varepsilon - \sigma x_0$ (Salimans & Ho 2022, arXiv:2202.00512).
- `flow`: the velocity $\dot\alpha x_0 + \dot\sigma\varepsilon$ (Lipman et al. 2023,
  arXiv:2210.02747).
- `score`: $\nabla\log p_t$ itself.
- `sigma_score`: $\sigma\,\nabla\log p_t$ (Song & Ermon 2019, arXiv:1907.05600).
"""


def affine(predicts: str, sde: SDE, time: Tensor, var: float) -> tuple[Tensor, ...]:
    r"""Return five coefficients: $\alpha$, $r$, $c$, $a$ and $b$.

    The network receives $r \tilde x$, which has unit variance, and $c$, which tells it the noise
    level. The score is $a \tilde x + b F$.

    Args:
        predicts: The quantity that the output predicts, a key of `PREDICTIONS`.
        sde: The process.
        time: Times `()` or `(B,)` on the CPU, in float64.
        var: The mean variance of the data.

    Raises:
        InvalidValueError: $\sigma_t = 0$.
    """
    sigma, alpha = sde.sigma(time), sde.alpha(time)
    check_noise(sigma, time, f"a score is singular there; stay at or above eps = {sde.eps}")
    r = (alpha**2 * var + sigma**2).rsqrt()
    a, b = PREDICTIONS[predicts](sde, time, var)
    return alpha, r, c_noise(sde, time), a, b

r"""Weights: what an error of the score counts at each noise level.

A weight is a function $\lambda$ of `(sde, t)` with the shape of `t`, and multiplies
$\|s_\theta - \nabla\log p_t\|^2$. What other papers weigh differs by a known factor:
$\sigma^2 \|\Delta s\|^2 = \|\Delta\varepsilon\|^2 = (\alpha/\sigma)^2 \|\Delta x_0\|^2$.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from scoresde.errors import InvalidValueError
from scoresde.nn import Fourier
from scoresde.sde import SDE

__all__ = ["WEIGHTS", "LearnedWeight", "Weight", "edm", "g2", "min_snr", "power", "sigma2"]

Weight = Callable[[SDE, Tensor], Tensor]
r"""A weight $\lambda(t)$ of the objective, from `(sde, t)`."""


def sigma2(sde: SDE, t: Tensor) -> Tensor:
    r"""$\lambda = \sigma_t^2$: all levels count the same (Song & Ermon 2019, arXiv:1907.05600)."""
    return sde.sigma(t) ** 2


def g2(sde: SDE, t: Tensor) -> Tensor:
    r"""$\lambda = g(t)^2$: the likelihood weight (Song et al. 2021, arXiv:2101.09258)."""
    return sde.coefficients(t)[1]


def power(p: float) -> Weight:
    r"""$\lambda = \sigma_t^p$; `power(2)` is `sigma2`, and `power(0)` counts all errors alike.

    At `p = 0` it is one where there is no noise too.

    Args:
        p: The power, at least 0.
    """
    if not p >= 0:
        raise InvalidValueError(f"the power must be at least 0, got {p}")

    def weight(sde: SDE, t: Tensor) -> Tensor:
        return sde.sigma(t) ** p

    return weight


def edm(data_var: float = 1.0) -> Weight:
    r"""EDM's weight, under which the target of its preconditioned network has unit variance.

    $\lambda = \sigma^2 (1 + \tilde\sigma^2 / v)$ with $\tilde\sigma = \sigma/\alpha$ and $v$ the
    data's variance; on the denoiser's error it reads $(\tilde\sigma^2 + v) / (\tilde\sigma^2 v)$
    (Karras et al. 2022, table 1, arXiv:2206.00364).

    Args:
        data_var: $v$, positive.
    """
    if not data_var > 0:
        raise InvalidValueError(f"data_var must be positive, got {data_var}")

    def weight(sde: SDE, t: Tensor) -> Tensor:
        var = sde.sigma(t) ** 2
        return var * (1 + var / sde.alpha(t) ** 2 / data_var)

    return weight


def min_snr(gamma: float = 5.0, data_var: float = 1.0) -> Weight:
    r"""$\lambda = \sigma^2 \min(1, \gamma / \text{SNR})$ with $\text{SNR} = \alpha^2 v / \sigma^2$.

    On the denoiser's error it reads $\min(\text{SNR}, \gamma)$: the levels with little noise, whose
    gradients would drown the others', are held back (Hang et al. 2023, arXiv:2303.09556).

    Args:
        gamma: $\gamma$, positive.
        data_var: $v$, the data's variance, positive.
    """
    for name, value in (("gamma", gamma), ("data_var", data_var)):
        if not value > 0:
            raise InvalidValueError(f"{name} must be positive, got {value}")

    def weight(sde: SDE, t: Tensor) -> Tensor:
        var = sde.sigma(t) ** 2
        return var * (gamma / data_var * var / sde.alpha(t) ** 2).clamp(max=1)

    return weight


WEIGHTS: Mapping[str, Weight] = MappingProxyType(
    {"sigma2": sigma2, "g2": g2, "edm": edm(), "min_snr": min_snr()}
)
"""Weights by name; `edm` and `min_snr` for data of unit variance."""


class LearnedWeight(nn.Module):
    r"""A weight $\lambda(t)\,e^{-u(t)}$ that is learned beside the score, by its uncertainty.

    If the residual of an event of D numbers, weighted by $\lambda$, is thought of as normal with
    the variance $e^{u(t)}$, then its negative log-likelihood is, up to factors and constants,

    $$ e^{-u(t)}\,\ell(t) + D\,u(t), \qquad \min_u\colon\; e^{u(t)} = \mathbb E\,\ell(t) / D, $$

    so that every level contributes gradients of one size (Kendall et al. 2018, arXiv:1705.07115; as
    a function of the noise level Karras et al. 2023, eq. 14, arXiv:2312.02696). The loss $\ell$ of
    `dsm_loss` is positive, as this needs; those that know no noise are not.

        t, _ = sde.sample_times(len(x))
        loss = dsm_loss(model, sde, x, t=t, weight=learned) + learned.penalty(sde, t, x)

    The optimiser is given `learned.parameters()` too; they are of no use after training.

    Args:
        base: $\lambda$.
        features: Fourier features of $\tfrac14 \log(\sigma/\alpha)$ of which u is linear; even.
    """

    def __init__(self, base: Weight = sigma2, *, features: int = 64) -> None:
        super().__init__()
        self.base = base
        self.waves = Fourier(features)
        self.slopes = nn.Parameter(torch.zeros(features))
        self.bias = nn.Parameter(torch.zeros(()))

    def log_variance(self, sde: SDE, t: Tensor) -> Tensor:
        r"""$u(t)$, of the shape and on the device of `t`, in float64; zero before training."""
        c = (-sde.log_snr(t) / 8).to(self.bias).reshape(-1)
        u: Tensor = self.waves(c).to(c.dtype) @ self.slopes + self.bias
        return u.reshape(t.shape).to(t.device, torch.float64)

    def forward(self, sde: SDE, t: Tensor) -> Tensor:
        r"""$\lambda(t)\,e^{-u(t)}$."""
        return self.base(sde, t) * (-self.log_variance(sde, t)).exp()

    def penalty(self, sde: SDE, t: Tensor, x: Tensor) -> Tensor:
        r"""$D\,u(t)$ `(B,)` for data `x` `(B, *)`, to be added to the loss under this weight."""
        return (x.shape[1:].numel() * self.log_variance(sde, t)).to(x)

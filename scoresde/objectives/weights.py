r"""Weights: what an error of the score counts at each noise level.

A weight is a function $\lambda$ of `(sde, t)` with the shape of `t`, and multiplies
$\|s_\theta - \nabla\log p_t\|^2$. What other papers weigh differs by a known factor:
$\sigma^2 \|\Delta s\|^2 = \|\Delta\varepsilon\|^2 = (\alpha/\sigma)^2 \|\Delta x_0\|^2$.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import Tensor

from scoresde.errors import InvalidValueError
from scoresde.sde import SDE

__all__ = ["WEIGHTS", "Weight", "edm", "flow", "g2", "min_snr", "power", "sigma2"]

Weight = Callable[[SDE, Tensor], Tensor]
r"""A weight $\lambda(t)$ of the objective, from `(sde, t)`."""


@dataclass(frozen=True)
class _Named:
    """A weight that says in its repr how it was made, which is what a run is known by."""

    name: str
    function: Weight = field(repr=False, compare=False)

    def __call__(self, sde: SDE, t: Tensor) -> Tensor:
        return self.function(sde, t)

    def __repr__(self) -> str:
        return self.name


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise InvalidValueError(f"{name} must be positive, got {value}")


def sigma2(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\lambda = \sigma_t^2$: all levels count alike (Song & Ermon 2019, 1907.05600)."""
    return sde.sigma(t) ** 2


def g2(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\lambda = g(t)^2$, the likelihood weight (Song et al. 2021, arXiv:2101.09258)."""
    return sde.coefficients(t)[1]


def flow(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\lambda = \sigma_t^2 / \alpha_t^2$, the weight of flow matching.

    Under `FlowSDE` the velocity $u = \varepsilon - x_0$ has the error
    $\|\Delta u\|^2 = \|\Delta\varepsilon\|^2 / \alpha^2 = (\sigma/\alpha)^2 \|\Delta s\|^2$
    (Lipman et al. 2023, eq. 14, arXiv:2210.02747).
    """
    return (sde.sigma(t) / sde.alpha(t)) ** 2


def power(p: float) -> Weight:
    r"""Return the weight $\lambda = \sigma_t^p$; `power(2)` is `sigma2`.

    `power(0)` counts all errors of the score alike, also where there is no noise.

    Args:
        p: The power, at least 0.
    """
    if not p >= 0:
        raise InvalidValueError(f"the power must be at least 0, got {p}")
    return _Named(f"power({p})", lambda sde, t: sde.sigma(t) ** p)


def edm(var: float = 1.0) -> Weight:
    r"""Return EDM's weight, under which its preconditioned network has a target of unit variance.

    $\lambda = \sigma^2 (1 + \tilde\sigma^2 / v)$ with $\tilde\sigma = \sigma/\alpha$ and $v$ the
    data's variance; on the denoiser's error it reads $(\tilde\sigma^2 + v) / (\tilde\sigma^2 v)$
    (Karras et al. 2022, table 1, arXiv:2206.00364).

    Args:
        var: $v$, positive.
    """
    _positive("var", var)

    def weight(sde: SDE, t: Tensor) -> Tensor:
        noise = sde.sigma(t) ** 2
        return noise * (1 + noise / sde.alpha(t) ** 2 / var)

    return _Named(f"edm({var:.6g})", weight)


def min_snr(gamma: float = 5.0, var: float = 1.0) -> Weight:
    r"""Return $\lambda = \sigma^2 \min(1, \gamma / \text{SNR})$.

    The signal-to-noise ratio SNR is $\alpha^2 v / \sigma^2$.

    On the denoiser's error it reads $\min(\text{SNR}, \gamma)$: the levels with little noise, whose
    gradients would drown the others', are held back (Hang et al. 2023, arXiv:2303.09556).

    Args:
        gamma: $\gamma$, positive.
        var: $v$, the data's variance, positive.
    """
    _positive("gamma", gamma)
    _positive("var", var)

    def weight(sde: SDE, t: Tensor) -> Tensor:
        noise = sde.sigma(t) ** 2
        return noise * (gamma / var * noise / sde.alpha(t) ** 2).clamp(max=1)

    return _Named(f"min_snr({gamma:.6g}, {var:.6g})", weight)


WEIGHTS: Mapping[str, Weight] = MappingProxyType(
    {"sigma2": sigma2, "g2": g2, "edm": edm(), "min_snr": min_snr(), "flow": flow}
)
"""Weights by name; `edm` and `min_snr` for data of unit variance."""

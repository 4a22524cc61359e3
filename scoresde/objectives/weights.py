r"""Define the weights of a loss at each time.

A weight is a function $\lambda$ of `(sde, t)` that returns a tensor of the shape of `t`, and
multiplies $\|s_\theta - \nabla\log p_t\|^2$. The errors of the score, of the predicted noise and of
the predicted data differ by known factors,
$\sigma^2 \|\Delta s\|^2 = \|\Delta\varepsilon\|^2 = (\alpha/\sigma)^2 \|\Delta x_0\|^2$.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from scoresde.checks import check_range, door
from scoresde.sde import SDE

__all__ = ["WEIGHTS", "Weight", "edm", "flow", "g2", "min_snr", "power", "sigma2"]

Weight = Callable[[SDE, Tensor], Tensor]
r"""A function `(sde, t)` that returns the weight $\lambda(t)$ of a loss."""


def sigma2(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\lambda = \sigma_t^2$, the weight of noise prediction.

    Song & Ermon (2019), arXiv:1907.05600, use it.

    Examples:
        >>> import torch
        >>> from scoresde import EDMSDE
        >>> float(sigma2(EDMSDE(), torch.tensor(2.0)))
        4.0
    """
    return sde.sigma(t) ** 2


def g2(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\lambda = g(t)^2$, the likelihood weight (Song et al. 2021, arXiv:2101.09258).

    Examples:
        >>> import torch
        >>> from scoresde import EDMSDE
        >>> float(g2(EDMSDE(), torch.tensor(2.0)))
        4.0
    """
    return sde.coefficients(t)[1]


def flow(sde: SDE, t: Tensor) -> Tensor:
    r"""Return $\lambda = \sigma_t^2 / \alpha_t^2$, the weight of flow matching.

    Under `FlowSDE` the velocity $u = \varepsilon - x_0$ has the error
    $\|\Delta u\|^2 = \|\Delta\varepsilon\|^2 / \alpha^2 = (\sigma/\alpha)^2 \|\Delta s\|^2$
    (Lipman et al. 2023, eq. 14, arXiv:2210.02747).

    Examples:
        >>> import torch
        >>> from scoresde import EDMSDE
        >>> float(flow(EDMSDE(), torch.tensor(2.0)))
        4.0
    """
    return (sde.sigma(t) / sde.alpha(t)) ** 2


@dataclass(frozen=True, repr=False)
class _Power:
    p: float

    def __post_init__(self) -> None:
        check_range("the power", self.p, "[0, inf)")

    def __call__(self, sde: SDE, t: Tensor) -> Tensor:
        return sde.sigma(t) ** self.p

    def __repr__(self) -> str:
        return f"power({self.p:.6g})"


@door
def power(p: float) -> Weight:
    r"""Return the weight $\lambda = \sigma_t^p$; `power(2)` is `sigma2`.

    `power(0)` weights the errors of the score equally at all times, also where $\sigma_t = 0$.

    Args:
        p: The power, at least 0.

    Raises:
        InvalidTypeError, InvalidValueError: `p` is not a number, or is out of range.

    Examples:
        >>> power(3)
        power(3)
    """
    return _Power(p)


@dataclass(frozen=True, repr=False)
class _EDM:
    var: float

    def __post_init__(self) -> None:
        check_range("var", self.var, "(0, inf]")

    def __call__(self, sde: SDE, t: Tensor) -> Tensor:
        noise = sde.sigma(t) ** 2
        return noise * (1 + noise / sde.alpha(t) ** 2 / self.var)

    def __repr__(self) -> str:
        return f"edm({self.var:.6g})"


@door
def edm(var: float = 1.0) -> Weight:
    r"""Return the weight of EDM, with which the effective target of the network has variance 1.

    $\lambda = \sigma^2 (1 + \tilde\sigma^2 / v)$ with $\tilde\sigma = \sigma/\alpha$ and $v$ the
    data's variance. In terms of the denoiser's error this weight is
    $(\tilde\sigma^2 + v) / (\tilde\sigma^2 v)$ (Karras et al. 2022, table 1, arXiv:2206.00364).

    Args:
        var: $v$, positive.

    Raises:
        InvalidTypeError, InvalidValueError: `var` is not a number, or is out of range.

    Examples:
        >>> edm(0.25)
        edm(0.25)
    """
    return _EDM(var)


@dataclass(frozen=True, repr=False)
class _MinSNR:
    gamma: float
    var: float

    def __post_init__(self) -> None:
        check_range("gamma", self.gamma, "(0, inf]")
        check_range("var", self.var, "(0, inf]")

    def __call__(self, sde: SDE, t: Tensor) -> Tensor:
        noise = sde.sigma(t) ** 2
        return noise * (self.gamma / self.var * noise / sde.alpha(t) ** 2).clamp(max=1)

    def __repr__(self) -> str:
        return f"min_snr({self.gamma:.6g}, {self.var:.6g})"


@door
def min_snr(gamma: float = 5.0, var: float = 1.0) -> Weight:
    r"""Return $\lambda = \sigma^2 \min(1, \gamma / \text{SNR})$, with SNR $= \alpha^2 v/\sigma^2$.

    In terms of the denoiser's error it is proportional to $\min(\text{SNR}, \gamma)$, which limits
    the gradients where the noise is small (Hang et al. 2023, arXiv:2303.09556).

    Args:
        gamma: $\gamma$, positive.
        var: $v$, the data's variance, positive.

    Raises:
        InvalidTypeError, InvalidValueError: An argument is not a number, or is out of range.

    Examples:
        >>> min_snr(gamma=3)
        min_snr(3, 1)
    """
    return _MinSNR(gamma, var)


WEIGHTS: Mapping[str, Weight] = MappingProxyType(
    {
        "sigma2": sigma2,
        "g2": g2,
        "flow": flow,
        "edm": edm(),
        "min_snr": min_snr(),
        "power": power(0.0),
    }
)
"""The weights by name: `edm` and `min_snr` for data of variance 1, and `power` with the power 0."""

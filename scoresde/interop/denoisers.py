r"""Convert denoisers $D(x, \sigma) = E[x_0 | x_0 + \sigma z]$ to scores, and back.

The models of EDM, k-diffusion and deepinv are such denoisers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.checks import as_numbers, check_batch, check_integer, check_range, door, quoted
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.interop.user_units import in_units
from scoresde.score import NetworkScore, Rescheduled, from_network, modules
from scoresde.score.conventions import EDMNetwork
from scoresde.sde import EDMSDE, SDE, Classes, Moments, Score, ask, expand, process_of
from scoresde.sde.coordinates import ratio
from scoresde.sde.cpu_times import batch_time

__all__ = ["SigmaDenoiser", "from_deepinv", "from_edm", "from_k_diffusion", "to_denoiser"]


def _number(owner: object, name: str) -> Any:
    """Return an attribute as a Python number, or None if it is missing.

    Raises:
        InvalidTypeError, ShapeError: The attribute is not a number.
    """
    value = getattr(owner, name, None)
    if value is None:
        return None
    numbers = as_numbers(name, value, dtype=torch.float64)
    if numbers.numel() != 1:
        raise ShapeError(
            f"{name} of a {type(owner).__name__} must be one number, got {quoted(value)}"
        )
    found = float(numbers)
    return int(found) if found.is_integer() else found


@door
def from_edm(net: Callable[..., Tensor], sde: SDE | None = None, **known: Any) -> NetworkScore:
    r"""Return the score of a network of EDM, `net(x, sigma, class_labels=None)`.

    The shape of a sample, the variance of the data and the condition `label` are read from the
    attributes `img_channels`, `img_resolution`, `sigma_data` and `label_dim` of the network, if it
    has these attributes (Karras et al. 2022, arXiv:2206.00364).

    Args:
        net: A preconditioned network, which is a denoiser.
        sde: The process of the network; `EDMSDE()` by default.
        known: Further arguments of `from_network`, which override these attributes.

    Raises:
        InvalidValueError: `sde` has $\alpha_t \ne 1$, or an attribute is out of range.
        InvalidTypeError, ShapeError: An attribute is not a number.

    Examples:
        >>> score = from_edm(lambda x, sigma: x / (1 + sigma[:, None] ** 2), event_shape=(2,))
        >>> score.facts.sde
        EDMSDE(T=80.0, eps=0.002, levels=None)
    """
    found: dict[str, Any] = {}
    channels, side = _number(net, "img_channels"), _number(net, "img_resolution")
    if channels is not None and side is not None:
        check_integer("img_channels", channels, 1)
        check_integer("img_resolution", side, 1)
        found["event_shape"] = (channels, side, side)
    if (std := _number(net, "sigma_data")) is not None:
        check_range("sigma_data", std, "(0, inf)")
        found["moments"] = Moments(0.0, var=std**2)
    if (count := _number(net, "label_dim")) is not None:
        classes = check_integer("label_dim", count, 0)
        found["conditions"] = {"label": Classes(classes)} if classes else {}
        net = EDMNetwork(net)
    sde = EDMSDE() if sde is None else sde
    _check_signal(sde)
    return from_network(net, sde, "x0", "sigma", **(found | known))


def _check_signal(sde: SDE) -> None:
    r"""Raise InvalidValueError unless $\alpha_t = 1$, which denoisers called with sigma assume."""
    ends = torch.tensor([sde.eps, sde.T], dtype=torch.float64)
    if not torch.allclose(sde.alpha(ends), torch.ones_like(ends), rtol=1e-6):
        raise InvalidValueError(
            f"such a denoiser takes states x0 + sigma z, but the states of {type(sde).__name__} "
            "are alpha x0 + sigma z; leave out sde=, and pass the returned score to "
            "Rescheduled(score, sde)"
        )


@door
def from_k_diffusion(
    denoiser: Callable[..., Tensor], sde: SDE | None = None, **known: Any
) -> NetworkScore:
    r"""Return the score of a denoiser of k-diffusion, `denoiser(x, sigma, **extra_args)`.

    Args:
        denoiser: A denoiser for states with $\alpha = 1$, such as `k_diffusion.layers.Denoiser` or
            a class of `k_diffusion.external`.
        sde: The process; by default an `EDMSDE` from `denoiser.sigma_min` to `denoiser.sigma_max`,
            or `EDMSDE()` if these attributes are missing.
        known: Further arguments of `from_network`. The denoiser receives conditions by name, as
            extra_args.

    Raises:
        InvalidValueError: `sde` has $\alpha_t \ne 1$.

    Examples:
        >>> denoiser = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
        >>> score = from_k_diffusion(denoiser, event_shape=(2,))
        >>> score(torch.ones(1, 2), 3.0)
        tensor([[-0.1000, -0.1000]])
    """
    if sde is None:
        low, high = _number(denoiser, "sigma_min"), _number(denoiser, "sigma_max")
        sde = EDMSDE() if low is None or high is None else EDMSDE(eps=low, T=high)
    _check_signal(sde)
    return from_network(denoiser, sde, "x0", "sigma", **known)


@door
def from_deepinv(
    denoiser: Callable[..., Tensor], *, sigma_min: float, sigma_max: float, **known: Any
) -> NetworkScore:
    r"""Return the score of a denoiser of deepinv, `denoiser(x, sigma)`.

    Args:
        denoiser: A denoiser of $x_0 + \sigma z$. In deepinv pixels lie in [0, 1].
        sigma_min: The smallest noise scale for which the denoiser was trained.
        sigma_max: The largest noise scale for which the denoiser was trained. If it is not much
            larger than the standard deviation of the data, sampling needs `moments`, or initial
            states `x`.
        known: Further arguments of `from_network`.

    Examples:
        >>> denoiser = lambda x, sigma: x / (1 + sigma[:, None] ** 2)
        >>> from_deepinv(denoiser, sigma_min=0.01, sigma_max=20.0).facts.sde
        EDMSDE(T=20.0, eps=0.01, levels=None)
    """
    return from_network(denoiser, EDMSDE(eps=sigma_min, T=sigma_max), "x0", "sigma", **known)


class SigmaDenoiser(nn.Module):
    r"""Return $D(x, \sigma) = x + \sigma^2 \nabla\log p_\sigma(x)$ of a score; see `to_denoiser`.

    Attributes:
        sigma_min: The smallest noise scale of the score's process, $\sigma / \alpha$ at eps.
        sigma_max: The largest noise scale, $\sigma / \alpha$ at T.
    """

    def __init__(self, score: Score) -> None:
        super().__init__()
        process = process_of(score, None)
        ends = ratio(process, torch.tensor([process.eps, process.T], dtype=torch.float64)).tolist()
        self.sigma_min, self.sigma_max = ends
        self._rescheduled = Rescheduled(score, EDMSDE(eps=self.sigma_min, T=self.sigma_max))
        # registered here, so that the networks change their device and mode with this module
        self.networks = nn.ModuleList(modules(score))

    def forward(self, x: Tensor, sigma: Tensor | float, **condition: Tensor) -> Tensor:
        r"""Return the denoised state, `(B, *)`.

        Args:
            x: States $x_0 + \sigma z$, `(B, *)`.
            sigma: The noise scale, a number, `(B,)` or `(B, 1, ...)`; at most `sigma_max`.
            condition: The conditions of the score, by name.

        Raises:
            InvalidValueError: `sigma` is negative or above `sigma_max`.
            ShapeError: `sigma` has another shape.
        """
        check_batch("x", x, finite=False)
        noise = as_numbers("sigma", sigma, dtype=torch.float64, device="cpu")
        if noise.numel() not in {1, len(x)}:
            raise ShapeError(
                f"sigma must be a number or (B,) = ({len(x)},), got {tuple(noise.shape)}"
            )
        if not ((noise >= 0) & (noise <= self.sigma_max)).all():
            raise InvalidValueError(
                f"sigma must lie from 0 to {self.sigma_max:.6g}, the largest noise of the score's "
                f"process, got {quoted(sigma)}"
            )
        t = noise.flatten()
        score = ask(self._rescheduled, x, batch_time(t, x), condition or None)
        return x + expand(t**2, x) * score


@door
def to_denoiser(score: Score, *, units: bool = False) -> SigmaDenoiser:
    r"""Convert a score to a denoiser `D(x, sigma, **condition)` for k-diffusion, deepinv and EDM.

    The denoiser is $D(x, \sigma) = x + \sigma^2 \nabla\log p_\sigma(x)$ with $\alpha = 1$. It
    evaluates the score at the time t at which $\sigma_t / \alpha_t = \sigma$.

    Args:
        score: A score whose `facts` have an SDE.
        units: True if states, noise and denoised states are in the user's units, such as bytes.

    Raises:
        InvalidValueError: The score's `facts` have no SDE, or, with `units=True`, their
            transform is unknown or has several scales.

    Examples:
        >>> import scoresde
        >>> score = scoresde.targets.Gaussian(torch.zeros(2), std=1.0).at(scoresde.VPSDE())
        >>> D = to_denoiser(score)
        >>> D(torch.ones(1, 2), 3.0)  # x / (1 + sigma^2)
        tensor([[0.1000, 0.1000]])
    """
    return SigmaDenoiser(in_units(score, units))

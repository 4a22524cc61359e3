r"""Convert denoisers of azula to scores, and back (https://github.com/probabilists/azula).

A denoiser of azula has a `schedule`, a function of t in [0, 1] that returns $\alpha_t$ and
$\sigma_t$; `denoiser(x, t).mean` is $E[x_0 | x_t]$.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from scoresde.checks import door, quoted
from scoresde.errors import InvalidTypeError, MissingExtraError
from scoresde.interop.user_units import in_units
from scoresde.score import NetworkScore, from_network, modules
from scoresde.score.conventions import AzulaMean
from scoresde.sde import SDE, Score, ask, process_of

__all__ = ["from_azula", "to_azula"]


@door
def from_azula(denoiser: Callable[..., Any], sde: SDE | None = None, **known: Any) -> NetworkScore:
    r"""Return the score of a denoiser of azula.

    Args:
        denoiser: An `azula.denoise.Denoiser`. The keyword arguments of its `forward` become the
            conditions.
        sde: The process of the denoiser; by default `denoiser.schedule` on [0, 1].
        known: Further arguments of `from_network`.

    Raises:
        InvalidTypeError: The denoiser has no schedule, and `sde` is not given.

    Examples:
        >>> from types import SimpleNamespace
        >>> def denoiser(x, t):  # for standard normal data under the schedule below
        ...     return SimpleNamespace(mean=x / (1 + (0.001 + 10 * t[:, None]) ** 2))
        >>> denoiser.schedule = lambda t: (torch.ones_like(t), 0.001 + 10 * t)
        >>> score = from_azula(denoiser, event_shape=(2,))
    """
    net = AzulaMean(denoiser)
    if sde is None and (sde := net.process()) is None:
        raise InvalidTypeError(
            f"a denoiser of azula needs an attribute schedule, but {quoted(denoiser)} has none; "
            "give its sde=, or use from_denoiser"
        )
    return from_network(net, sde, "x0", "t", **known)


@door
def to_azula(score: Score, *, units: bool = False) -> nn.Module:
    r"""Return a score as an `azula.denoise.Denoiser`, for its samplers and guidance.

    azula's time runs from 0 to 1, which are the times eps and T of the score's process.

    Args:
        score: A score whose `facts` have an SDE. The denoiser takes its conditions as keyword
            arguments.
        units: True if states and denoised states are in the user's units, such as bytes.

    Raises:
        MissingExtraError: azula is not installed.
        InvalidValueError: The score's `facts` have no SDE, or, with `units=True`, their
            transform is unknown or has several scales.
    """
    score = in_units(score, units)
    process = process_of(score, None)
    try:
        azula: Any = importlib.import_module("azula.denoise")
    except ImportError as error:
        raise MissingExtraError.of("azula", "peers", "a denoiser of azula") from error

    class ScoreDenoiser(azula.Denoiser):  # type: ignore[misc]
        """Compute the posterior mean from a score by Tweedie's formula."""

        def __init__(self) -> None:
            super().__init__()
            self.networks = nn.ModuleList(modules(score))
            self.schedule = schedule

        def forward(self, x_t: Tensor, t: Tensor, **condition: Tensor) -> Any:
            r"""Return a posterior whose mean is $(x + \sigma^2 s) / \alpha$."""
            time = own_time(t).expand(len(x_t))
            alpha, sigma = process.at(time, x_t)
            found = ask(score, x_t, time, condition or None)
            return azula.DiracPosterior(mean=(x_t + sigma**2 * found) / alpha)

    def own_time(t: Tensor) -> Tensor:
        return process.eps + (process.T - process.eps) * t

    def schedule(t: Tensor) -> tuple[Tensor, Tensor]:
        return process.alpha(own_time(t)), process.sigma(own_time(t))

    return ScoreDenoiser()

r"""Define the spacings of time grids, on which a sampler evaluates the score.

A spacing maps an SDE and a number of steps $N$ to $N + 1$ times from $T$ down to `eps`, in float64.
It is given as an object, `sde.times(20, spacing=Karras(rho=5))`, or by its name,
`sde.times(20, spacing="karras")`. To use a grid of your own, pass a tensor to `sample(times=...)`.
"""

from __future__ import annotations

import abc
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import as_numbers, check_fields, check_noise, check_range, named, quoted
from scoresde.errors import InvalidValueError
from scoresde.sde.coordinates import half_log_snr_range, ratio, time_of_half_log_snr

if TYPE_CHECKING:
    from scoresde.sde.process import SDE

__all__ = [
    "AYS",
    "SPACINGS",
    "EqualSteps",
    "Geometric",
    "Karras",
    "LogSNR",
    "Spacing",
    "even_times",
    "ladder",
    "snapped",
    "spaced",
    "spacing_of",
    "span",
    "times_about",
    "times_of_half_log_snr",
    "uniform_times",
    "usual_times",
]


class Spacing(abc.ABC):
    """Space the times of a grid between `sde.T` and `sde.eps`.

    Examples:
        >>> from scoresde.sde import EDMSDE
        >>> print([round(t, 3) for t in Geometric()(EDMSDE(), 3).tolist()])
        [80.0, 2.339, 0.068, 0.002]
    """

    @abc.abstractmethod
    def __call__(self, sde: SDE, steps: int) -> Tensor:
        """Return times `(steps + 1,)`, decreasing, in float64."""


@dataclass(frozen=True)
class EqualSteps(Spacing):
    r"""Take equal steps in time: $t_i = T + \frac{i}{N} (\epsilon - T)$.

    Examples:
        >>> from scoresde.sde import VPSDE
        >>> print([round(t, 3) for t in VPSDE().times(2, spacing=EqualSteps()).tolist()])
        [1.0, 0.5, 0.001]
    """

    def __call__(self, sde: SDE, steps: int) -> Tensor:
        """Return times `(steps + 1,)`, decreasing, in float64."""
        return torch.linspace(sde.T, sde.eps, steps + 1, dtype=torch.float64)


@dataclass(frozen=True)
class Geometric(Spacing):
    r"""Take equal ratios of times: $t_i = T (\epsilon / T)^{i/N}$. Needs `eps` > 0.

    Examples:
        >>> from scoresde.sde import VPSDE
        >>> print([round(t, 3) for t in VPSDE().times(3, spacing=Geometric()).tolist()])
        [1.0, 0.1, 0.01, 0.001]
    """

    def __call__(self, sde: SDE, steps: int) -> Tensor:
        """Return times `(steps + 1,)`, decreasing, in float64."""
        if sde.eps <= 0:
            raise InvalidValueError(
                f"a geometric grid ends at eps > 0, but {type(sde).__name__} has eps = {sde.eps}; "
                "use spacing='log_snr', which is geometric in the noise"
            )
        return span(sde.T, sde.eps, steps, power=0.0)


@dataclass(frozen=True)
class Karras(Spacing):
    r"""Take equal steps in $\tilde\sigma^{1/\rho}$, with $\tilde\sigma = \sigma_t / \alpha_t$.

    Karras et al. (2022), eq. 5, arXiv:2206.00364; there $\alpha = 1$.

    Args:
        rho: The exponent, positive; 1 gives a grid that is uniform in $\tilde\sigma$, 7 is the
            paper's choice, and infinity gives the grid of `LogSNR`.

    Examples:
        >>> from scoresde.sde import EDMSDE
        >>> print([round(t, 3) for t in EDMSDE().times(3, spacing=Karras(rho=5)).tolist()])
        [80.0, 14.102, 0.966, 0.002]
    """

    rho: float = 7.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_range("rho", self.rho, "(0, inf]")

    def __call__(self, sde: SDE, steps: int) -> Tensor:
        """Return times `(steps + 1,)`, decreasing, in float64."""
        high, low = _ends(sde)
        return sde.time(-2 * span(high, low, steps, power=1 / self.rho).log())


@dataclass(frozen=True)
class LogSNR(Spacing):
    r"""Take equal steps in $\lambda = \log(\alpha_t^2 / \sigma_t^2)$, the log-SNR.

    Lu et al. (2022), section 4.1, arXiv:2206.00927.

    Examples:
        >>> from scoresde.sde import FlowSDE
        >>> print([round(t, 3) for t in FlowSDE().times(3, spacing=LogSNR()).tolist()])
        [0.999, 0.956, 0.318, 0.01]
    """

    def __call__(self, sde: SDE, steps: int) -> Tensor:
        """Return times `(steps + 1,)`, decreasing, in float64."""
        high, low = _ends(sde)
        return sde.time(-2 * span(high, low, steps, power=0.0).log())


@dataclass(frozen=True)
class AYS(Spacing):
    r"""Follow Align Your Steps, a table of $\tilde\sigma$ optimised for 10 steps of one model.

    For another number of steps the table is interpolated linearly in $\log\tilde\sigma$, as its
    authors advise. For another SDE it is stretched in $\log\tilde\sigma$ to the range from
    $\tilde\sigma_T$ to $\tilde\sigma_\epsilon$. The authors do not do this, and the result is not
    optimal. Sabour, Fidler & Kreis (2024), table 3, arXiv:2404.14507.

    Args:
        sigmas: The table, at least two positive, decreasing numbers; by default the table for
            Stable Diffusion 1.5. `SPACINGS` has the paper's other tables: `"ays_sdxl"`,
            `"ays_deepfloyd"` and `"ays_video"` (Stable Video Diffusion).

    Examples:
        >>> from scoresde.sde import VPSDE
        >>> len(VPSDE().times(10, spacing=AYS()))
        11
    """

    sigmas: tuple[float, ...] = (
        14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029,
    )  # fmt: skip

    def __post_init__(self) -> None:
        falling = all(a > b > 0 for a, b in itertools.pairwise(self.sigmas))
        if len(self.sigmas) < 2 or not falling:
            raise InvalidValueError(
                "a table has at least two positive and decreasing sigmas, "
                f"got {quoted(self.sigmas)}"
            )

    def __call__(self, sde: SDE, steps: int) -> Tensor:
        """Return times `(steps + 1,)`, decreasing, in float64."""
        table = np.log(self.sigmas)
        place = np.linspace(0, len(table) - 1, steps + 1)
        log_sigma = torch.from_numpy(np.interp(place, np.arange(len(table)), table))
        high, low = (math.log(end) for end in _ends(sde))
        # the position in the table, 1 at the first entry and 0 at the last
        height = (log_sigma - log_sigma[-1]) / (log_sigma[0] - log_sigma[-1])
        return sde.time(-2 * (low + (high - low) * height))


SPACINGS: Mapping[str, Spacing] = MappingProxyType(
    {
        "uniform": EqualSteps(),
        "geometric": Geometric(),
        "karras": Karras(),
        "log_snr": LogSNR(),
        "ays": AYS(),
        "ays_sdxl": AYS(
            (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
        ),
        "ays_deepfloyd": AYS(
            (160.41, 8.081, 3.315, 1.885, 1.207, 0.785, 0.553, 0.293, 0.186, 0.030, 0.006)
        ),
        "ays_video": AYS(
            (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)
        ),
    }
)
"""The spacings by the names that `spacing=` accepts."""


def spacing_of(spacing: Callable[..., Tensor] | str) -> Callable[..., Tensor]:
    """Return the spacing with this name; return an object unchanged.

    Raises:
        UnknownNameError: The name is not in `SPACINGS`.
    """
    return named("spacing", spacing, SPACINGS)


def spaced(sde: SDE, steps: int, spacing: Callable[..., Tensor] | str) -> Tensor:
    """Return the times `(steps + 1,)` of a spacing, with both ends exact.

    Raises:
        InvalidValueError: The spacing returns another number of times, or they do not decrease.
    """
    rule = spacing_of(spacing)
    t = as_numbers("the times of a spacing", rule(sde, steps), dtype=torch.float64, device="cpu")
    if t.shape == (steps + 1,):
        t = t.clone()
        t[0], t[-1] = sde.T, sde.eps
        if (t.diff() < 0).all():
            return t
    raise InvalidValueError(
        f"{rule} does not give {steps + 1} decreasing times from T = {sde.T} to eps = {sde.eps}; "
        "take another spacing, or fewer steps"
    )


def ladder(levels: int, steps: int) -> Tensor:
    """Return level indices `(steps + 1,)` from `levels - 1` down to 0, both included."""
    return torch.linspace(levels - 1, 0, steps + 1, dtype=torch.float64).round().long()


def span(high: float, low: float, steps: int, *, power: float) -> Tensor:
    """Return values x from `high` to `low` in equal steps of `x ** power`, or of `log x` for 0."""
    ends = torch.tensor([high, low], dtype=torch.float64)
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    if power == 0:
        return torch.lerp(ends[0].log(), ends[1].log(), u).exp()
    return torch.lerp(ends[0] ** power, ends[1] ** power, u) ** (1 / power)


def times_of_half_log_snr(sde: SDE, ell: Tensor) -> Tensor:
    r"""Return the times `(N + 1,)` of increasing $\ell$, with the ends set to T and eps."""
    t = time_of_half_log_snr(sde, ell).clamp(sde.eps, sde.T)
    t[0], t[-1] = sde.T, sde.eps
    return t


def uniform_times(sde: SDE, steps: int | None) -> Tensor:
    """Return evenly spaced times `(N + 1,)`, or levels of a ladder; eps may be 0."""
    return sde.times(steps, spacing=None if sde.levels else "uniform")


def even_times(sde: SDE, steps: int | None) -> Tensor:
    """Return times `(N + 1,)` evenly spaced in log-SNR, or the nearest levels of a ladder."""
    n = len(uniform_times(sde, steps)) - 1
    low, high = half_log_snr_range(sde).tolist()
    even = times_of_half_log_snr(sde, torch.linspace(low, high, n + 1, dtype=torch.float64))
    return even if sde.levels is None else snapped(sde, even)


def times_about(sde: SDE, steps: int | None, size: float) -> Tensor:
    r"""Return times `(N + 1,)` that are denser where noise and data have about the same scale.

    They are evenly spaced in $\ell / L - \varphi / \Phi$, where $\ell$ is half the log-SNR,
    $\varphi = \arctan(\sigma / (\alpha c))$, and $L$ and $\Phi$ are the lengths of the ranges of
    $\ell$ and $\varphi$. So log-SNR and angle have equal weight. On a ladder the nearest levels are
    taken.

    Args:
        sde: The process.
        steps: N, as in `even_times`.
        size: The standard deviation $c$ of the data, limited to the range of $\sigma / \alpha$.
    """
    n = len(uniform_times(sde, steps)) - 1
    low, high = half_log_snr_range(sde).tolist()
    ell = np.linspace(low, high, 4001)
    phi = np.arctan(np.exp(-ell) / min(max(size, math.exp(-high)), math.exp(-low)))
    place = (ell - low) / (high - low) + (phi[0] - phi) / (phi[0] - phi[-1])
    found = torch.from_numpy(np.interp(np.linspace(0, 2, n + 1), place, ell))
    times = times_of_half_log_snr(sde, found)
    return times if sde.levels is None else snapped(sde, times)


def usual_times(sde: SDE, steps: int | None, *, even_from: int) -> Tensor:
    """Return times spaced as the SDE declares, or `even_times` for `even_from` or more steps."""
    n = len(uniform_times(sde, steps)) - 1
    return even_times(sde, steps) if n >= even_from else sde.times(steps)


def snapped(sde: SDE, t: Tensor) -> Tensor:
    """Return the N + 1 levels of a ladder nearest to times `(N + 1,)`, all different."""
    n, levels = len(t) - 1, sde.times()
    index = sde.index(t).tolist()
    for i in range(1, n + 1):
        index[i] = max(min(index[i], index[i - 1] - 1), n - i)
    for i in range(n - 1, -1, -1):
        index[i] = max(index[i], index[i + 1] + 1)
    return levels.flip(0)[index]


def _ends(sde: SDE) -> tuple[float, float]:
    """Return the noise-to-signal ratios at T and at eps; raise unless both are positive."""
    high, low = ratio(sde, torch.tensor([sde.T, sde.eps], dtype=torch.float64)).tolist()
    check_noise(torch.tensor(low), sde.eps, "choose eps > 0 or spacing='uniform'")
    return high, low

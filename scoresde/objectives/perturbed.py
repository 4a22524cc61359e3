r"""The arguments that objectives share, checked, and data perturbed by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_batch, quoted
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.noise import Noise, seeds_of
from scoresde.objectives.weights import Weight, sigma2
from scoresde.sde import SDE, Condition, Score, TimeLaw, expand, facts, process_of

__all__ = ["Perturbed", "check_data", "event_sum", "noise_of", "perturb", "times_of"]

# What the k-th draw of a noise is for.
_TIMES, _STATES = range(2)


@dataclass(frozen=True, eq=False)
class Perturbed:
    r"""Hold a batch at its noise levels.

    Attributes:
        sde: The process.
        x: States $x_t = \alpha_t x_0 + \sigma_t z$, `(B, *)`.
        z: Their noise, `(B, *)`.
        time: Their times, `()` or `(B,)`, float64.
        clean: $\alpha_t x_0$, `(B, *)`.
        sigma: $\sigma_t$, `()` or `(B,)`, float64.
        scale: $\lambda(t)$ times the importance weight of t, `()` or `(B,)`, float64.
        noise: Where further random numbers come from.
        score: The score at these times: states `(B, *)` to scores `(B, *)`, checked.
    """

    sde: SDE
    x: Tensor
    z: Tensor
    time: Tensor
    clean: Tensor
    sigma: Tensor
    scale: Tensor
    noise: Noise
    score: Callable[[Tensor], Tensor]


def perturb(
    score: Score,
    sde: SDE | None,
    x: Tensor,
    *,
    t: Tensor | float | None = None,
    law: TimeLaw | None = None,
    noise: Noise | None = None,
    condition: Mapping[str, Any] | None = None,
    weight: Weight = sigma2,
    generator: torch.Generator | None = None,
) -> Perturbed:
    """Return data at times and with noise; the arguments and errors are those of the objectives."""
    known = facts(score)
    if known.sde is not sde or sde is None:
        sde = process_of(score, sde)
    check_data(x, finite=noise is None)
    if t is not None and law is not None:
        raise InvalidValueError("t= and law= exclude each other; give the times or their law")
    given = Condition.of(condition, len(x), known.conditions, x.device)
    noise = noise_of(noise, generator, x)
    time, importance = times_of(sde, t, law, noise)
    lam = weight(sde, time)
    shape = getattr(lam, "shape", None)
    if shape != time.shape:
        raise ShapeError(
            f"a weight must return a tensor of its times' shape, {tuple(time.shape)}, got "
            f"{quoted(lam) if shape is None else tuple(shape)}"
        )
    rsde = sde.reverse(score, condition=given, check_finite=False)
    alpha, sigma = sde.at(time, x)
    clean, z = alpha * x, noise.normal(x, 0.0, _STATES)
    return Perturbed(
        sde, clean + sigma * z, z, time, clean, sde.sigma(time), importance * lam, noise,
        lambda state: rsde.score(state, time),
    )  # fmt: skip


def noise_of(noise: Noise | None, generator: torch.Generator | None, x: Tensor) -> Noise:
    """Return the noise given, or that of one seed drawn from a generator or torch's global one."""
    if noise is None:
        (seed,), _ = seeds_of(1, None, generator, 0)
        return Noise.of(seed, len(x))
    if generator is not None:
        raise InvalidValueError("give noise= or generator=, not both")
    if len(noise) != len(x):
        raise ShapeError(f"noise for {len(noise)} samples, but x holds {len(x)}")
    return noise


def times_of(
    sde: SDE, t: Tensor | float | None, law: TimeLaw | None, noise: Noise
) -> tuple[Tensor, Tensor]:
    """Return times and their importance weights, float64: those given, or else drawn by a law."""
    if t is not None:
        time = sde.as_time(t)
        expand(time, torch.empty(len(noise)))  # a time for each sample, or one for all
        return time, torch.ones_like(time)
    law = sde.time_law if law is None else law
    like = torch.empty(len(noise), 1, dtype=torch.float64)
    # the distribution function of a normal number is uniform, below 1 but for rounding
    u = torch.special.ndtr(noise.normal(like, 0.0, _TIMES))[:, 0].clamp(max=1 - 2**-53)
    return law(sde, u)


def check_data(x: Tensor, *, finite: bool = True) -> None:
    """Raise unless data are floating point numbers `(B, *)`.

    Args:
        x: The data.
        finite: Whether to look for NaN and infinity on the CPU. On another device they show in the
            loss, for which nothing has to be waited for, and in training they have to: there a
            step may be left out, by all processes together.
    """
    check_batch("x", x, finite=finite and x.device.type == "cpu")


def event_sum(x: Tensor) -> Tensor:
    """Return the sum over the event, `(B, *)` to `(B,)`."""
    return x.reshape(len(x), math.prod(x.shape[1:])).sum(1)

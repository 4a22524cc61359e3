r"""The arguments that objectives share, checked, and data perturbed by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_batch, quoted
from scoresde.errors import InvalidValueError, NonFiniteError, ShapeError
from scoresde.noise import Noise, seeds_of
from scoresde.objectives.weights import Weight, sigma2
from scoresde.sde import SDE, Condition, Score, TimeLaw, expand, facts, process_of

__all__ = [
    "Perturbed",
    "check_data",
    "checked_loss",
    "event_sum",
    "noise_of",
    "passing",
    "perturb",
    "times_of",
    "weighed",
]

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

    def weighted(self, errors: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return errors `(B,)` times a scale, by default `scale`: the loss of each sample.

        Raises:
            NonFiniteError: One is NaN or infinite; see `passing`.
        """
        return checked_loss((self.scale if scale is None else scale).to(errors) * errors)


_passing: ContextVar[bool] = ContextVar("passing", default=False)


@contextmanager
def passing() -> Iterator[None]:
    """Let NaN and infinity pass through the losses called within the block.

    So does a trainer, which looks at many losses in one go, and where one of several processes may
    not stop alone. Else they are an error on the CPU; on another device, for which nobody waits
    at each step, they show in the loss.
    """
    before = _passing.set(True)
    try:
        yield
    finally:
        _passing.reset(before)


def judged(x: Tensor) -> bool:
    """Return True where a NaN in numbers beside `x` is an error."""
    return x.device.type == "cpu" and not _passing.get()


def checked_loss(loss: Tensor) -> Tensor:
    """Return the loss of each sample `(B,)`, where it is to be judged, once it is seen finite."""
    if judged(loss) and not loss.isfinite().all():
        bad = (~loss.isfinite()).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"the loss is NaN or infinite in samples {bad[:8]}: the score, its derivative or their "
            "squares are; look at the score at these states, or scale the data"
        )
    return loss


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
    check_data(x)
    if t is not None and law is not None:
        raise InvalidValueError("t= and law= exclude each other; give the times or their law")
    if isinstance(condition, Condition) and _passing.get():
        given: Condition | None = condition  # a trainer has checked all of them at its door
    else:
        given = Condition.of(condition, len(x), known.conditions, x.device)
    noise = noise_of(noise, generator, x)
    time, importance = times_of(sde, t, law, noise)
    lam = weighed(weight, sde, time)
    rsde = sde.reverse(score, condition=given, check_finite=judged(x))
    alpha, sigma = sde.at(time, x)
    clean, z = alpha * x, noise.normal(x, 0.0, _STATES)
    return Perturbed(
        sde, clean + sigma * z, z, time, clean, sde.sigma(time), importance * lam, noise,
        lambda state: rsde.score(state, time),
    )  # fmt: skip


def weighed(weight: Weight, sde: SDE, time: Tensor) -> Tensor:
    """Return a weight at times, checked: one finite number for each, and none below 0."""
    lam = weight(sde, time)
    shape = getattr(lam, "shape", None)
    if shape != time.shape:
        raise ShapeError(
            f"a weight must return a tensor of its times' shape, {tuple(time.shape)}, got "
            f"{quoted(lam) if shape is None else tuple(shape)}"
        )
    if judged(lam) and not lam.isfinite().all():
        raise NonFiniteError(f"the weight is NaN or infinite: {quoted(lam)} at t = {quoted(time)}")
    if judged(lam) and (lam < 0).any():
        raise InvalidValueError(
            f"the weight is negative, by which errors of the score would grow: {quoted(lam)} at "
            f"t = {quoted(time)}"
        )
    return lam


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


def check_data(x: Tensor) -> None:
    """Raise unless data are floating point numbers `(B, *)`, and finite unless they may pass."""
    check_batch("x", x, finite=judged(x))


def event_sum(x: Tensor) -> Tensor:
    """Return the sum over the event, `(B, *)` to `(B,)`."""
    return x.reshape(len(x), math.prod(x.shape[1:])).sum(1)

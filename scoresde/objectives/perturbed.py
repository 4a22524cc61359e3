r"""Check the common arguments of the losses, and perturb the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from scoresde.score.inside import check_unused
from scoresde.sde import SDE, Condition, Score, TimeLaw, facts, process_of
from scoresde.sde.cpu_times import on_device, with_cpu_time
from scoresde.sde.score import coefficients_of
from scoresde.sde.shapes import check_times

__all__ = [
    "Perturbed",
    "check_data",
    "checked_loss",
    "event_sum",
    "noise_of",
    "passing",
    "perturb",
    "times_of",
    "weight_at",
]

# The draw numbers of times and noise in `Noise.normal`.
_TIMES, _STATES = range(2)


@dataclass(frozen=True, eq=False)
class Perturbed:
    r"""Hold a perturbed batch $x_t = \alpha_t x_0 + \sigma_t z$ and its coefficients.

    Attributes:
        sde: The process.
        x: States $x_t$, `(B, *)`.
        z: The noise, `(B, *)`.
        time: The times, `()` or `(B,)`, float64.
        clean: $\alpha_t x_0$, `(B, *)`.
        sigma: $\sigma_t$, `()` or `(B,)`, float64.
        scale: $\lambda(t)$ times the importance weight of t, `()` or `(B,)`, float64.
        further: What the loss needs besides, ready to multiply `x`; by default `scale` alone.
        noise: The source of further random numbers.
        score: A function of states `(B, *)` that returns the checked score at these times.
    """

    sde: SDE
    x: Tensor
    z: Tensor
    time: Tensor
    clean: Tensor
    sigma: Tensor
    scale: Tensor
    further: list[Tensor]
    noise: Noise
    score: Callable[[Tensor], Tensor]

    def weighted(self, errors: Tensor, scale: Tensor) -> Tensor:
        """Return the loss of each sample: errors `(B,)` times a scale from `further`.

        Raises:
            NonFiniteError: A loss is NaN or infinite, on a device where this is checked (see
                `passing`).
        """
        return checked_loss(scale.reshape(scale.shape[:1]).to(errors.dtype) * errors)


_passing: ContextVar[bool] = ContextVar("passing", default=False)


@contextmanager
def passing() -> Iterator[None]:
    """Let losses in the block return NaN and infinity instead of raising an error.

    A trainer uses it, since it checks many losses at once, and since with several processes none
    may stop alone. Outside the block a loss on the CPU that is NaN or infinite raises an error. On
    other devices losses are never checked, since that would stall every step.
    """
    before = _passing.set(True)
    try:
        yield
    finally:
        _passing.reset(before)


def checks_finite(x: Tensor) -> bool:
    """Return True if a NaN on the device of `x` raises an error; see `passing`."""
    return x.device.type == "cpu" and not _passing.get()


def checked_loss(loss: Tensor) -> Tensor:
    """Return the loss of each sample `(B,)`; raise if it is not finite (on the CPU only)."""
    if checks_finite(loss) and not loss.isfinite().all():
        bad = (~loss.isfinite()).nonzero().flatten().tolist()
        raise NonFiniteError(
            f"the loss is NaN or infinite in samples {bad[:8]}, since the score, its derivative or "
            "a square is; check the score at these states, or scale the data"
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
    further: Callable[[Tensor, Tensor], Sequence[Tensor]] = lambda sigma, scale: (scale,),
) -> Perturbed:
    r"""Perturb a batch; the arguments and errors are those of the losses.

    One copy brings all coefficients to the device of `x`: those of $x_t$, those of the score, and
    the result of `further(sigma, scale)`.
    """
    known = facts(score)
    if known.sde is not sde or sde is None:
        sde = process_of(score, sde)
    if torch.is_grad_enabled():
        check_unused(score)
    check_data(x)
    if t is not None and law is not None:
        raise InvalidValueError("give either the times, t=, or their distribution, law=")
    if isinstance(condition, Condition) and _passing.get():
        given: Condition | None = condition  # a trainer has already checked this
    else:
        given = Condition.of(condition, len(x), known.conditions, x.device)
    noise = noise_of(noise, generator, x)
    time, importance = times_of(sde, t, law, noise)
    lam = weight_at(weight, sde, time)
    rsde = sde.reverse(score, condition=given, check_finite=checks_finite(x))
    sigma, scale = sde.sigma(time), importance * lam
    columns = [sde.alpha(time), sigma, *further(sigma, scale)]
    clock, count = time, len(columns)
    if time.numel() > 1 and x.device.type != "cpu" and x.dtype.itemsize >= 4:
        # the score receives rounded times, so compute its coefficients at the rounded times
        rounded = time.to(x.dtype).double()
        owner, theirs = coefficients_of(score, rounded)
        *ready, column = on_device(x, *columns, *theirs, rounded)
        clock = with_cpu_time(column, rounded, owner, tuple(ready[count:]))
    else:
        ready = on_device(x, *columns)
    alpha, std, *rest = ready[:count]
    clean, z = alpha * x, noise.normal(x, 0.0, _STATES)
    return Perturbed(
        sde, clean + std * z, z, time, clean, sigma, scale, rest, noise,
        lambda state: rsde.score(state, clock),
    )  # fmt: skip


def weight_at(weight: Weight, sde: SDE, time: Tensor) -> Tensor:
    """Return a weight at the times; raise unless it is a finite number >= 0 for each time."""
    lam = weight(sde, time)
    shape = getattr(lam, "shape", None)
    if shape != time.shape:
        raise ShapeError(
            f"a weight must return a tensor of its times' shape, {tuple(time.shape)}, got "
            f"{quoted(lam) if shape is None else tuple(shape)}"
        )
    if checks_finite(lam) and not lam.isfinite().all():
        raise NonFiniteError(f"the weight is NaN or infinite: {quoted(lam)} at t = {quoted(time)}")
    if checks_finite(lam) and (lam < 0).any():
        raise InvalidValueError(
            f"the weight is negative, {quoted(lam)} at t = {quoted(time)}, which would reward "
            "errors of the score; give a weight that is at least 0"
        )
    return lam


def noise_of(noise: Noise | None, generator: torch.Generator | None, x: Tensor) -> Noise:
    """Return `noise`, or noise of a seed drawn from a generator (by default torch's global one)."""
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
    """Return times and importance weights, float64: the given `t`, or times drawn from a law."""
    if t is not None:
        time = sde.as_time(t)
        check_times(time, torch.empty(len(noise)))
        return time, torch.ones_like(time)
    law = sde.time_law if law is None else law
    like = torch.empty(len(noise), 1, dtype=torch.float64)
    # Phi(z) is uniform for standard normal z, but may round to 1
    u = torch.special.ndtr(noise.normal(like, 0.0, _TIMES))[:, 0].clamp(max=1 - 2**-53)
    return law(sde, u)


def check_data(x: Tensor) -> None:
    """Raise unless data are floating-point `(B, *)` and, on the CPU, finite."""
    check_batch("x", x, finite=checks_finite(x))


def event_sum(x: Tensor) -> Tensor:
    """Sum over the event, `(B, *)` to `(B,)`."""
    return x.reshape(len(x), math.prod(x.shape[1:])).sum(1)

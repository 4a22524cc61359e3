r"""The door of every objective: all that came in is checked, and data become states of $p_t$."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.checks import check_generator, check_has
from scoresde.errors import InvalidTypeError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.objectives.weights import Weight
from scoresde.score import check_problem
from scoresde.sde import SDE, TimeLaw, as_score

__all__ = ["Perturbed", "check_data", "draw", "event_sum", "perturb"]


@dataclass(frozen=True, eq=False)
class Perturbed:
    r"""A batch at its noise levels.

    Attributes:
        x: States $x_t = \alpha_t x_0 + \sigma_t z$, `(B, *)`.
        z: Their noise, `(B, *)`.
        time: Their times, `()` or `(B,)`, float64.
        clean: $\alpha_t x_0$, `(B, *)`.
        sigma: $\sigma_t$, `()` or `(B,)`, float64.
        scale: $\lambda(t)$ times the importance weight of t, `()` or `(B,)`, float64.
        score: The model at these times: states `(B, *)` to scores `(B, *)`, checked.
    """

    x: Tensor
    z: Tensor
    time: Tensor
    clean: Tensor
    sigma: Tensor
    scale: Tensor
    score: Callable[[Tensor], Tensor]


def perturb(
    model: Callable[..., Tensor],
    sde: SDE,
    x: Tensor,
    t: Tensor | float | None,
    law: TimeLaw | None,
    condition: Mapping[str, Tensor] | None,
    weight: Weight,
    generator: torch.Generator | None,
    check_finite: bool = True,
    noise: Tensor | None = None,
) -> Perturbed:
    """Draw times and noise; the arguments and errors are those of the objectives."""
    check_problem(model, sde)
    if not callable(weight):
        raise InvalidTypeError(
            f"weight is a function (sde, t) -> Tensor such as sigma2, got {weight!r}; "
            "those with a name are in scoresde.objectives.WEIGHTS"
        )
    check_data(x, check_finite)
    if t is None:
        time, importance = sde.sample_times(len(x), law=law, generator=generator)
    elif law is not None:
        raise InvalidValueError("t= and law= exclude each other; give the times or their law")
    else:
        time = sde._times(t)
        importance = torch.ones_like(time)
    lam = weight(sde, time)
    check_has("a weight's value", lam, "shape", "a tensor of the times' shape")
    if lam.shape != time.shape:
        raise ShapeError(
            f"a weight has the shape of its times, {tuple(time.shape)}, got {tuple(lam.shape)}"
        )
    z = draw(x, generator) if noise is None else _checked_noise(noise, x)
    mean, std = sde.marginal(x, time)
    at = time.to(x.device, torch.promote_types(x.dtype, torch.float32)).expand(len(x))

    def score(state: Tensor) -> Tensor:
        out = model(state, at) if condition is None else model(state, at, condition)
        return as_score(out, state)

    return Perturbed(mean + std * z, z, time, mean, sde.sigma(time), importance * lam, score)


def check_data(x: Tensor, check_finite: bool = True) -> None:
    """Raise unless data are floating point numbers `(B, *)`, and finite where that is asked."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise InvalidTypeError(
            f"data must be floating point, got {got}; for 8-bit images: x.float() / 127.5 - 1"
        )
    if x.ndim == 0:
        raise ShapeError("data need a batch dimension (B, *), got one number")
    if check_finite and not x.isfinite().all():
        raise NonFiniteError("the data x holds NaN or infinity; remove or repair those samples")


def _checked_noise(noise: Tensor, x: Tensor) -> Tensor:
    if noise.shape != x.shape:
        raise ShapeError(
            f"noise has the shape of the data, {tuple(x.shape)}, got {tuple(noise.shape)}"
        )
    return noise.to(x)


def draw(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers like `x`, on its device."""
    check_generator(generator)
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)


def event_sum(x: Tensor) -> Tensor:
    """The sum over the event, `(B, *)` to `(B,)`."""
    return x.reshape(len(x), x.shape[1:].numel()).sum(1)

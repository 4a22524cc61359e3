r"""Map samples to latents and back by the probability flow, an invertible map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_batch, check_range, door
from scoresde.errors import ShapeError
from scoresde.likelihood.inputs import check_input, time
from scoresde.noise import Noise
from scoresde.samplers import ProbabilityFlow
from scoresde.score import evaluating
from scoresde.sde import SDE, Score

__all__ = ["decode", "encode", "slerp"]


@door
def encode(
    score: Score,
    sde: SDE | None,
    x: Tensor,
    *,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    max_nfe: int = 10_000,
    condition: Mapping[str, Any] | None = None,
) -> Tensor:
    r"""Return the latents of samples, `(B, *)`, by solving the probability flow from eps to `T`.

    `decode` inverts this map up to the errors of the solver, which the flow amplifies where it
    separates two modes. In tests in two dimensions the median error after both maps was one
    tolerance, and the largest of a hundred errors was 4 to 200 tolerances. For digits of the
    packaged `mnist` the largest error of a pixel was 24 to 1,250 tolerances, and the root mean
    square error of the pixels was 3 to 110 tolerances. `scoresde.sample(..., x=latents)` also
    starts from latents. The arguments and errors are those of `log_prob`.

    Examples:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> score = scoresde.targets.Gaussian([1.0, 0.0], std=0.5).at(sde)
        >>> x = torch.ones(1, 2)
        >>> back = scoresde.decode(score, sde, scoresde.encode(score, sde, x))
        >>> bool((back - x).abs().max() < 1e-4)
        True
    """
    method = ProbabilityFlow("dopri5", rtol, atol, max_nfe)
    return _flow_map(score, sde, x, method, condition, up=True)


@door
def decode(
    score: Score,
    sde: SDE | None,
    latents: Tensor,
    *,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    max_nfe: int = 10_000,
    condition: Mapping[str, Any] | None = None,
) -> Tensor:
    """Return the samples of latents, `(B, *)`, by solving the probability flow from `T` to eps.

    The arguments and errors are those of `encode`.

    Examples:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> score = scoresde.targets.Gaussian([1.0, 0.0], std=0.5).at(sde)
        >>> x = torch.ones(1, 2)
        >>> back = scoresde.decode(score, sde, scoresde.encode(score, sde, x))
        >>> bool((back - x).abs().max() < 1e-4)
        True
    """
    method = ProbabilityFlow("dopri5", rtol, atol, max_nfe)
    return _flow_map(score, sde, latents, method, condition, up=False)


def _flow_map(
    score: Score,
    sde: SDE | None,
    x: Tensor,
    method: ProbabilityFlow,
    condition: Mapping[str, Any] | None,
    *,
    up: bool,
) -> Tensor:
    """Map samples from eps to `T`, or latents from `T` to eps, by the flow."""
    sde, given = check_input(score, sde, x, condition)
    t, s = (sde.eps, sde.T) if up else (sde.T, sde.eps)
    with evaluating(score), torch.no_grad():
        noise = Noise([], [], horizon=sde.T)
        return method.step(sde.reverse(score, condition=given), x, time(t), time(s), noise)


@door
def slerp(a: Tensor, b: Tensor, weight: float) -> Tensor:
    r"""Interpolate between two latents `(B, *)` along the great circle through them.

    $$ \frac{\sin((1 - w)\theta)}{\sin\theta}\, a + \frac{\sin(w\theta)}{\sin\theta}\, b, \qquad
       \cos\theta = \frac{\langle a, b \rangle}{\|a\| \|b\|} $$

    Points on the great circle between two independent normal latents have a typical length, while
    points on the chord are too short (Shoemake 1985; White 2016, arXiv:1609.04468). Parallel
    latents are interpolated linearly.

    Args:
        a: Latents, the result at `weight` 0.
        b: Latents, the result at `weight` 1.
        weight: $w$, from 0 to 1.

    Raises:
        ShapeError: `a` and `b` have different shapes.
        InvalidTypeError: A latent is not floating-point.
        InvalidValueError: The weight is outside [0, 1].
        NonFiniteError: A latent holds a NaN or an infinity.
    """
    check_batch("a", a)
    check_batch("b", b, a.shape[1:])
    if len(a) != len(b):
        raise ShapeError(f"a and b hold {len(a)} and {len(b)} latents; give equal numbers")
    check_range("weight", weight, "[0, 1]")
    u, v = (y.double().reshape(len(y), y.shape[1:].numel()) for y in (a, b))
    # normalise first, since the squares of latents may overflow
    cos = (_directions(u) * _directions(v)).sum(1)
    theta = torch.arccos(cos.clamp(-1, 1))
    straight = theta.sin().abs() < 1e-6
    sine = torch.where(straight, 1.0, theta.sin())
    left = torch.where(straight, 1 - weight, ((1 - weight) * theta).sin() / sine)
    right = torch.where(straight, weight, (weight * theta).sin() / sine)
    return (left[:, None] * u + right[:, None] * v).reshape(a.shape).to(a.dtype)


def _directions(rows: Tensor) -> Tensor:
    """Return rows `(B, D)` scaled to length 1; rows of zeros stay zero."""
    if rows.numel() == 0:
        return rows
    rows = rows / rows.abs().amax(1, keepdim=True).clamp(min=5e-324)
    length: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / length.clamp(min=1)

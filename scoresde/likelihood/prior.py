r"""The two ends of the time axis: the Gaussian at `T`, and the data below `eps`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde.divergence import jacobian
from scoresde.errors import InvalidValueError
from scoresde.sde import Moments, ReverseSDE, expand

__all__ = ["heat_correction", "read_moments"]


def read_moments(
    rsde: ReverseSDE,
    event_shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Moments:
    r"""The data's moments, read from the score at `T`, where the denoiser is nearly affine.

    For Gaussian data $D(x) = E[x_0 | x_T = x]$ has the Jacobian
    $\alpha\,\partial D/\partial x = J = \alpha^2\Sigma\,(\alpha^2\Sigma + \sigma^2)^{-1}$, so that

    $$ \Sigma = \frac{\sigma^2}{\alpha^2}\, J (I - J)^{-1}, \qquad \mu = (I - J)^{-1} D(0). $$

    One evaluation and D vector-Jacobian products at $x = 0$.

    Args:
        rsde: The reverse SDE of the score.
        event_shape: The shape of one sample.
        dtype: That of the states the score takes.
        device: That of the states; by default the CPU.

    Returns:
        The mean, of the event's shape, and the covariance `(D, D)`, symmetric and without negative
        eigenvalues, in float64.

    Raises:
        InvalidValueError: The score at `T` is that of no Gaussian.
    """
    sde, size = rsde.sde, math.prod(event_shape)
    end = torch.tensor(sde.T, dtype=torch.float64)
    alpha, var = sde.alpha(end), sde.sigma(end) ** 2
    x = torch.zeros(1, *event_shape, dtype=dtype, device=device)
    score, slopes = (part.cpu().double() for part in jacobian(lambda y: rsde.score(y, end), x))
    slopes = slopes[0]
    # with D = (x + sigma^2 score) / alpha, I - J is -sigma^2 times the slope of the score
    rest = -var * (slopes + slopes.T) / 2
    values, basis = torch.linalg.eigh(rest)
    if not ((values > 0) & values.isfinite()).all():
        raise InvalidValueError(
            "the moments of the data cannot be read from this score at T, where it is no "
            f"Gaussian's; give them as moments=Moments(mean, var=...) (eigenvalues {values})"
        )
    at_zero = (var * score / alpha).reshape(size)
    mean = basis @ ((basis.T @ at_zero) / values)
    variances = (var / alpha**2 * (1 - values) / values).clamp(min=0)
    return Moments(mean.reshape(event_shape), cov=(basis * variances) @ basis.T)


def heat_correction(sde_sigma: Tensor, score: Tensor, trace: Tensor) -> Tensor:
    r"""What $\log p_0$ has over $\log p_\epsilon$ at the same point, to first order in the noise.

    Noise is heat: with $\tau = \sigma^2/\alpha^2$ the density of $x / \alpha$ obeys
    $\partial_\tau p = \tfrac12 \Delta p$, so that one step back in $\tau$ is

    $$ \log p_0 - \log p_\epsilon \approx
       -\tfrac12 \sigma_\epsilon^2 \big(\nabla\cdot s + \|s\|^2\big). $$

    Args:
        sde_sigma: $\sigma_\epsilon$, `()`.
        score: $s$ at the points, `(B, *)`.
        trace: $\nabla\cdot s$ there, `(..., B)`.

    Returns:
        The correction in nats, `(..., B)`, float64.
    """
    square = score.double().square().reshape(len(score), score[:1].numel()).sum(1)
    return -0.5 * expand(sde_sigma**2, square) * (trace.double() + square)

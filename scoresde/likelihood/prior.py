r"""Compute the distribution of the score at `T`: its moments, and its deviation from a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scoresde.divergence import jacobian
from scoresde.errors import InvalidValueError
from scoresde.noise import Noise
from scoresde.sde import SDE, Condition, Moments, ReverseSDE

__all__ = ["LawAtEnd", "alike", "read_moments"]

_PAIRS = 32
_NODES, _WEIGHTS = (v.tolist() for v in np.polynomial.legendre.leggauss(5))


def read_moments(
    rsde: ReverseSDE,
    event_shape: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device | None = None,
) -> Moments:
    r"""Return the data's moments from the score at `T`, where the denoiser is nearly affine.

    For Gaussian data $D(x) = E[x_0 | x_T = x]$ has the Jacobian
    $\alpha\,\partial D/\partial x = J = \alpha^2\Sigma\,(\alpha^2\Sigma + \sigma^2)^{-1}$, so that

    $$ \Sigma = \frac{\sigma^2}{\alpha^2}\, J (I - J)^{-1}, \qquad \mu = (I - J)^{-1} D(0). $$

    This takes one evaluation and D vector-Jacobian products at $x = 0$.

    Args:
        rsde: The reverse SDE of the score.
        event_shape: The shape of one sample.
        dtype: The dtype of the states.
        device: The device of the states; by default the CPU.

    Returns:
        The mean, of the event's shape, and the covariance `(D, D)`, symmetric and without negative
        eigenvalues, in float64.

    Raises:
        InvalidValueError: The Jacobian of the score at `T` is not negative definite.
    """
    sde, size = rsde.sde, math.prod(event_shape)
    end = torch.tensor(sde.T, dtype=torch.float64)
    alpha, var = sde.alpha(end), sde.sigma(end) ** 2
    x = torch.zeros(1, *event_shape, dtype=dtype, device=device)
    score, slopes = (part.cpu().double() for part in jacobian(lambda y: rsde.score(y, end), x))
    slopes = slopes[0]
    # with D = (x + sigma^2 score) / alpha, I - J is -sigma^2 times the Jacobian of the score
    rest = -var * (slopes + slopes.T) / 2
    values, basis = torch.linalg.eigh(rest)
    if not ((values > 0) & values.isfinite()).all():
        raise InvalidValueError(
            "the moments of the data cannot be read from this score at T, where it is not the "
            "score of a Gaussian; give moments=Moments(mean, var=...). The eigenvalues of "
            "-sigma^2 times its Jacobian, which should be above 0, go from "
            f"{values.min():.3g} to {values.max():.3g}"
        )
    at_zero = (var * score / alpha).reshape(size)
    mean = basis @ ((basis.T @ at_zero) / values)
    variances = (var / alpha**2 * (1 - values) / values).clamp(min=0)
    return Moments(mean.reshape(event_shape), cov=(basis * variances) @ basis.T)


@dataclass(frozen=True, eq=False)
class LawAtEnd:
    r"""Define the distribution at `T`: a Gaussian, corrected by a line integral of the score.

    With the score $s_N$ of the Gaussian $N$, whose mean is m,

    $$ \log p_T(z) = \log N(z) + \delta(z) + c, \qquad
       c = -\log E_N\big[e^{\delta}\big], $$

    $$ \delta(z) = \int_0^1 (z - m) \cdot (s_T - s_N)\big(m + u (z - m)\big)\, du. $$

    The integral is computed with 5 Gauss nodes, and the expectation with 32 pairs of draws
    $m \pm y$. The integral is also computed along a second path, which leads through the first
    draw. The results of the two paths differ if the score is not a gradient or the nodes are too
    few, so their difference is part of the error.

    Args:
        law: The Gaussian $N$.
        draws: Draws of $N$, `(64, *)`; draws i and i + 32 are a pair.
        end: The time `T`.
    """

    law: Moments
    draws: Tensor
    end: Tensor

    @classmethod
    def of(cls, sde: SDE, moments: Moments | None, like: Tensor, seed: int) -> LawAtEnd:
        """Return the distribution at `T` for data with these moments, and samples as in `like`."""
        law, pairs = sde.prior(moments), torch.empty(_PAIRS, *like.shape[1:], dtype=torch.float64)
        z = Noise.of(seed, _PAIRS).fork(2).normal(pairs.to(like.device), math.inf)
        return cls(law, law.sample(torch.cat([z, -z])), torch.tensor(sde.T, dtype=torch.float64))

    def line(self, rsde: ReverseSDE, start: Tensor, to: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the integral from `start` to `to`, each `(B, *)`, by 5 evaluations: `(B,)`."""
        line, total = to - start, to.new_zeros(len(to))
        for node, weight in zip(_NODES, _WEIGHTS, strict=True):
            x = start + (1 + node) / 2 * line
            gap = rsde.score(x.to(dtype), self.end).double() - self.law.score(x)
            total = total + weight / 2 * (line * gap).reshape(len(to), to.shape[1:].numel()).sum(1)
        return total

    def constant(self, rsde: ReverseSDE, dtype: torch.dtype) -> Tensor:
        """Return c and its half-width, the integral to the first draw, and the RMS of delta + c."""
        delta = self.line(rsde, self._mean(self.draws), self.draws, dtype)
        bent = delta[0] + self.line(rsde, self.draws[0].expand_as(self.draws), self.draws, dtype)
        c, error = _normaliser(delta)
        error = error + (_normaliser(bent)[0] - c).abs()
        return torch.stack([c, error, delta[0], (delta + c).square().mean().sqrt()])

    def correction(
        self,
        reverse: Callable[[Tensor | slice], ReverseSDE],
        shared: Tensor | None,
        z: Tensor,
        dtype: torch.dtype,
        alike: Sequence[int] = (),
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        r"""Return $\delta + c$ at points `(B, *)`, its error, its root mean square, and the cost.

        Args:
            reverse: A function that returns the reverse SDE of some of the samples.
            shared: The result of `constant`, or None to compute it for each condition.
            z: The points.
            dtype: The dtype in which the score is evaluated.
            alike: For each sample, the index of the first sample with the same condition; needed if
                `shared` is None.

        Returns:
            The correction and the half-width of its error, `(B,)`; the root of its mean square over
            the draws, `(B,)` or `(1,)`; the evaluations of each point.
        """
        spent = 2 * len(_NODES)
        if shared is None:
            chosen = {
                i: self.constant(reverse(torch.full((len(self.draws),), i)), dtype)
                for i in dict.fromkeys(alike)
            }
            shared = torch.stack([*(chosen[i] for i in alike), z.new_zeros(4)], 1)[:, : len(z)]
        else:
            shared = shared[:, None]
        (c, error, first, gap), rsde = shared, reverse(slice(None))
        straight = self.line(rsde, self._mean(z), z, dtype)
        bent = first + self.line(rsde, self.draws[0].expand_as(z), z, dtype)
        return straight + c, error + (bent - straight).abs(), gap, spent

    def _mean(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.law.mean, dtype=torch.float64).to(like.device).expand_as(like)


def alike(condition: Condition | None) -> list[int]:
    """Return for each sample the index of the first sample with the same condition."""
    if condition is None:
        return []
    columns = [value.cpu().reshape(len(value), -1).numpy() for value in condition.values()]
    first: dict[bytes, int] = {}
    keys = (b"".join(row.tobytes() for row in rows) for rows in zip(*columns, strict=True))
    return [first.setdefault(key, i) for i, key in enumerate(keys)]


def _normaliser(delta: Tensor) -> tuple[Tensor, Tensor]:
    """Return c and its half-width, `()` each, from the integrals to the draws, `(64,)`."""
    from scoresde.metrics.interval import mean_interval  # here, since it is slow to import

    top = delta.max()
    mass = (delta - top).exp().reshape(2, _PAIRS).mean(0)
    # their distribution is skewed, so the interval is not symmetric
    mean, ends = mass.mean(), mass.new_tensor(mean_interval(mass))
    return -top - mean.log(), (ends - mean).abs().max() / mean

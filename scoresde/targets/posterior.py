r"""Compute exact posteriors of Gaussian mixtures, which are mixtures again.

For $x_0 \sim \sum_k w_k N(\mu_k, C_k)$ and $y = A x_0 + \text{std}\,\varepsilon$, with
$S_k = A C_k A^T + \text{std}^2$ and $K_k = C_k A^T S_k^{-1}$,

$$ p(x_0 | y) = \sum_k w'_k\, N\big(\mu_k + K_k (y - A\mu_k),\; C_k - K_k A C_k\big), \qquad
   w'_k \propto w_k\, N(y; A\mu_k, S_k). $$

The sum of the unnormalised weights is the evidence $p(y)$.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scoresde.checks import as_numbers, check_finite, door
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.targets.gaussian import Numbers, spectrum
from scoresde.targets.mixture import Components
from scoresde.targets.target import Target

__all__ = ["Posterior"]

Map = Callable[[Tensor], Tensor] | Tensor


class Posterior(Target):
    r"""Define the exact distribution of $x_0$ given $y = A x_0 + \text{std}\,\varepsilon$.

    `target.posterior(...)` constructs it.

    Args:
        target: The prior.
        A: A linear function of a batch of events, or a matrix `(m, D)` over the flattened event.
        std: The standard deviation of the noise, a number or of the shape of y; at least 0.
        y: The measurement, with NaN for entries that were not measured.

    Attributes:
        log_evidence: $\log p(y)$ of the measured entries, a number.

    Raises:
        InvalidTypeError: An argument is not made of real numbers, or `A` fails for a batch.
        InvalidValueError: `std` is negative, or 0 for entries of y whose rows of A are linearly
            dependent; or `A` is not 0 at 0.
        NonFiniteError: `std` is NaN or infinite, or an entry of `y` is infinite.
        ShapeError: `y` does not have the shape of a measurement by `A`, or a matrix `A` does not
            have D columns.
    """

    @door
    def __init__(self, target: Target, A: Map, std: Numbers, y: Numbers) -> None:
        event = target.event_shape
        matrix, shape = _matrix(A, event)
        y, std = (as_numbers(n, v, dtype=torch.float64) for n, v in (("y", y), ("std", std)))
        check_finite("std", std)
        if (std < 0).any():
            raise InvalidValueError("std, a standard deviation, must not be negative")
        if tuple(y.shape) != shape:
            raise ShapeError(
                f"y must have the shape {shape} of a measurement, got {tuple(y.shape)}"
            )
        if tuple(std.shape) not in {(), shape}:
            raise ShapeError(f"std must be a number or of shape {shape}, got {tuple(std.shape)}")
        there = ~y.flatten().isnan()
        check_finite("y", y.flatten()[there])
        y, noise = y.flatten()[there], std.expand(shape).flatten()[there] ** 2
        matrix = matrix[there]
        c, means = target.components, target.components.flat_means
        if c.basis is None:
            covs = torch.diag_embed(c.variances.expand_as(means))
        else:
            covs = (c.basis * c.variances[:, None]) @ c.basis.mT
        cross = covs @ matrix.T
        root, failed = torch.linalg.cholesky_ex(matrix @ cross + noise.diag())
        if bool(failed.any()):
            raise InvalidValueError(
                "some entries of y without noise are linear combinations of other entries; give "
                "std > 0, or set such entries to NaN"
            )
        gap = y - means @ matrix.T
        white = torch.linalg.solve_triangular(root, gap[..., None], upper=False)
        gain = torch.cholesky_solve(cross.mT, root).mT
        logs = c.weights.log() - (white**2).sum((1, 2)) / 2
        logs = (
            logs - root.diagonal(dim1=1, dim2=2).log().sum(1) - len(y) * math.log(2 * math.pi) / 2
        )
        covs = covs - gain @ cross.mT
        moved = (means + (gain @ gap[..., None])[..., 0]).reshape(-1, *event)
        variances, basis = spectrum("the covariance", (covs + covs.mT) / 2, moved)
        super().__init__(Components(logs.softmax(0), moved, variances, basis))
        self.log_evidence = float(logs.logsumexp(0))


def _matrix(A: Map, event: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """Return a linear map as a matrix `(m, D)`, and the shape of a measurement."""
    d = math.prod(event)
    if isinstance(A, Tensor):
        if A.ndim != 2 or A.shape[1] != d:
            raise ShapeError(
                f"a matrix A must have the shape (m, {d}), with one column for each entry of the "
                f"flattened event, got {tuple(A.shape)}"
            )
        return A.detach().double(), (len(A),)
    eye = torch.eye(d, dtype=torch.float64).reshape(d, *event)
    try:
        with torch.no_grad():
            columns, zero = A(eye), A(torch.zeros_like(eye[:1]))
    except Exception as error:  # a function of the user may raise any error
        raise InvalidTypeError(
            f"A fails for a batch of events, a tensor of shape {tuple(eye.shape)} in float64: "
            f"{type(error).__name__}: {error}"[:500]
        ) from error
    if not isinstance(columns, Tensor) or not columns.is_floating_point() or len(columns) != d:
        raise InvalidTypeError(
            "A must map a batch of events to a floating-point tensor with one row for each event"
        )
    if zero.any():
        raise InvalidValueError("A is not linear: its value at 0 is not 0")
    return columns.reshape(d, -1).T, tuple(columns.shape[1:])

r"""Solve one linear system for each sample, given the products of its matrix with vectors.

The equation is $M u = r$ with $M = A V A^T + \Sigma$. A product $M p$ needs one product with the
covariance $V$, which costs a backward pass through the network. Its intermediate result is
$V A^T p$. So the shift of the denoised state, $w = V A^T u$, is computed together with $u$ without
further products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Solution", "dot", "solve"]

Product = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A function that maps a vector p to the two products $V A^T p$ and $M p$."""


class Solution(NamedTuple):
    r"""Hold the solution of one system for each sample.

    Attributes:
        w: $V A^T u$.
        u: The solution, of the shape of the right-hand side.
        residual: $\|r - M u\| / \|r\|$, `(B,)`; 0 if r is 0.
    """

    w: Tensor
    u: Tensor
    residual: Tensor


def solve(
    r: Tensor,
    product: Product,
    iterations: int,
    guess: Callable[[Tensor], Tensor] = lambda left: left,
) -> Solution:
    r"""Solve $M u = r$ by generalised conjugate residuals, which minimise the residual.

    The method is equivalent to GMRES. It does not need a symmetric $M$, since the Jacobian of a
    network is not symmetric. Eisenstat, Elman & Schultz (1983), *Variational iterative methods for
    nonsymmetric systems of linear equations*, doi:10.1137/0720023.

    Args:
        r: Right-hand sides `(B, *)`.
        product: A function that maps a vector p to $V A^T p$ and $M p$.
        iterations: The number of products, at least 1.
        guess: The preconditioner, a function that approximates $M^{-1} p$. It may be another linear
            map at each call.
    """
    flat = r.detach().reshape(len(r), r.shape[1:].numel())
    size = torch.nn.functional.pad(flat, (0, 1)).abs().amax(1)  # pad by 0, since flat may be empty
    unit = torch.where(size > 0, size, 1.0)
    r = r / column(unit, r)  # so that squares neither overflow nor underflow
    left, directions = r, list[tuple[Tensor, Tensor, Tensor]]()
    u, w, least = torch.zeros_like(r), torch.zeros(()), torch.zeros(())
    for i in range(iterations):
        p = guess(left)
        z, q = product(p)
        for other in directions:
            c = dot(q, other[2])
            p, z, q = (a - column(c, a) * b for a, b in zip((p, z, q), other, strict=True))
        square = dot(q, q)
        if i == 0:  # a later direction is dropped if it is below the rounding error of this norm
            least = torch.finfo(r.dtype).eps ** 2 * square.detach()
        scale = _inverse(square, least)
        p, z, q = (column(scale, a) * a for a in (p, z, q))
        c = dot(left, q)
        left = left - column(c, q) * q
        u = u + column(c, p) * p
        w = column(c, z) * z if i == 0 else w + column(c, z) * z
        directions.append((p, z, q))
    squared = dot(left, left) * _inverse(dot(r, r), torch.zeros(())) ** 2
    u, w = column(unit, u) * u, column(unit, w) * w if w.ndim else w
    return Solution(w, u, squared.detach().sqrt())


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of each row of a with the same row of b, `(B,)`."""
    return (a * b).reshape(len(a), a.shape[1:].numel()).sum(1)


def column(c: Tensor, like: Tensor) -> Tensor:
    """Reshape one number per row so that it broadcasts against `like`."""
    return c.reshape(-1, *(1,) * (like.ndim - 1))


def _inverse(square: Tensor, least: Tensor) -> Tensor:
    """Return 1 / sqrt(square), or 0 (with a finite gradient) where square is at most `least`."""
    seen = square > least
    return torch.where(seen, square, 1.0).rsqrt() * seen

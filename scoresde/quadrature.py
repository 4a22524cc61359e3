"""Compute Gauss-Legendre quadrature and Lagrange polynomials, for multistep methods."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["NODES", "STENCIL", "gauss_legendre", "interpolated", "lagrange", "lagrange_integrals"]

NODES = 24
"""The number of nodes in an interval; the rule is exact for polynomials of degree 47."""
_X, _W = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(NODES))
_X, _W = (_X + 1) / 2, _W / 2


STENCIL = 6
"""The number of points through which each polynomial in `interpolated` goes."""


def gauss_legendre(start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes and weights `(N, Q)` for N intervals with ends `(N, 1)`."""
    return torch.lerp(start, end, _X), (end - start) * _W


def lagrange(nodes: Tensor, at: Tensor) -> Tensor:
    r"""Evaluate the Lagrange polynomials $w_j(a) = \prod_{k \ne j} (a - n_k) / (n_j - n_k)$.

    Args:
        nodes: Distinct nodes `(..., m)`.
        at: The points a, `(..., Q)`.

    Returns:
        The values `(..., Q, m)`, which sum to one over j.
    """
    m = nodes.shape[-1]
    numerator = (at[..., None] - nodes[..., None, :])[..., None, :].expand(*at.shape, m, m)
    denominator = nodes[..., :, None] - nodes[..., None, :]
    eye = torch.eye(m, dtype=torch.bool)
    ratio = numerator / denominator.masked_fill(eye, 1.0)[..., None, :, :]
    return ratio.masked_fill(eye, 1.0).prod(-1)


def interpolated(nodes: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Return values `(..., r)` at points `(...)`, by polynomials through 6 neighbouring nodes.

    There are three nodes on each side of a point, except near the ends.

    Args:
        nodes: Increasing nodes `(K,)`, at least 6.
        values: The values at the nodes, `(K, r)`.
        at: The points. Beyond the first and the last node the values at these nodes are returned.
    """
    at = at.clamp(nodes[0], nodes[-1])
    first = torch.searchsorted(nodes, at.contiguous()) - STENCIL // 2
    near = first.clamp(0, len(nodes) - STENCIL)[..., None] + torch.arange(STENCIL)
    weights = lagrange(nodes[near], at[..., None])[..., 0, :]
    matrix = weights.new_zeros(*at.shape, len(nodes)).scatter(-1, near, weights)
    return matrix.to(values) @ values


def lagrange_integrals(nodes: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Integrate the Lagrange polynomials of `nodes` `(M, q)` from a to b `(M,)`.

    Returns:
        The integrals `(M, q)`, exact up to rounding: Gauss-Legendre quadrature with q nodes is
        exact for these polynomials, and needs no expansion in powers, whose terms may cancel.
    """
    q = nodes.shape[1]
    points, parts = (torch.from_numpy(v).to(nodes) for v in np.polynomial.legendre.leggauss(q))
    half = (b - a)[:, None] / 2
    at = a[:, None] + half * (1 + points)
    return torch.einsum("mq,mqj->mj", half * parts, lagrange(nodes, at))

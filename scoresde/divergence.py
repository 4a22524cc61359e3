r"""Compute the divergence of a vector field, exactly or with random probes.

$$ \nabla \cdot f(x) = \sum_j \partial f_j / \partial x_j
   = E\big[v^T (\partial f / \partial x)\, v\big], \qquad E[v v^T] = I $$

The sum needs one vector-Jacobian product for each dimension. The expectation, the estimator of
Hutchinson (1989, *A stochastic estimator of the trace of the influence matrix*), needs one product
for each probe. Let $A$ be the Jacobian and $S = (A + A^T) / 2$. The variance of the estimate is
$2 (\|S\|_F^2 - \sum_j A_{jj}^2)$ with one Rademacher probe, and $2 \|S\|_F^2$ with one Gaussian
probe. One forward pass gives both value and divergence. The functions also work under
`torch.no_grad`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scoresde.errors import InvalidTypeError, ShapeError

__all__ = ["divergence", "frobenius", "hutchinson", "jacobian"]

Function = Callable[[Tensor], Tensor]

# The largest number of entries in the products of one batched call, which limits the memory.
_BUDGET = 2**24


def divergence(f: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return $f(x)$ and the exact $\nabla \cdot f(x)$, by D vector-Jacobian products.

    Args:
        f: A function that maps `(B, *)` to `(B, *)`, where row i of the result depends only on row
            i of the input.
        x: The points, `(B, *)`, floating-point.

    Returns:
        The value `(B, *)` and the divergence `(B,)`, in the dtype of `x`, without autograd graph.

    Raises:
        InvalidTypeError: The value has no autograd graph, since it was computed under `no_grad` or
            does not depend on `x`.
        ShapeError: The value has another shape than `x`.
    """
    value, at = _forward(f, x)
    total = x.new_zeros(len(x))
    for axes, products in _by_axes(value, at):
        for j, axis in enumerate(axes):
            total = total + products[j, :, axis]
    return value.detach(), total


def jacobian(f: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return $f(x)$ and the Jacobian $\partial f_i / \partial x_j$ of each flattened row.

    Arguments and errors are those of `divergence`.

    Returns:
        The value `(B, *)` and the Jacobian `(B, D, D)`, in the dtype of `x`, without autograd
        graph.
    """
    value, at = _forward(f, x)
    size = math.prod(x.shape[1:])
    rows = [products for _, products in _by_axes(value, at)]
    matrix = torch.cat(rows) if rows else x.new_zeros(size, len(x), size)
    return value.detach(), matrix.transpose(0, 1)


def hutchinson(f: Function, x: Tensor, probes: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return $f(x)$ and one unbiased estimate $v^T (\partial f / \partial x)\, v$ for each probe.

    Args:
        f: A function that maps `(B, *)` to `(B, *)`, where row i of the result depends only on row
            i of the input.
        x: The points, `(B, *)`, floating-point.
        probes: K probes for each row, `(K, B, *)`, of mean zero and identity covariance.

    Returns:
        The value `(B, *)` and the estimates `(K, B)`, in the dtype of `x`, without autograd graph.

    Raises:
        InvalidTypeError: The value has no autograd graph.
        ShapeError: The value or the probes have another shape than `x`.
    """
    if probes.shape[1:] != x.shape:
        raise ShapeError(
            f"probes must have shape (K, {', '.join(map(str, x.shape))}), got {tuple(probes.shape)}"
        )
    value, at = _forward(f, x)
    # contiguous, since the order of summation would otherwise depend on the batch
    products = (_products(value, at, probes) * probes).contiguous()
    return value.detach(), products.reshape(*probes.shape[:2], math.prod(x.shape[1:])).sum(2)


def frobenius(f: Function, x: Tensor, probes: Tensor | None = None) -> Tensor:
    r"""Return $\|\partial f / \partial x\|_F$ of each row, `(B,)` float64.

    Args:
        f: A function that maps `(B, *)` to `(B, *)`, where row i of the result depends only on row
            i of the input.
        x: The points, `(B, *)`, floating-point.
        probes: Probes v as in `hutchinson`, with which the norm is estimated as the root of the
            mean of $\|v^T \partial f / \partial x\|^2$. None takes the exact Jacobian.

    Raises:
        InvalidTypeError: The value has no autograd graph.
        ShapeError: The value has another shape than `x`.
    """
    if probes is None:
        return jacobian(f, x)[1].double().square().sum((1, 2)).sqrt()
    value, at = _forward(f, x)
    products = _products(value, at, probes).double()
    size = math.prod(x.shape[1:])
    return products.square().reshape(*probes.shape[:2], size).sum(2).mean(0).sqrt()


def _forward(f: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the value of f with its autograd graph, and the copy of x on which it depends."""
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_()
        value = f(at)
    if value.shape != x.shape:
        raise ShapeError(
            f"the field must have the shape of x, {tuple(x.shape)}, got {tuple(value.shape)}"
        )
    if not value.requires_grad and x.numel() > 0:
        raise InvalidTypeError(
            "the field cannot be differentiated: it was computed under torch.no_grad, was "
            "detached, or does not depend on x; make it differentiable"
        )
    return value, at


def _by_axes(value: Tensor, at: Tensor) -> Iterator[tuple[list[int], Tensor]]:
    """Yield indices of rows of the Jacobians, and these rows `(chunk, B, D)`."""
    size = math.prod(at.shape[1:])
    chunk = max(_BUDGET // max(at.numel(), 1), 1)
    for first in range(0, size, chunk):
        axes = torch.arange(first, min(first + chunk, size), device=at.device)
        unit = torch.nn.functional.one_hot(axes, size).to(at.dtype)
        rows = unit.reshape(-1, 1, *at.shape[1:]).expand(-1, *at.shape)
        yield axes.tolist(), _products(value, at, rows).reshape(len(axes), len(at), size)


def _products(value: Tensor, at: Tensor, cotangents: Tensor) -> Tensor:
    r"""Return $v^T \partial f / \partial x$ for each cotangent v of `(K, B, *)`, in one pass."""

    def product(v: Tensor, batched: bool) -> Tensor:
        (out,) = torch.autograd.grad(
            value, at, v, retain_graph=True, is_grads_batched=batched, allow_unused=True
        )
        return torch.zeros_like(v) if out is None else out

    if at.numel() == 0:
        return torch.zeros_like(cotangents)
    if len(cotangents) > 1:
        try:
            return product(cotangents, True)
        except RuntimeError:  # an operation has no batching rule, or there is too little memory
            pass
    return torch.stack([product(v, False) for v in cotangents])

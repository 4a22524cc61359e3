r"""Define the optimiser Muon: orthogonal steps for matrices, and Adam for all other weights.

Let $W$ be a matrix of $r$ rows and $c$ columns, $G$ its gradient, $M$ its momentum, $\mu$ the decay
of the momentum and $\eta$ the learning rate. The step is the momentum with all singular values
replaced by 1, so that the weights move equally far in rare and in common directions of the
gradient:

$$
M \leftarrow \mu M + (1 - \mu) G, \qquad
W \leftarrow W - \eta \cdot 0.2 \sqrt{\max(r, c)}\;\mathrm{orth}\big(\mu M + (1 - \mu) G\big)
$$

(Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). With the factor the root mean
square entry of a step is $0.2\,\eta$, about as large as with Adam, so that both can use the same
learning rate (Liu et al. 2025, arXiv:2502.16982). The kernel of a convolution is treated as a
matrix with a row for each output channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from scoresde.training.shard import laid_like, whole

__all__ = ["Muon", "orthogonal"]

# Coefficients of x -> a x + b x^3 + c x^5. Five iterations map [.01, 1] into about [.7, 1.2].
_A, _B, _C, _ROUNDS = 3.4445, -4.7750, 2.0315, 5


class Muon(torch.optim.Adam):
    r"""Update parameter groups with `"matrices": True` by Muon, and all others by Adam.

    As in Adam with `decoupled_weight_decay`, weight decay first multiplies the matrices of a group
    by 1 - learning rate * `weight_decay`.

    Args:
        params: The parameter groups.
        momentum: The momentum $\mu$ in [0, 1).
        half: Compute the orthogonal steps in bfloat16, which is faster on a GPU.
        others: The arguments of Adam.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        momentum: float = 0.95,
        half: bool = False,
        **others: Any,
    ) -> None:
        super().__init__([{"matrices": False, **group} for group in params], **others)
        self.momentum = momentum
        self.half = half

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["matrices"]]
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group["matrices"]:
                weights = [p for p in group["params"] if p.grad is not None]
                self._move(weights, group["lr"], group["weight_decay"])

    def _move(self, weights: Sequence[Tensor], lr: float, decay: float) -> None:
        # matrices of the same shape are orthogonalised together
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
        for p in weights:
            assert p.grad is not None
            state = self.state[p]
            if not state:
                # torch's load_state_dict expects an entry `step` for every weight
                state.update(step=torch.zeros(()), momentum=torch.zeros_like(p))
            state["step"] += 1
            state["momentum"].lerp_(p.grad, 1 - self.momentum)
            step = whole({"": p.grad.lerp(state["momentum"], self.momentum)})[""].flatten(1)
            alike.setdefault(step.shape, []).append((p, step))
        for (rows, columns), found in alike.items():
            steps = torch.stack([step for _, step in found])
            steps = orthogonal(steps.bfloat16() if self.half else steps)
            rate = 0.2 * math.sqrt(max(rows, columns)) * lr
            for (p, _), step in zip(found, steps, strict=True):
                p.mul_(1 - lr * decay)
                p.sub_(laid_like(step.to(p).reshape(p.shape), p), alpha=rate)


def orthogonal(x: Tensor) -> Tensor:
    r"""Return matrices `(B, r, c)` with the same singular vectors and singular values near 1.

    Compute five steps of the Newton-Schulz iteration $X \leftarrow a X + b XX^T X + c (XX^T)^2 X$
    from $X / \|X\|_F$. The coefficients increase small singular values fast. Singular values of at
    least $\|X\|_F / 100$ become about .7 to 1.2; smaller ones may stay smaller.
    """
    if x.shape[1] > x.shape[2]:
        return orthogonal(x.mT).mT
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    for _ in range(_ROUNDS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=_B, alpha=_C), x, beta=_A)
    return x

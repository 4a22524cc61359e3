r"""Exponential moving average of a model's weights.

After update number $k = 0, 1, \dots$ with weights $\theta_k$

$$\bar\theta \leftarrow d_k \bar\theta + (1 - d_k) \theta_k, \qquad
  d_k = \min\!\left(d, \frac{1 + k}{10 + k}\right)$$

so that without warm-up ($d_k = d$) the average after $n$ updates is
$d^n \theta_{\text{start}} + (1 - d) \sum_{j<n} d^j \theta_{n-1-j}$. The warm-up rule is that of
TensorFlow's `ExponentialMovingAverage(num_updates=...)`, as used by Song et al. (2021,
arXiv:2011.13456): the first, bad weights are forgotten in tens of steps instead of $1/(1-d)$.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from scoresde.checkpoint import load_state
from scoresde.errors import InvalidValueError

__all__ = ["EMA"]

ModelT = TypeVar("ModelT", bound=nn.Module)


class EMA(Generic[ModelT]):
    """A copy of a model that follows its trainable parameters slowly.

    Frozen parameters (`requires_grad=False`) and buffers are copied, not averaged.

    Args:
        model: what to follow; the average starts at its present weights.
        decay: $d$, in [0, 1).
        warmup: whether the decay starts low, by the rule of this module.

    Attributes:
        model: the averaged model, in eval mode and without gradients.
        updates: the number of updates so far.

    Raises:
        InvalidValueError: `decay` is outside [0, 1).
    """

    def __init__(self, model: ModelT, decay: float = 0.9999, *, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise InvalidValueError(f"decay is {decay}; it must lie in [0, 1), 0.9999 for example")
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.warmup = warmup
        self.updates = 0

    def decay_at(self, k: int) -> float:
        """The decay $d_k$ of update number `k`, counted from 0."""
        return min(self.decay, (1 + k) / (10 + k)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights of `model`, once."""
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        copies = list(zip(self.model.buffers(), model.buffers(), strict=True))
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            if theirs.requires_grad:
                averages.append(mine)
                weights.append(theirs)
            else:
                copies.append((mine, theirs))
        if averages:
            torch._foreach_lerp_(averages, weights, 1 - self.decay_at(self.updates))
        for old, new in copies:
            old.copy_(new)
        self.updates += 1

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block `model` has the averaged weights; afterwards, come what may, its own."""
        own = {k: v.clone() for k, v in model.state_dict().items()}
        try:
            model.load_state_dict(self.model.state_dict())
            yield
        finally:
            model.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights and the number of updates, as tensors."""
        weights = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        return {"updates": torch.tensor(self.updates), **weights}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave.

        Raises:
            CheckpointError: names or shapes differ.
        """
        weights = {k.removeprefix("model."): v for k, v in state.items() if k != "updates"}
        load_state(self.model, weights, source="the state of the average")
        self.updates = int(state.get("updates", 0))

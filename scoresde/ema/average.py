r"""Average the weights of a model during training.

After update number $k = 0, 1, \dots$ with weights $\theta$ the average becomes
$d_k \bar\theta + (1 - d_k) \theta$, with the decays $d_k$ of a `Profile`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from scoresde.checkpoint import load_state
from scoresde.checks import outside
from scoresde.ema.profile import Exponential, Power, Profile
from scoresde.errors import ShapeError

__all__ = ["EMA", "Average", "PowerEMA"]

ModelT = TypeVar("ModelT", bound=nn.Module)


class Average(Generic[ModelT]):
    """Keep a copy of a model with averaged weights.

    Frozen parameters (`requires_grad=False`) and buffers are copied, not averaged.

    Args:
        model: The model; the average starts at its current weights.
        profile: The decays of the average.

    Warns:
        RuntimeWarning: The weights have half precision, in which small updates of the average round
            to zero.

    Attributes:
        model: The averaged model, in eval mode and without gradients.
        profile: The decays of the average.
        updates: The number of updates so far.
    """

    def __init__(self, model: ModelT, profile: Profile) -> None:
        if low := {str(p.dtype) for p in model.parameters() if p.requires_grad and p.itemsize < 4}:
            warnings.warn(
                f"small updates of an average of {min(low)} weights round to zero, so the average "
                "stops changing; keep the weights in float32, and use autocast for half precision",
                RuntimeWarning,
                stacklevel=outside(),
            )
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.profile = profile
        self.updates = 0
        self.follow(model)

    @property
    def averaged(self) -> set[str]:
        """Return the names of the averaged parameters; other parameters are copied."""
        moved = {id(p) for p in self._moved[0]}
        known = self.model.named_parameters(remove_duplicate=False)
        return {name for name, p in known if id(p) in moved}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average with the weights of `model`.

        The tensors of `model` are looked up when the average is made, and again if another model is
        passed or a `requires_grad` changes. So change their values in place, and do not replace the
        tensors.

        Raises:
            ShapeError: The shapes of the parameters and buffers are not those of the average.
        """
        if model is not self._followed or [p.requires_grad for p in self._weights] != self._free:
            self.follow(model)
        mine, theirs = self._moved
        if mine:
            torch._foreach_lerp_(mine, theirs, 1 - self.profile.decay_at(self.updates))
        for old, new in self._copied:
            old.copy_(new)
        self.updates += 1

    def follow(self, model: nn.Module) -> None:
        """Look up the tensors of `model` that later updates will average or copy.

        Args:
            model: The model that later updates receive.

        Raises:
            ShapeError: The shapes of the parameters and buffers are not those of the average.
        """
        shapes = [
            [tuple(value.shape) for value in (*each.parameters(), *each.buffers())]
            for each in (self.model, model)
        ]
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"a {type(model).__name__} with {len(shapes[1])} tensors cannot be averaged with a "
                f"{type(self.model).__name__} with {len(shapes[0])} tensors, since their number or "
                "shapes differ; make a separate average for each model"
            )
        self._followed = model
        self._weights = list(model.parameters())
        self._free = [p.requires_grad for p in self._weights]
        self._copied = list(zip(self.model.buffers(), model.buffers(), strict=True))
        self._moved: tuple[list[Tensor], list[Tensor]] = ([], [])
        for mine, theirs in zip(self.model.parameters(), self._weights, strict=True):
            if theirs.requires_grad:
                self._moved[0].append(mine)
                self._moved[1].append(theirs)
            else:
                self._copied.append((mine, theirs))

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Load the averaged weights into `model` for the block, and restore its own afterwards."""
        before = {k: v.clone() for k, v in model.state_dict().items()}
        try:
            model.load_state_dict(self.model.state_dict())
            yield
        finally:
            model.load_state_dict(before)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the averaged model and the number of updates, as tensors."""
        weights = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        return {"updates": torch.tensor(self.updates), **weights}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `state_dict`.

        Raises:
            CheckpointError: Names or shapes differ.
        """
        weights = {k.removeprefix("model."): v for k, v in state.items() if k != "updates"}
        load_state(self.model, weights, source="the state of the average")
        self.updates = int(state.get("updates", 0))


class EMA(Average[ModelT]):
    r"""Average the weights of a model exponentially, by an `Exponential` profile.

    Without warm-up the average after $n$ updates is
    $d^n \theta_{\text{start}} + (1 - d) \sum_{j<n} d^j \theta_{n-j}$.

    Args:
        model: The model; the average starts at its current weights.
        decay: $d$, in [0, 1).
        warmup: Start with a lower decay, by the rule of `Exponential`.

    Raises:
        InvalidTypeError: `decay` is not a number.
        InvalidValueError: `decay` is outside [0, 1).
    """

    def __init__(self, model: ModelT, decay: float = 0.9999, *, warmup: bool = True) -> None:
        super().__init__(model, Exponential(decay, warmup))


class PowerEMA(Average[ModelT]):
    r"""Average the weights of a model by a power function, the `Power` profile.

    After $n$ updates the average is
    $n^{-\gamma-1} \sum_{t=1}^n (t^{\gamma+1} - (t-1)^{\gamma+1}) \theta_t$ (Karras et al. 2024,
    arXiv:2312.02696, appendix C).

    Args:
        model: The model; its weights before the first update are not in the average.
        sigma: The relative width $\sigma_\text{rel}$ of the profile, in [1e-4, 0.2887].

    Raises:
        InvalidTypeError: `sigma` is not a number.
        InvalidValueError: `sigma` is outside its range.
    """

    profile: Power

    def __init__(self, model: ModelT, sigma: float = 0.1) -> None:
        super().__init__(model, Power(sigma))

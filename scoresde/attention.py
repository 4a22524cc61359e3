"""Let attention layers be differentiated twice.

The kernels of `torch.nn.functional.scaled_dot_product_attention` have no second derivative. A loss
or a score that contains a derivative of the network is differentiated a second time if gradients
are recorded, by the backward pass of training or of `sample(..., grad=True)`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Self

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["as_before", "twice_differentiable"]

_DEPTH = ContextVar("_DEPTH", default=0)


class _ByProducts(TorchFunctionMode):
    """Compute attention by matrix products, which have derivatives of every order."""

    def __enter__(self) -> Self:
        _DEPTH.set(_DEPTH.get() + 1)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        _DEPTH.set(_DEPTH.get() - 1)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_attention_math(*args, **(kwargs or {}))[0]
        return func(*args, **(kwargs or {}))


def twice_differentiable(recording: bool) -> AbstractContextManager[Any]:
    """Compute attention in this thread by matrix products, if gradients are recorded.

    This takes memory of the square of the number of positions. Settings of the program and
    attention in other threads do not change.

    Args:
        recording: Whether the result will be differentiated again.
    """
    return _ByProducts() if recording else nullcontext()


def as_before() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Return the contexts of an evaluation and of its repetitions in the backward pass.

    This is the `context_fn` of `torch.utils.checkpoint.checkpoint`.
    """
    return nullcontext(), twice_differentiable(_DEPTH.get() > 0)

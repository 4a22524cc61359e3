"""Tell whether the numbers of a tensor can be read, and whether they may have changed."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.errors import InvalidTypeError

__all__ = ["check_not_constant", "check_readable", "mark", "some_of", "unreadable", "version"]

_LOOKED_AT = 64  # numbers of a tensor


def unreadable(x: Tensor) -> bool:
    """Return True if no number of a tensor can be read: in a graph, or under `torch.func.vmap`."""
    return torch.compiler.is_compiling() or _mapped(x)


def check_readable(what: str, x: Tensor) -> None:
    """Raise InvalidTypeError if a tensor is mapped over by `torch.func.vmap`."""
    if not torch.compiler.is_compiling() and _mapped(x):
        raise InvalidTypeError(
            f"{what} is mapped over by torch.func.vmap, under which its numbers cannot be checked; "
            "give the whole batch at once: the first axis is that of the samples"
        )


def check_not_constant(what: str, x: Tensor) -> None:
    """Raise InvalidTypeError if `torch.func` differentiates the start of a run in reverse.

    Its gradient would be zero, since a run without gradients is a constant to it.
    """
    inside = torch._C._functorch
    if torch.compiler.is_compiling() or not inside.is_gradtrackingtensor(x):
        return
    innermost = inside.peek_interpreter_stack()
    if innermost is not None and innermost.key() == inside.TransformType.Grad:
        raise InvalidTypeError(
            f"{what} is differentiated by torch.func, to which a run is constant; differentiate by "
            "torch.autograd.grad, with grad=True in the run"
        )


def mark(x: Tensor) -> tuple[int, float]:
    """Return what changes with the numbers of a tensor.

    That is how often it was changed, and on the CPU the sum of some of its numbers, since changes
    by way of `.data` are not counted.
    """
    if x.device.type != "cpu" or not x.numel() or unreadable(x):
        return version(x), 0.0
    return version(x), float(some_of(x).sum(dtype=torch.float64))


def version(x: Tensor) -> int:
    """Return how often a tensor was changed in place; 0 for tensors of inference mode."""
    return 0 if x.is_inference() else x._version


def some_of(x: Tensor) -> Tensor:
    """Return at most 64 numbers of a tensor that has some, evenly spread."""
    return x.detach().reshape(-1)[:: -(-x.numel() // _LOOKED_AT)]


def _mapped(x: Tensor) -> bool:
    inside = torch._C._functorch
    while inside.is_functorch_wrapped_tensor(x):
        if inside.is_batchedtensor(x):
            return True
        x = inside.get_unwrapped(x)
    return False

"""Detect whether the numbers of a tensor can be read, and whether they have changed."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.errors import InvalidTypeError

__all__ = ["check_not_constant", "check_readable", "checksum", "mark", "unreadable", "version"]

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def unreadable(x: Tensor) -> bool:
    """Return True if a tensor has no numbers yet.

    That is so while a graph is compiled, within `torch.func.vmap`, and on the meta device.
    """
    return torch.compiler.is_compiling() or x.is_meta or _mapped(x)


def check_readable(what: str, x: Tensor) -> None:
    """Raise InvalidTypeError if a tensor is mapped over by `torch.func.vmap`."""
    if not torch.compiler.is_compiling() and _mapped(x):
        raise InvalidTypeError(
            f"{what} is mapped over by torch.func.vmap, so its numbers cannot be checked; give the "
            "whole batch at once, with the samples on the first axis"
        )


def check_not_constant(what: str, x: Tensor) -> None:
    """Raise InvalidTypeError if `torch.func` differentiates the start of a run in reverse mode.

    The gradient would be zero, since `torch.func` treats a run without gradients as a constant.
    """
    inside = torch._C._functorch
    if torch.compiler.is_compiling() or not inside.is_gradtrackingtensor(x):
        return
    innermost = inside.peek_interpreter_stack()
    if innermost is not None and innermost.key() == inside.TransformType.Grad:
        raise InvalidTypeError(
            f"{what} is differentiated by torch.func, which treats a run as a constant; use "
            "torch.autograd.grad instead, with grad=True in the run"
        )


def mark(x: Tensor) -> tuple[int, int]:
    """Return a value that changes when the numbers of a tensor change.

    It consists of the version counter and, for floats on the CPU, a checksum of the numbers, since
    the counter does not count changes through `.data`.
    """
    if x.device.type != "cpu" or unreadable(x) or not x.is_floating_point():
        return version(x), 0
    return version(x), int(checksum(x))


def version(x: Tensor) -> int:
    """Return the version counter of a tensor, or 0 for a tensor made in inference mode."""
    return 0 if x.is_inference() else x._version


def checksum(x: Tensor) -> Tensor:
    """Sum the bits of all floats of a tensor as integers, `()`, on its device.

    Every second and every third number has a larger weight, so that the sum depends on the order.
    """
    bits = x.detach().view(_INTEGERS[x.element_size()]).reshape(-1)
    return bits.sum() + 2 * bits[::2].sum() + 4 * bits[::3].sum()


def _mapped(x: Tensor) -> bool:
    inside = torch._C._functorch
    while inside.is_functorch_wrapped_tensor(x):
        if inside.is_batchedtensor(x):
            return True
        x = inside.get_unwrapped(x)
    return False

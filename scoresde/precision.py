"""A user's autocast and default device, which are meant for the network and would reach all else.

Half precision is enough for a network, and not for a draw of a Gaussian with a covariance (off by
2 %) or the linear part of a solver. And a default device takes every number that is made without
one, the times of a grid as well, which are compared on the CPU. Public functions therefore run in
`full_precision`, and what the user gave, a score, runs in `as_asked`: under the autocast and the
default device that were on when they were called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import torch

__all__ = ["as_asked", "full_precision", "has_bfloat16"]

R = TypeVar("R")

_DEVICES = ("cpu", "cuda", "mps", "xpu")
# What the user turned on and `full_precision` off: what enters it again.
_asked: ContextVar[tuple[Callable[[], AbstractContextManager[Any]], ...]] = ContextVar(
    "asked", default=()
)


def _something_is_on() -> bool:
    """Return True under autocast, or where numbers are made elsewhere than on the CPU."""
    return any(map(torch.is_autocast_enabled, _DEVICES)) or torch.get_default_device().type != "cpu"


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn autocast and a default device off within the block, and remember what was on.

    As a decorator, `@full_precision()`, it is the same for every call of a function.
    """
    if not _something_is_on():  # as within another such block, whose memory is kept
        yield
        return
    asked: list[Callable[[], AbstractContextManager[Any]]] = []
    with ExitStack() as stack:
        for device in filter(torch.is_autocast_enabled, _DEVICES):
            dtype = torch.get_autocast_dtype(device)
            asked.append(partial(torch.autocast, device, dtype))
            stack.enter_context(torch.autocast(device, dtype, enabled=False))
        default = torch.get_default_device()
        if default.type != "cpu":
            asked.append(partial(torch.device, default))
            stack.enter_context(torch.device("cpu"))
        before = _asked.set(tuple(asked))
        try:
            yield
        finally:
            _asked.reset(before)


def as_asked(function: Callable[..., R], *args: Any) -> R:
    """Return `function(*args)`, run under what `full_precision` turned off around it."""
    asked = _asked.get()
    if not asked:
        return function(*args)
    before = _asked.set(())  # what is called from there finds its own
    try:
        with ExitStack() as stack:
            for enter in asked:
                stack.enter_context(enter())
            return function(*args)
    finally:
        _asked.reset(before)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16, which is slow where it is emulated."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    features: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))

"""A user's autocast, which is meant for the network and would reach every matrix product.

Half precision is enough for a network, and not for a draw of a Gaussian with a covariance (off by
2 %) or the linear part of a solver. Public functions therefore run in `full_precision`, and what
the user gave, a score, runs in `as_asked`: under the autocast that was on when they were called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar, cast

import torch

__all__ = ["as_asked", "autocast_is_on", "exact", "full_precision"]

F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")

_DEVICES = ("cpu", "cuda", "mps", "xpu")
# The autocasts that the user turned on and `full_precision` off: device and dtype.
_asked: ContextVar[tuple[tuple[str, torch.dtype], ...]] = ContextVar("asked", default=())


def autocast_is_on() -> bool:
    """Return True where a matrix product would run in another precision than its factors'."""
    return any(map(torch.is_autocast_enabled, _DEVICES))


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn autocast off within the block, and remember what was on."""
    on = tuple((d, torch.get_autocast_dtype(d)) for d in _DEVICES if torch.is_autocast_enabled(d))
    if not on:  # as within another such block, whose memory is kept
        yield
        return
    before = _asked.set(on)
    try:
        with ExitStack() as stack:
            for device, dtype in on:
                stack.enter_context(torch.autocast(device, dtype, enabled=False))
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
            for device, dtype in asked:
                stack.enter_context(torch.autocast(device, dtype))
            return function(*args)
    finally:
        _asked.reset(before)


def exact(function: F) -> F:
    """Return a function that runs in full precision, whatever autocast it is called under."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if not autocast_is_on():
            return function(*args, **kwargs)
        with full_precision():
            return function(*args, **kwargs)

    return cast(F, called)

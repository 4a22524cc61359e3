"""Apply the user's autocast and default device only to the score, not to the package's code.

Half precision is enough for a network, but not for draws of a Gaussian with a covariance (2 %
error) or for the linear part of a solver. A default device would also move the times of a grid,
which are compared on the CPU. So public functions run in `full_precision`. They call the user's
score by `in_user_settings`, which restores the autocast and default device of their caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from scoresde.errors import DeviceError

__all__ = ["as_double", "full_precision", "has_bfloat16", "in_user_settings", "widest"]

R = TypeVar("R")

_DEVICES = ("cpu", "cuda", "mps", "xpu")
# The devices without float64.
_SINGLE = {"mps"}
# Context managers that restore the settings that `full_precision` turned off.
_user_settings: ContextVar[tuple[Callable[[], AbstractContextManager[Any]], ...]] = ContextVar(
    "settings", default=()
)


def _has_user_settings() -> bool:
    """Return True if autocast is on or the default device is not the CPU."""
    return any(map(torch.is_autocast_enabled, _DEVICES)) or torch.get_default_device().type != "cpu"


def _is_fake() -> bool:
    """Return True within a `FakeTensorMode`."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn autocast and a default device off in the block, and record them.

    As a decorator, `@full_precision()`, it does this for every call of a function.

    Raises:
        DeviceError: A `FakeTensorMode` is active, in which tensors have no numbers.
    """
    if _is_fake() and not torch.compiler.is_compiling():
        raise DeviceError(
            "torch's FakeTensorMode is active, in which tensors have no numbers; leave this mode "
            "before calling this function"
        )
    # nothing to turn off; settings that an outer block of `full_precision` recorded are kept
    if not _has_user_settings():
        yield
        return
    settings: list[Callable[[], AbstractContextManager[Any]]] = []
    with ExitStack() as stack:
        for device in filter(torch.is_autocast_enabled, _DEVICES):
            dtype = torch.get_autocast_dtype(device)
            settings.append(partial(torch.autocast, device, dtype))
            stack.enter_context(torch.autocast(device, dtype, enabled=False))
        default = torch.get_default_device()
        if default.type != "cpu":
            settings.append(partial(torch.device, default))
            stack.enter_context(torch.device("cpu"))
        before = _user_settings.set(tuple(settings))
        try:
            yield
        finally:
            _user_settings.reset(before)


def in_user_settings(function: Callable[..., R], *args: Any) -> R:
    """Call `function(*args)` with the settings that `full_precision` turned off."""
    settings = _user_settings.get()
    if not settings:
        return function(*args)
    # if `function` calls public functions of the package, they record the settings anew
    before = _user_settings.set(())
    try:
        with ExitStack() as stack:
            for enter in settings:
                stack.enter_context(enter())
            return function(*args)
    finally:
        _user_settings.reset(before)


def widest(device: torch.device) -> torch.dtype:
    """Return float64, or float32 for a device that does not have float64."""
    return torch.float32 if device.type in _SINGLE else torch.float64


def as_double(value: Tensor | float) -> Tensor:
    """Return a number or tensor in float64, moved to the CPU if its device has no float64."""
    found = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float64)
    return (found.cpu() if found.device.type in _SINGLE else found).double()


def has_bfloat16(device: torch.device) -> bool:
    """Return True if a CPU or CUDA device supports bfloat16 without slow emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    features: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))

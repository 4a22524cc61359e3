"""Apply a user's autocast and default device to the score only, and not to the package's code.

Half precision is enough for a network, but not for a draw of a Gaussian with a covariance (2 %
error) or the linear part of a solver. A default device would also move the times of a grid, which
are compared on the CPU. So public functions run in `full_precision`. They call the user's score by
`in_user_settings`, under the autocast and default device that were set when they were called.
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
# Devices without float64.
_SINGLE = {"mps"}
# Context managers that restore the settings that `full_precision` turned off.
_user_settings: ContextVar[tuple[Callable[[], AbstractContextManager[Any]], ...]] = ContextVar(
    "settings", default=()
)


def _has_user_settings() -> bool:
    """Return True if autocast is on, or the default device is not the CPU."""
    return any(map(torch.is_autocast_enabled, _DEVICES)) or torch.get_default_device().type != "cpu"


def _is_fake() -> bool:
    """Return True within a `FakeTensorMode`."""
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is not None


@contextmanager
def full_precision() -> Iterator[None]:
    """Turn autocast and a default device off within the block, and record them.

    As a decorator, `@full_precision()`, it does so for every call of a function.

    Raises:
        DeviceError: A `FakeTensorMode` is active, in which tensors have no numbers.
    """
    if _is_fake() and not torch.compiler.is_compiling():
        raise DeviceError(
            "a FakeTensorMode of torch is active, in which tensors have shapes and no numbers; "
            "leave it before calling this function"
        )
    if not _has_user_settings():  # inside another such block, keep the settings that it recorded
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
    """Return `function(*args)`, called under the settings that `full_precision` turned off."""
    settings = _user_settings.get()
    if not settings:
        return function(*args)
    before = _user_settings.set(())  # public functions called inside record their own settings
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
    """Return a number or tensor in float64, on the CPU if its device has no float64."""
    found = torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.float64)
    return (found.cpu() if found.device.type in _SINGLE else found).double()


def has_bfloat16(device: torch.device) -> bool:
    """Return True if a device computes in bfloat16 without emulating it, which would be slow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    features: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16"))

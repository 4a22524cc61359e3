"""Load tensors by name into a module, with exactly the module's names and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from scoresde.errors import CheckpointError

__all__ = ["check_state", "layout", "load_state"]

_LAYOUTS = {
    "all_modules.": "score_sde_pytorch, whose checkpoints `scoresde.interop.load_score_sde` reads",
    "down_blocks.": "diffusers; load it with diffusers, and wrap it by `interop.from_diffusers`",
    "_orig_mod.": "a network saved under torch.compile; save the network that was compiled",
    "module.": "a network saved under DataParallel; save its `.module`",
}


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy `tensors` into `module`, which must have the same names and shapes.

    Args:
        module: The module; its parameters and buffers keep their dtypes.
        tensors: A complete state dict.
        source: The origin of the tensors, for error messages.

    Raises:
        CheckpointError: As in `check_state`.
    """
    check_state(module.state_dict(), tensors, source=source, name=type(module).__name__)
    module.load_state_dict(dict(tensors), strict=True)


def check_state(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, source: str, name: str
) -> None:
    """Raise unless `tensors` fit the `expected` tensors of a module; messages call it `name`.

    Raises:
        CheckpointError: Names are missing or unexpected, shapes differ, a tensor has integers
            instead of floats or the reverse, or two tensors differ that are the same tensor in the
            module. The message lists at most five tensors for each fault. If it knows a library
            that uses the unexpected names, it says so.
    """
    complaints = []
    missing = [k for k in expected if k not in tensors]
    extra = [k for k in tensors if k not in expected]
    shapes = [
        f"{k} is {tuple(tensors[k].shape)}, expected {tuple(expected[k].shape)}"
        for k in expected
        if k in tensors and tensors[k].shape != expected[k].shape
    ]
    kinds = [
        f"{k} is {tensors[k].dtype}, expected {expected[k].dtype}"
        for k in expected
        if k in tensors and _numbers(tensors[k].dtype) != _numbers(expected[k].dtype)
    ]
    tied = [
        f"{a} and {b}"
        for a, b in _tied(expected)
        if not shapes and not missing and not torch.equal(tensors[a], tensors[b])
    ]
    for kind, names in (
        ("missing", missing),
        ("unexpected", extra),
        ("of another shape", shapes),
        ("of another kind of numbers", kinds),
        ("different, although they are one tensor there", tied),
    ):
        if names:
            more = f", and {len(names) - 5} more" if len(names) > 5 else ""
            complaints.append(f"{len(names)} {kind}: {', '.join(names[:5])}{more}")
    if complaints:
        raise CheckpointError(
            f"{source} does not fit {name}; {'; '.join(complaints)}{layout(extra)}"
        )


def _tied(tensors: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Return pairs of names of tensors that share memory: the first name and each other name."""
    first: dict[object, str] = {}
    pairs = []
    for name, x in tensors.items():
        if x.numel() and not x.is_meta and x.data_ptr():  # 0 for an empty share of a tensor
            before = first.setdefault((x.device, x.data_ptr(), x.shape, x.stride()), name)
            pairs += [(before, name)] if before != name else []
    return pairs


def _numbers(dtype: torch.dtype) -> str:
    if dtype.is_complex or dtype == torch.bool:
        return str(dtype)
    # eight-bit floats are not treated as floats, since their scale is stored elsewhere
    return "float" if dtype.is_floating_point and dtype.itemsize > 1 else str(dtype)


def layout(names: Iterable[str]) -> str:
    """Return the end of a message that names the library of these tensors, or ""."""
    for mark, what in _LAYOUTS.items():
        if any(name.startswith(mark) or f".{mark}" in name for name in names):
            return f"; its names are those of {what}"
    return ""

"""Play an accelerator on the CPU, and count what makes a real one wait.

Tensors of the device "played" hold their numbers on the CPU, and every kernel is computed there.
What counts is what a program asked for:

- reads: a number or tensor came back to the host, which waits for all work before it (`item`,
  `bool`, `float`, `tolist`, `cpu`, `nonzero` and others whose shape depends on numbers);
- copies: a tensor went from the host to the device;
- doubles: kernels of float64, which some accelerators do not have.

An operand on the CPU with dimensions is refused, as on any accelerator.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import backend_registration

NAME = "played"
_READS = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim",
    "is_nonzero", "repeat_interleave", "bincount",
}  # fmt: skip
# operations that copy numbers between host and device
_MOVES = {"copy_", "_copy_from", "_copy_from_and_resize"}
_DOUBLES = torch.float64, torch.complex128


@dataclass
class Counts:
    """What was counted in a block, and where."""

    reads: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    doubles: list[str] = field(default_factory=list)
    kernels: int = 0


# by the address of a storage, which a parameter keeps when its data are replaced
_numbers: dict[int, torch.Tensor] = {}


def raw(t: torch.Tensor) -> torch.Tensor:
    """Return the numbers of a tensor of the device, on the CPU, uncounted."""
    numbers = _numbers[t.untyped_storage()._cdata]
    if numbers.dtype != t.dtype:  # another view of the same storage
        numbers = numbers.view(t.dtype)
    if numbers.shape != t.shape and t.numel():
        numbers = numbers.as_strided(t.shape, t.stride(), t.storage_offset())
    return numbers


_counting: list[Counts] = []


def _wrapped(numbers: torch.Tensor) -> torch.Tensor:
    if 0 in numbers.stride():  # whose storage is smaller than a tensor that is not expanded needs
        numbers = numbers.contiguous()
    found = torch._C._acc.create_empty_tensor(numbers.shape, numbers.dtype)
    _numbers[found.untyped_storage()._cdata] = numbers
    return found


def _is_played(t: torch.Tensor) -> bool:
    return t.device.type == NAME


def _where() -> str:
    """Return the innermost lines of the package that led to an operation."""
    lines, frame = [], sys._getframe()  # quicker than `traceback`, which reads the files
    while frame is not None and len(lines) < 5:
        _, inside, name = frame.f_code.co_filename.rpartition("scoresde/")
        lines += [f"{name}:{frame.f_lineno}"] if inside else []
        frame = frame.f_back
    return " < ".join(lines)


def _fallback(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Count an operation, and compute it on the CPU."""
    name = op._schema.name.partition("::")[2]
    given = _tensors([*args, *kwargs.values()])
    held = {id(t): (t, raw(t)) for t in given if _is_played(t)}
    counts = _counting[-1] if _counting else Counts()
    _count(counts, name, args, [t for t in given if not _is_played(t)])
    own, kept = _mapped((list(args), kwargs), lambda t: held[id(t)][1] if id(t) in held else t)
    kept |= {"device": torch.device("cpu")} if "device" in kept else {}
    kept |= {"pin_memory": False} if "pin_memory" in kept else {}
    if name in ("_copy_from", "_copy_from_and_resize"):
        own[1].copy_(own[0])
        return args[1]
    if name == "view" and not own[0].is_contiguous():
        op = torch.ops.aten.reshape.default
    out = op(*_with_tensors(op, own), **kept)
    for t, numbers in held.values():
        if numbers.shape != t.shape:  # an output of no size, which the kernel gave its size
            t.data = _wrapped(numbers)
    known = {id(numbers): t for t, numbers in held.values()}
    home = name in _MOVES and not _is_played(args[0])
    found = _mapped(out, lambda t: known[id(t)] if id(t) in known else t if home else _wrapped(t))
    if any(t.dtype in _DOUBLES for t in _tensors([found, *given]) if _is_played(t)):
        counts.doubles.append(f"{name}: {_where()}")
    return found


def _count(counts: Counts, name: str, args: Any, on_host: list[torch.Tensor]) -> None:
    """Count the reads and copies of an operation; raise if it mixes devices."""
    counts.kernels += 1
    if name in _READS:
        counts.reads.append(f"{name}: {_where()}")
    if name in _MOVES:
        pair = args[:2] if name.startswith("_copy_from") else args[1::-1]
        source, target = map(_is_played, pair)
        if source and not target:
            counts.reads.append(f"{name}: {_where()}")
        elif target and not source:
            counts.copies.append(f"{name} {tuple(pair[0].shape)}: {_where()}")
    elif name.startswith(("index", "_index")):  # indices may lie on the CPU
        if any(t.dtype == torch.bool and _is_played(t) for t in _tensors(args[1:2])):
            counts.reads.append(f"{name} by a mask: {_where()}")
        counts.copies += [f"{name} {tuple(t.shape)}: {_where()}" for t in on_host if t.ndim]
    elif any(t.ndim for t in on_host):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} was given "
            f"{[tuple(t.shape) for t in on_host]} on the CPU"
        )


def _mapped(values: Any, f: Callable[[torch.Tensor], Any]) -> Any:
    """Return arguments or results with a function applied to the tensors in them."""
    if isinstance(values, torch.Tensor):
        return f(values)
    if isinstance(values, dict):
        return {name: _mapped(value, f) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return type(values)([_mapped(value, f) for value in values])
    return values


def _with_tensors(op: Any, args: tuple[Any, ...]) -> list[Any]:
    """Return arguments with tensors in place of numbers where the operation takes tensors."""
    dtypes = [t.dtype for t in _tensors(args)]
    found = []
    for value, wanted in zip(args, op._schema.arguments, strict=False):
        if isinstance(value, int | float) and str(wanted.type) in ("Tensor", "Optional[Tensor]"):
            dtype = torch.int64 if isinstance(value, int) else next(filter(_floats, dtypes), None)
            value = torch.tensor(value, dtype=torch.bool if isinstance(value, bool) else dtype)
        found.append(value)
    return found


def _floats(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point


def _tensors(values: Any) -> list[torch.Tensor]:
    """Return the tensors in arguments and in their lists."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


class _Module(backend_registration._DummyBackendModule):  # type: ignore[misc]
    """Define the module that torch calls for the device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Return the dtypes of autocast."""
        return [torch.bfloat16, torch.float16]


@functools.cache
def device() -> torch.device:
    """Return the device, made at the first call and there until the process ends."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    global _library
    _library = torch.library.Library("_", "IMPL")
    _library.fallback(_fallback, "PrivateUse1")
    torch.Tensor.__deepcopy__ = _copied(torch.Tensor.__deepcopy__)  # type: ignore[method-assign]
    return torch.device(NAME, 0)


def _copied(usual: Any) -> Any:
    """Return a method that copies tensors of the device, which have no storage to copy."""

    def method(t: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
        if not _is_played(t):
            return usual(t, memo)
        return memo.setdefault(id(t), t.detach().clone().requires_grad_(t.requires_grad))

    return method


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Count what happens in the block."""
    counts = Counts()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting.pop()

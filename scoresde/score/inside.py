"""Find the networks inside a score, and run them in evaluation mode."""

from __future__ import annotations

import collections
import contextlib
import dis
import functools
import os
import threading
import types
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from scoresde.checks import named_device, outside
from scoresde.errors import TrainingError
from scoresde.locks import ThreadLock
from scoresde.sde import Facts, facts

__all__ = [
    "check_unused", "device_of", "dtype_of", "evaluating", "in_evaluation", "layers_of", "learning",
    "lost_facts", "modules",
]  # fmt: skip

# Types that are not searched, since they hold no network or, like classes and Python modules, refer
# to too many other objects.
_LEAVES = (type, types.ModuleType, types.BuiltinFunctionType, Tensor, str, bytes, int, float)
# Libraries whose functions do not use a network of the user as a global.
_LIBRARIES = frozenset({"torch", "scoresde"})

# Reentrant, since garbage collection may happen while the lock is held: it may close a generator,
# and the end of the generator's block takes the lock again.
_alone = ThreadLock()
# For each layer that is being evaluated: the blocks that evaluate it, with the thread of each, and
# the mode to restore.
_running: weakref.WeakKeyDictionary[nn.Module, tuple[dict[object, int], bool]]
_running = weakref.WeakKeyDictionary()
# The layers that are being trained, with the thread that trains each.
_learning: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()


def modules(score: object) -> list[nn.Module]:
    """Return the networks inside a score, without networks that are part of another network.

    The search covers the attributes and slots of the score and its class; lists, mappings and weak
    references; partials, methods and closures; and the globals that a function, a `__call__` or a
    property uses. The search runs no code of the user. So it does not find a network that only
    running code can find, for example under a computed name. An object that raises an error when
    its class or its attributes are read, such as a weak proxy of a deleted object, is skipped.

    Args:
        score: Any score, or anything else.
    """
    found: list[nn.Module] = []
    seen: set[int] = set()
    waiting = [score]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        with contextlib.suppress(Exception):  # reading an attribute may raise any error
            if isinstance(part, _LEAVES):
                continue
            seen.add(id(part))
            if isinstance(part, nn.Module):
                found.append(part)
                inside = list(part.modules())
                seen.update(map(id, inside))
                # a module may also hold networks in attributes that are not submodules, such as a
                # second score
                waiting += [
                    value
                    for module in inside
                    for name, value in vars(module).items()
                    if name not in _TORCH
                ]
            else:
                waiting += _parts(part)
    return found


_TORCH = frozenset(vars(nn.Module()))


def _parts(part: object) -> Iterable[object]:
    """Return the objects inside an object, a container or a function."""
    if isinstance(part, Mapping):
        return list(part.values())
    if isinstance(part, (list, tuple, set, frozenset, collections.deque)):
        return list(part)
    if isinstance(part, weakref.ReferenceType):
        return [part()]
    if isinstance(part, functools.partial):
        return [part.func, part.args, part.keywords]
    if isinstance(part, types.MethodType):
        return [part.__self__, part.__func__]
    if isinstance(part, types.FunctionType):
        cells = [cell.cell_contents for cell in part.__closure__ or () if _is_filled(cell)]
        defaults = [part.__defaults__, part.__kwdefaults__, part.__dict__]
        if part.__module__ and part.__module__.partition(".")[0] in _LIBRARIES:
            return [*cells, *defaults]
        known = part.__globals__
        return [*cells, *defaults, *(known[n] for n in _names_in(part.__code__) if n in known)]
    attributes = list(vars(part).values()) if hasattr(part, "__dict__") else []
    return attributes + _of_class(part)


def _of_class(part: object) -> list[object]:
    """Return an object's slots, and the modules, `__call__` and properties of its class."""
    found: list[object] = []
    for base in type(part).__mro__:
        named = vars(base)
        slots = named.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            member = named.get(name) or named.get(f"_{base.__name__.lstrip('_')}{name}")
            if isinstance(member, types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):  # a slot without a value
                    found.append(member.__get__(part))
        found += [value for value in named.values() if isinstance(value, nn.Module)]
        found += [value.fget for value in named.values() if isinstance(value, property)]
        found += [v.func for v in named.values() if isinstance(v, functools.cached_property)]
        if isinstance(named.get("__call__"), types.FunctionType):
            found.append(named["__call__"])
    return found


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


@functools.lru_cache
def _names_in(code: types.CodeType) -> tuple[str, ...]:
    """Return the global names in a code object, in the same order in every process."""
    names = [i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"]
    inner = (const for const in code.co_consts if isinstance(const, types.CodeType))
    return tuple(dict.fromkeys([*names, *(name for const in inner for name in _names_in(const))]))


def layers_of(score: object) -> set[nn.Module]:
    """Return the networks inside a score, with all their layers."""
    return {layer for module in modules(score) for layer in module.modules()}


@contextmanager
def evaluating(score: object) -> Iterator[None]:
    """Run the networks inside a score in evaluation mode within the block; see `in_evaluation`."""
    with in_evaluation(layers_of(score)):
        yield


@contextmanager
def in_evaluation(layers: Iterable[nn.Module], thread: int | None = None) -> Iterator[None]:
    """Run layers in evaluation mode within the block.

    The mode of each layer is restored when the last block that uses the layer ends. Blocks may be
    nested or interleaved, and may run in several threads.

    Args:
        layers: The layers.
        thread: The thread that evaluates the layers; None for the current thread.

    Raises:
        TrainingError: Another thread trains a layer, which changes its weights.
    """
    listed, here = list(layers), threading.get_ident() if thread is None else thread
    block, changed = object(), list[nn.Module]()
    # an interrupt may come at any line, even in `finally`; so the end also undoes a block that has
    # begun only in part, and is made twice
    try:
        with _alone():
            if any(_learning.get(layer, here) != here for layer in listed):
                raise TrainingError(
                    "another thread is training this model, so its weights and mode may change at "
                    "any time; evaluate the averaged model, trainer.model, or a copy that you made "
                    "before"
                )
            for layer in listed:
                _running.setdefault(layer, ({}, layer.training))[0][block] = here
                layer.training = False
        yield
    finally:
        try:
            changed = [layer for layer in listed if layer.training]
            _leave(listed, block)
        finally:
            _leave(listed, block)
    if changed:
        warnings.warn(
            f"{type(changed[0]).__name__} was set to training mode during an evaluation, by the "
            "score itself or by another thread, so layers such as dropout may have changed the "
            "result; evaluate a copy, copy.deepcopy(model)",
            RuntimeWarning,
            stacklevel=outside(),
        )


def _leave(layers: list[nn.Module], block: object) -> None:
    """End a block's evaluation of layers, and restore the modes of those without another block."""
    with _alone():
        for layer in layers:
            blocks, mode = _running.get(layer, ({None: 0}, False))
            if blocks.keys() <= {block}:
                layer.training = mode
                _running.pop(layer, None)
            blocks.pop(block, None)


@contextmanager
def learning(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Set layers to training mode within the block, and restore the mode of each after it.

    Raises:
        TrainingError: A layer is already being trained in another such block, or another thread
            evaluates it.
    """
    listed, here, before = list(layers), threading.get_ident(), list[bool]()
    try:
        with _alone():
            # two optimisers that change the same weight at once may crash the process
            if any(layer in _learning for layer in listed):
                raise TrainingError(
                    "the model is already being trained, by another thread or by a trainer that "
                    "called this one; train a copy, copy.deepcopy(model)"
                )
            check_unused(listed)
            before = [layer.training for layer in listed]
            _learning.update(dict.fromkeys(listed, here))
            for layer in listed:
                layer.training = True
        yield
    finally:
        with _alone():
            for layer, mode in zip(listed, before, strict=False):  # none before an error
                _learning.pop(layer, None)
                layer.training = mode


def _forget_other_threads() -> None:
    """End the blocks of all other threads, which do not exist in a forked process."""
    here = threading.get_ident()
    for layer, (blocks, mode) in list(_running.items()):
        for block in [block for block, thread in blocks.items() if thread != here]:
            del blocks[block]
        if not blocks:
            del _running[layer]
            layer.training = mode
    for layer, thread in list(_learning.items()):
        if thread != here:
            del _learning[layer]


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_forget_other_threads)


def check_unused(score: object) -> None:
    """Raise TrainingError if another thread has set a layer of a score to evaluation mode."""
    if not _running:
        return
    here, layers = threading.get_ident(), layers_of(score)
    with _alone():
        for layer in layers:
            blocks, mode = _running.get(layer, ({}, False))
            if mode and any(thread != here for thread in blocks.values()):
                raise TrainingError(
                    "another thread is evaluating this model and has set it to evaluation mode, "
                    "which turns dropout off; let that thread evaluate a copy, "
                    "copy.deepcopy(model)"
                )


def device_of(score: object) -> torch.device:
    """Return the device of the first parameter inside a score, or the CPU.

    Raises:
        DeviceError: The parameters are on the meta device, which holds no numbers.
    """
    parameters = (p for module in modules(score) for p in module.parameters())
    found = next(parameters, None)
    return torch.device("cpu") if found is None else named_device(found.device)


def dtype_of(module: nn.Module, default: torch.dtype) -> torch.dtype:
    """Return the dtype of a module's first floating-point parameter, or the default without one."""
    found = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(found, default)


def lost_facts(score: object) -> nn.Module | None:
    """Return a network with facts that is hidden in a score without facts, or None."""
    if facts(score) != Facts():
        return None
    inside = (part for module in modules(score) for part in module.modules())
    return next((part for part in inside if facts(part) != Facts()), None)

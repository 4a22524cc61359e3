r"""Run one job in several processes.

`torchrun` starts the same program several times and gives each copy a number, the *rank*. In a
block `with group():` the copies can communicate. Outside such a block, and in a program without
torchrun, the functions here behave as in a single process of rank 0, and return immediately.

CPU tensors are sent by gloo, GPU tensors by NCCL, and anything else as JSON.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from scoresde import errors
from scoresde.errors import DataError, DeviceError, InvalidValueError, PeerError, TrainingError

__all__ = [
    "align", "check_same", "device", "engine", "group", "is_main", "largest", "mean", "on",
    "on_main", "rank", "rows", "share", "shared", "size", "together", "wait",
]  # fmt: skip

T = TypeVar("T")

_CHOSEN: ContextVar[torch.device | None] = ContextVar("device", default=None)
_AGREED = (DataError, TrainingError)
# Each group stores its addresses under a number of its own, since those of an earlier group are
# out of date.
_NUMBERS = itertools.count()


def _alone() -> bool:
    return not (dist.is_available() and dist.is_initialized())


def rank() -> int:
    """Return the number of this process, from 0 to `size() - 1`."""
    return 0 if _alone() else dist.get_rank()


def size() -> int:
    """Return the number of processes in the group."""
    return 1 if _alone() else dist.get_world_size()


def is_main() -> bool:
    """Return True in process 0, which writes files and prints."""
    return rank() == 0


def rows(n: int) -> slice:
    """Return the rows of this process in a batch of `n`, an equal share for each process by rank.

    Raises:
        InvalidValueError: The batch cannot be divided evenly.
    """
    share, rest = divmod(n, size())
    if rest or not n:
        raise InvalidValueError(
            f"a batch of {n} cannot be divided evenly among {size()} processes; choose a "
            f"batch_size that is a multiple of {size()}, {max(share, 1) * size()} for example"
        )
    return slice(rank() * share, (rank() + 1) * share)


def device() -> torch.device:
    """Return the device of this process: the device set by `on`, else its GPU, else the CPU."""
    if (chosen := _CHOSEN.get()) is not None:
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


@contextmanager
def on(name: str | None) -> Iterator[None]:
    """Set the device in the block by its name, such as "cpu", "cuda:1" or "mps".

    Args:
        name: The device; "cuda" is the GPU of this process. None changes nothing.

    Raises:
        DeviceError: There is no such device here.
    """
    token = _CHOSEN.set(_CHOSEN.get() if name is None else _found(name))
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def _found(name: str) -> torch.device:
    kind, _, number = name.partition(":")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ["cpu", *(f"cuda:{i}" for i in range(gpus))]
    there += ["mps"] if torch.backends.mps.is_available() else []
    if name == "cuda" and gpus:
        number = os.environ.get("LOCAL_RANK", "0")
        name = f"cuda:{number}"
    if name not in there:
        why = " (torch sees no GPU)" if kind in ("cuda", "gpu") and not gpus else ""
        raise DeviceError(
            f"there is no device {name!r} here{why}; choose from {', '.join(there)}, or leave the "
            "device out"
        )
    return torch.device(name)


@contextmanager
def group(timeout: float = 3600.0) -> Iterator[None]:
    """Connect the processes that `torchrun` started, during the block.

    The block has no effect in a process that was started without torchrun, or inside another such
    block.

    Args:
        timeout: The number of seconds after which a process stops waiting for another. It must be
            longer than any work that only one process does, such as writing a checkpoint.

    Raises:
        PeerError: Another process of the group died, or did not answer in time.
        InvalidValueError: The environment has WORLD_SIZE above 1, but lacks RANK, MASTER_ADDR or
            MASTER_PORT.
    """
    if not _alone() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    unknown = {"RANK", "MASTER_ADDR", "MASTER_PORT"} - os.environ.keys()
    if unknown:
        raise InvalidValueError(
            f"the environment has WORLD_SIZE={os.environ['WORLD_SIZE']}, but no "
            f"{', '.join(sorted(unknown))}; start with torchrun, or unset WORLD_SIZE"
        )
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(device())
    # import this module before the group exists; later, it would keep the group as a default
    # argument
    importlib.import_module("torch.distributed.nn.functional")
    try:
        with _peers():
            torch_dist: Any = dist  # torch does not list these names
            limit = timedelta(seconds=timeout)
            found, here, count = next(torch_dist.rendezvous("env://", timeout=limit))
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=limit, rank=here, world_size=count,
                store=torch_dist.PrefixStore(f"group-{next(_NUMBERS)}", found),
            )  # fmt: skip
            yield
    finally:
        if not _alone():
            dist.destroy_process_group()


@contextmanager
def _peers() -> Iterator[None]:
    """Turn errors of gloo and NCCL about a lost process into a PeerError."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "/gloo/" in str(error):
            if threading.current_thread() is threading.main_thread():
                # torchrun sends this signal to the other processes within a tenth of a second,
                # perhaps before the message is printed, and kills them 30 s later
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise PeerError(
                "another process of this job died, or did not answer in time; see its message for "
                "the reason, if there is one. Start the same command again to continue "
                f"({' '.join(str(error).split())[:200]})"
            ) from error
        raise


def engine() -> dist.ProcessGroup:
    """Return a second group of all processes, for an engine of torch that may keep a reference.

    A group exists as long as there is a reference to it. If it outlives `group()`, its threads may
    need the GIL when Python exits, to release tensors that Python holds, and then the process
    aborts (pytorch/pytorch#179291). A separate group for an engine avoids this, since Python does
    not hold the gradients that an engine sends.
    """
    found = dist.new_group()
    assert isinstance(found, dist.ProcessGroup)  # this process belongs to the group
    return found


def largest(value: int) -> int:
    """Return the largest integer over all processes, in every process."""
    if size() == 1:
        return value
    found = torch.tensor(value)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found)


def together(read: Callable[[], T]) -> T:
    """Call a function; if it raises one of two errors in a process, raise it in all processes.

    For example, if one process cannot read its samples, the other processes would wait for it, and
    the run would end without a checkpoint.

    Raises:
        DataError, TrainingError: The function raised this error, here or in another process. Other
            errors are raised only in the process in which they occur.
    """
    failed, value = None, cast("T", None)
    try:
        value = read()
    except _AGREED as error:
        failed = error
    kind = largest(0 if failed is None else 1 + isinstance(failed, TrainingError))
    if not kind:
        return value
    raise failed or _AGREED[kind - 1]("another process cannot read its samples; see its message")


def wait() -> None:
    """Wait until every process has called this function."""
    largest(0)


def mean(x: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, in every process; shapes must agree."""
    if size() == 1:
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total / size()


def share(x: Tensor, owner: int) -> None:
    """Overwrite `x` with the tensor of process `owner`; shapes and dtypes must agree."""
    if size() > 1:
        dist.broadcast(x, owner)


def shared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the CPU tensors of process 0 in every process; ignore those of other processes."""
    if size() == 1:
        return dict(tensors)
    header = [[name, str(v.dtype).removeprefix("torch."), v.shape] for name, v in tensors.items()]
    found = {}
    for name, dtype, shape in json.loads(_from_main(json.dumps(header))):
        value = tensors[name] if is_main() else torch.empty(shape, dtype=getattr(torch, dtype))
        found[name] = value.contiguous()
        share(found[name].view(-1).view(torch.uint8), 0)  # gloo does not support every dtype
    return found


def align(module: nn.Module) -> None:
    """Copy the parameters and buffers of process 0 to every process.

    Raises:
        InvalidValueError: A process has other names, shapes or dtypes than process 0.
    """
    held = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    known = {name: f"{value.dtype} {list(value.shape)}" for name, value in held.items()}
    check_same({"number of weights": len(held), **known})
    with torch.no_grad():
        for value in held.values():
            share(value, 0)


def on_main(action: Callable[[], T]) -> T:
    """Call a function in process 0 only, and return its result or raise its error in all processes.

    Args:
        action: A function whose result is a JSON value.

    Returns:
        The result; other processes receive it as JSON.

    Raises:
        ScoreSDEError: `action` raised this error; every process raises it. For an error of another
            class the other processes raise a `PeerError`.
    """
    if size() == 1:
        return action()
    if not is_main():
        reply = json.loads(_from_main(""))
        if "error" in reply:
            kind, message = reply["error"]
            if kind in errors.__all__:
                raise getattr(errors, kind)(f"{message} (in process 0)")
            raise PeerError(f"{kind}: {message} (in process 0)")
        return cast("T", reply["result"])
    try:
        result = action()
    except Exception as error:
        _from_main(json.dumps({"error": [type(error).__name__, str(error)]}))
        raise
    _from_main(json.dumps({"result": result}))
    return result


def check_same(values: Mapping[str, Any]) -> None:
    """Raise an error in all processes unless they have the same values.

    Args:
        values: JSON values by name, the same names in all processes.

    Raises:
        InvalidValueError: A process has another value than process 0.
    """
    here = json.loads(json.dumps(values))
    main = json.loads(_from_main(json.dumps(here)))
    changes = [
        f"{name} is {value!r} here and {main.get(name)!r} in process 0"
        for name, value in here.items()
        if value != main.get(name)
    ]
    first = largest(rank() if changes else 0)
    if first:
        raise InvalidValueError(
            f"process {first} has other arguments than process 0; start all processes with "
            f"the same arguments{': ' if changes else ''}{', '.join(changes[:4])}"
        )


def _from_main(text: str) -> str:
    """Return the text of process 0, in every process."""
    if size() == 1:
        return text
    content = torch.tensor(list(text.encode()), dtype=torch.uint8)
    length = torch.tensor(len(content))
    share(length, 0)
    content = content if is_main() else content.new_empty(int(length))
    share(content, 0)
    return bytes(content.tolist()).decode()

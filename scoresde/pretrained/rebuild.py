"""Make the SDE and the network that an untrusted file describes.

A few bytes can describe a network of terabytes, or a network whose layers take minutes to make. So
the network is first made on the meta device, where tensors need no memory. An error is raised as
soon as it makes far more tensors or numbers than the file holds, or if they differ in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from scoresde import checkpoint
from scoresde import nn as networks
from scoresde.errors import CheckpointError, MissingExtraError
from scoresde.noise.global_rng import forked_rng
from scoresde.sde import SDE, SDES, check_output

__all__ = [
    "DIFFUSERS",
    "LARGEST",
    "MOST",
    "Limit",
    "check_description",
    "rebuild_net",
    "rebuild_sde",
    "unknown",
]

_NETS: Mapping[str, Any] = {
    "DiT": networks.DiT,
    "UNet": networks.UNet,
    "MLP": networks.MLP,
    "NCSNpp": networks.NCSNpp,
    "NCSNv2": networks.NCSNv2,
}
DIFFUSERS = frozenset(
    {
        "DiTTransformer2DModel", "UNet1DModel", "UNet2DConditionModel", "UNet2DModel",
        "UNet3DConditionModel",
    }
)  # fmt: skip
"""The names of the diffusers networks that can be made from a description."""
MOST = 100_000
"""The largest number of levels of an SDE and of steps of a sampler."""
LARGEST = 2**31
"""The largest number of entries of an event or of a condition."""


def check_description(config: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError if the event shape or the number of steps is not valid."""
    shape, steps = config["event_shape"], config.get("steps")
    sides = isinstance(shape, list) and all(type(n) is int and n > 0 for n in shape)
    if not sides or not 0 < len(shape) <= 16 or math.prod(shape) > LARGEST:
        raise CheckpointError(
            f"{path} does not describe a model: its event shape is {str(shape)[:200]}"
        )
    if steps is not None and (type(steps) is not int or not 1 <= steps <= MOST):
        raise CheckpointError(
            f"{path} does not describe a model: its number of steps is {str(steps)[:200]}, but "
            f"must be from 1 to {MOST:,}"
        )


def unknown(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of a model that its file cannot describe, such as a user's network class.

    Returns:
        A mapping from the argument of `from_pretrained`, "net", "sde" or "time", to the name of the
        class.
    """
    parts = {"net": {*_NETS, *DIFFUSERS}, "sde": SDES}
    found = {k: config[k]["type"] for k, known in parts.items() if config[k]["type"] not in known}
    return found | ({"time": "function"} if config.get("time", "") is None else {})


def rebuild_sde(config: Mapping[str, Any]) -> SDE:
    """Return the SDE of a stored model; its class must belong to this package.

    Raises:
        CheckpointError: The class is not in this package, or the SDE has too many levels.
        ScoreSDEError, TypeError: The class does not accept the arguments.
    """
    fields = {name: value for name, value in config["sde"].items() if name != "type"}
    kind = _kind(SDES, "sde", config["sde"]["type"])
    if sum(1 for _ in _leaves(fields)) > MOST:
        raise CheckpointError(f"the description of its SDE has more than {MOST:,} numbers")
    sde: SDE = kind(**fields)
    if (sde.levels or 0) > MOST:
        raise CheckpointError(f"its SDE has {sde.levels:,} levels, more than {MOST:,}")
    return sde


def rebuild_net(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """Make the network of a stored model, with initial weights.

    Its class must belong to this package, or to diffusers if diffusers is installed.

    Args:
        config: The description of the model.
        tensors: The tensors of the model. Names of the network's tensors begin with `net.`, or with
            `net.net.` for a network of another library.

    Raises:
        CheckpointError: The class is not allowed, or the network does not fit the tensors.
        MissingExtraError: The class belongs to diffusers, which is not installed.
        ScoreSDEError, RuntimeError: The network raises an error for an empty batch.
    """
    name, options, shape = config["net"]["type"], config["net"]["config"], config["event_shape"]
    prefix = "net." if config["net"].get("called", "plain") == "plain" else "net.net."
    make = _maker(name, options)
    stored = {key: value for key, value in tensors.items() if key.startswith(prefix)}
    if sum(1 for _ in _leaves(options)) > 2 * len(stored) + 64:
        raise _too_large(stored)
    # the initial weights are overwritten, so drawing them must not change torch's global generator
    with forked_rng():
        with torch.device("meta"), Limit(stored):
            outline = make()
        expected = {f"{prefix}{key}": value for key, value in outline.state_dict().items()}
        checkpoint.check_state(expected, stored, source="what is stored", name=name)
        net = make()
        if name not in _NETS:
            return net
        net = net.float()  # independent of the default dtype
        nothing = torch.empty(0, *shape, dtype=torch.float32)
        declared: Any = net.declared
        kinds = declared(shape).values()
        if any(math.prod(kind) > LARGEST for kind in kinds if isinstance(kind, tuple)):
            raise CheckpointError(f"it has conditions of more than {LARGEST:,} numbers")
        with torch.no_grad():
            check_output("network", net(nothing, nothing.flatten(1).sum(1)), nothing)
    return net


def _maker(name: str, options: Mapping[str, Any]) -> Callable[[], nn.Module]:
    """Return a function that makes the network of a description."""
    if name not in DIFFUSERS:
        kind = _kind(_NETS, "net", name)
        return lambda: kind(**options)
    try:
        theirs: Any = getattr(import_module("diffusers"), name)
    except ImportError as error:
        raise MissingExtraError.of("diffusers", "peers", f"a {name}") from error
    return lambda: theirs.from_config(options)


_DRAWN = {torch.ops.aten.normal_, torch.ops.aten.uniform_}


class Limit(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raise CheckpointError if the block makes about twice as many tensors or numbers as stored."""

    def __init__(self, stored: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stored = stored
        # allow more tensors than stored, for temporary tensors and tensors that are made twice
        self.tensors = 2 * len(stored) + 64
        self.numbers = 2 * sum(value.numel() for value in stored.values()) + 2**16

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return a constant, since torch's default imports its compiler, which takes a second."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket in _DRAWN and args[0].is_meta:
            return args[0]  # a meta tensor has no numbers
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and not any(isinstance(a, Tensor) for a in args):
            self.tensors -= 1
            self.numbers -= out.numel()
        if min(self.tensors, self.numbers) < 0:
            raise _too_large(self.stored)
        return out


def _too_large(stored: Mapping[str, Tensor]) -> CheckpointError:
    numbers = sum(value.numel() for value in stored.values())
    return CheckpointError(
        f"the network that it describes is larger than its {len(stored):,} tensors with "
        f"{numbers:,} numbers"
    )


def _leaves(value: object) -> Iterator[object]:
    """Yield the numbers and strings in a JSON value."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _kind(table: Mapping[str, Any], what: str, kind: str) -> Any:
    if kind not in table:
        raise CheckpointError(
            f"the {what} of this model has the class {kind}, which scoresde does not define; pass "
            f"it: from_pretrained(folder, {what}=...)"
        )
    return table[kind]

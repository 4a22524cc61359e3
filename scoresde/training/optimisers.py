"""Make the optimiser of a run, and select the matrices for Muon and weight decay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.checks import quoted
from scoresde.errors import InvalidTypeError
from scoresde.training.config import TrainConfig
from scoresde.training.muon import Muon

__all__ = ["matrices", "optimizer_of"]

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def optimizer_of(
    score: nn.Module, parts: Sequence[list[nn.Parameter]], config: TrainConfig
) -> torch.optim.Optimizer:
    """Return the optimiser of a run.

    Args:
        score: The score that is trained.
        parts: All trained parameters, in lists; each list becomes a group of its own.
        config: The configuration of the run.
    """
    options, groups = config.optimiser, list[dict[str, Any]]()
    inside: set[Tensor] = set()
    if options.rule == "muon" or options.weight_decay:
        inside = set(matrices(score))
    for part in parts:
        chosen = [p for p in part if p in inside]
        rest = [p for p in part if p not in inside]
        if chosen:
            groups.append({"params": chosen, "weight_decay": options.weight_decay})
            if options.rule == "muon":
                groups[-1]["matrices"] = True
        if rest:
            groups.append({"params": rest})
    known: dict[str, Any] = dict(
        lr=options.lr,
        betas=options.betas,
        decoupled_weight_decay=True,
        fused=config.compute.fused or None,  # None: torch's default for the device
    )
    if options.rule == "muon":
        half = config.compute.bf16 or parts[0][0].device.type == "cuda"
        return Muon(groups, half=half, **known)
    return torch.optim.Adam(groups, **known)


def matrices(score: nn.Module) -> list[Tensor]:
    """Return the trained weights of the linear and convolution layers inside a network.

    Outer layers, such as the embedding and the layers that act on the data, are left out. A network
    lists the names of its outer parts in its attribute `outer`. Without this attribute the first
    and the last layer are taken as the outer layers.

    Raises:
        InvalidTypeError: `outer` is not a list of names of parts of the network.
    """
    net = getattr(score, "net", score)
    net = net if isinstance(net, nn.Module) else score  # a network may be a function without layers
    layers = [layer for layer in net.modules() if isinstance(layer, _LAYERS)]
    outer: set[nn.Module] = {layers[0], layers[-1]} if layers else set()
    if (names := getattr(net, "outer", None)) is not None:
        parts = [_part(net, name) for name in (names if isinstance(names, list | tuple) else "?")]
        outer = {layer for part in parts if part is not None for layer in part.modules()}
    return [layer.weight for layer in layers if layer not in outer and layer.weight.requires_grad]


def _part(net: nn.Module, name: object) -> nn.Module | None:
    part = getattr(net, name, "") if isinstance(name, str) else ""
    if not isinstance(part, nn.Module | None):
        raise InvalidTypeError(
            f"the attribute outer of a {type(net).__name__} must list names of its layers, got "
            f"{quoted(net.outer)}"
        )
    return part

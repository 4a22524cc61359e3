r"""How the network is run while it trains: precision, memory layout, compilation, recomputation.

None of it changes what is computed, but for rounding, nor the names of the weights.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from scoresde.score import ScoreModel
from scoresde.training.config import TrainConfig

__all__ = ["blocks", "laid_out", "training"]

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def laid_out(model: ScoreModel, config: TrainConfig) -> ScoreModel:
    """The same model, with the weights of its convolutions in the layout asked for."""
    if config.channels_last:
        for p in model.net.parameters():
            if p.ndim in _LAST:
                p.data = p.data.contiguous(memory_format=_LAST[p.ndim])
    return model


@contextmanager
def training(model: ScoreModel, config: TrainConfig) -> Iterator[None]:
    """Training mode and the options of the run within the block; afterwards those of before."""
    before = model.training, model.autocast
    model.train()
    model.autocast = torch.bfloat16 if config.bf16 else None
    with ExitStack() as stack:
        if config.recompute:
            stack.enter_context(_recomputed(model.net))
        if config.compile:
            stack.enter_context(_compiled(model.net))
        try:
            yield
        finally:
            model.train(before[0])
            model.autocast = before[1]


@contextmanager
def _compiled(net: nn.Module) -> Iterator[None]:
    # in place, since a compiled copy would give every weight another name
    net.compile()
    try:
        yield
    finally:
        net._compiled_call_impl = None


@contextmanager
def _recomputed(net: nn.Module) -> Iterator[None]:
    """Activation checkpointing (Chen et al. 2016, arXiv:1604.06174) of every block of the network.

    The whole network is one where it has none.
    """
    chosen = list(blocks(net)) or [net]
    for block in chosen:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    try:
        yield
    finally:
        for block in chosen:
            del block.forward


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The parts of a network that run one after the other: the items of outermost `ModuleList`s."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from blocks(child)

r"""Set the precision, memory layout, compilation and recomputation of a network during training.

Apart from half precision, these settings change results only by rounding. They do not change the
names of the weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from scoresde.attention import as_before
from scoresde.score import ScoreModel, learning
from scoresde.training.config import TrainConfig

__all__ = ["blocks", "laid_out", "training"]

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def laid_out(score: nn.Module, config: TrainConfig) -> nn.Module:
    """Return the score, with channels-last convolution weights if the configuration says so."""
    if config.compute.channels_last:
        for p in _network(score).parameters():
            if p.ndim in _LAST:
                p.data = p.data.contiguous(memory_format=_LAST[p.ndim])
    return score


def _network(score: nn.Module) -> nn.Module:
    """Return the network of a `ScoreModel`, or the module itself if it is another score."""
    return score.net if isinstance(score, ScoreModel) else score


@contextmanager
def training(score: nn.Module, config: TrainConfig, *others: nn.Module) -> Iterator[None]:
    """Set training mode and the run's options in the block, and restore the old state after it.

    Args:
        score: The score that is trained.
        config: The configuration of the run.
        others: Further modules that are trained, such as a learned loss.
    """
    net, options = _network(score), config.compute
    layers = [layer for module in (score, *others) for layer in module.modules()]
    with ExitStack() as stack:
        stack.enter_context(learning(layers))
        if options.bf16 or options.fp16:
            half = torch.bfloat16 if options.bf16 else torch.float16
            stack.enter_context(_half(score, half))
        if options.recompute:
            stack.enter_context(_recomputed(net))
        if options.compile:
            stack.enter_context(_compiled(net))
        yield


@contextmanager
def _half(score: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Run the network of a `ScoreModel`, or a whole other module, in half precision."""
    if isinstance(score, ScoreModel):
        before, score.autocast = score.autocast, dtype
        try:
            yield
        finally:
            score.autocast = before
        return
    device = next(score.parameters()).device.type
    with _forward(score, torch.autocast(device, dtype)(score.forward)):
        yield


@contextmanager
def _forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace the method `forward` of a module in the block."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


@contextmanager
def _compiled(net: nn.Module) -> Iterator[None]:
    # compile in place, since the weights of a compiled copy would have other names
    net.compile()
    try:
        yield
    finally:
        net._compiled_call_impl = None


@contextmanager
def _recomputed(net: nn.Module) -> Iterator[None]:
    """Recompute the activations of every block of the network in the backward pass.

    This is activation checkpointing (Chen et al. 2016, arXiv:1604.06174). A network without blocks
    is recomputed completely.
    """
    chosen = list(blocks(net)) or [net]
    with ExitStack() as stack:
        for block in chosen:
            again = functools.partial(
                checkpoint, block.forward, use_reentrant=False, context_fn=as_before
            )
            stack.enter_context(_forward(block, again))
        yield


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of a network that run one after the other: the items of `ModuleList`s."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from blocks(child)

"""Use torch's global generators and restore their state, one thread at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from scoresde.locks import ThreadLock

__all__ = ["forked_rng"]

# all threads share torch's generator, so two concurrent blocks would draw each other's numbers
_alone = ThreadLock()


@contextmanager
def forked_rng(seed: int | None = None, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generators within the block, and restore their state after it.

    Blocks in several threads run one after the other.

    Args:
        seed: An integer of at least 0, of which the lowest 63 bits are used; None keeps the current
            state.
        device: A CUDA device, whose generator is seeded and restored too; other devices than the
            CPU and CUDA are left alone.
    """
    cuda = device is not None and device.type == "cuda"
    with _alone(), torch.random.fork_rng([device] if cuda else []):
        if seed is not None:
            torch.default_generator.manual_seed(seed % 2**63)
        if seed is not None and cuda:
            torch.cuda.manual_seed(seed % 2**63)
        yield

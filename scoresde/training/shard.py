r"""Divide a model among processes, so that each keeps a part of every weight, gradient and average.

This is for networks that do not fit into one process (Rajbhandari et al. 2020, arXiv:1910.02054, by
`torch.distributed.fsdp.fully_shard`). The weights of a block are gathered only while it runs.
Checkpoints hold whole tensors, so a run can be resumed with or without sharding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoresde import distributed
from scoresde.training.network import blocks

__all__ = ["laid_like", "shard", "whole"]

# torch's modules for sharding take half a second to import, so only the functions import them


def shard(*models: nn.Module) -> None:
    """Divide models, which must be equal in all processes, among the processes."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    device = next(models[0].parameters()).device.type
    mesh = DeviceMesh.from_group(distributed.engine(), device)
    for model in models:
        for block in blocks(model):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gather whole tensors from all processes; all must call this at the same time."""
    return {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value
        for name, value in tensors.items()
    }


def laid_like(value: Tensor, like: Any) -> Tensor:
    """Return `value` divided among the processes and laid out in memory like `like`."""
    if hasattr(like, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return torch.empty_like(like, dtype=value.dtype).copy_(value)

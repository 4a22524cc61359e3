"""What a run has to remember: its tensors by name, and what must not change within it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scoresde import checkpoint
from scoresde.data import Data
from scoresde.errors import CheckpointError
from scoresde.score import ScoreModel
from scoresde.training.averages import Averages

__all__ = ["identity", "pack", "unpack"]


def pack(model: ScoreModel, ema: Averages, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors of a run under the names `model.*`, `ema.*` and `optimizer.<number>.*`."""
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    state |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for i, slots in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{k}": v for k, v in slots.items()}
    return state


def unpack(
    tensors: Mapping[str, Tensor],
    model: ScoreModel,
    ema: Averages,
    optimizer: torch.optim.Optimizer,
    *,
    source: str,
) -> None:
    """Put back what `pack` took.

    Raises:
        CheckpointError: `tensors` are those of something else; names `source`.
    """
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise CheckpointError(f"{source} is no checkpoint of a run: it holds {name!r}")
        parts[part][rest] = value
    checkpoint.load_state(model, parts["model"], source=source)
    ema.load_state_dict(parts["ema"])
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        number, _, key = name.partition(".")
        slots.setdefault(int(number), {})[key] = value
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for index, slot in slots.items():
        for name, value in slot.items():
            if value.ndim and value.shape == weights[index].shape:
                # fused Adam walks through memory, so its averages must lie as the weights do
                slot[name] = torch.empty_like(weights[index], dtype=value.dtype).copy_(value)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def identity(model: ScoreModel, data: Data) -> dict[str, str]:
    """What must not change within a run, beside its configuration."""
    samples = " x ".join(map(str, (len(data), *data.event_shape)))
    return {
        "sde": repr(model.sde),
        "network": f"{type(model.net).__name__}({getattr(model.net, 'config', '')})",
        "parameterization": model.parameterization,
        "data set": f"{samples}, SHA-256 {data.fingerprint()[:16]}",
    }

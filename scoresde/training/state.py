"""What a run has to remember: its tensors by name, and what must not change within it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from scoresde import checkpoint
from scoresde.data import Data
from scoresde.errors import CheckpointError
from scoresde.pretrained.store import net_config
from scoresde.score import ScoreModel
from scoresde.training.averages import Averages
from scoresde.training.shard import laid_like, whole

__all__ = ["identity", "pack", "unpack"]


def pack(model: ScoreModel, ema: Averages, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors of a run under the names `model.*`, `ema.*` and `optimizer.<number>.*`."""
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    state |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    for i, slots in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{k}": v for k, v in slots.items()}
    return whole(state)


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
    checkpoint.load_state(model, _laid(parts["model"], model.state_dict()), source=source)
    ema.load_state_dict(_laid(parts["ema"], ema.state_dict()))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimizer"].items():
        number, _, key = name.partition(".")
        slots.setdefault(int(number), {})[key] = value
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for index, slot in slots.items():
        for name, value in slot.items():
            if value.ndim and value.shape == weights[index].shape:
                # fused Adam walks through memory, so its averages must lie as the weights do
                slot[name] = laid_like(value, weights[index])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _laid(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    fits = {name for name, value in own.items() if name in tensors}
    fits = {name for name in fits if tensors[name].shape == own[name].shape}
    return {k: laid_like(v, own[k]) if k in fits else v for k, v in tensors.items()}


def identity(model: ScoreModel, data: Data) -> dict[str, str]:
    """What must not change within a run, beside its configuration."""
    samples = " x ".join(map(str, (len(data), *data.event_shape)))
    return {
        "sde": repr(model.sde),
        "network": f"{type(model.net).__name__}({net_config(model.net) or ''})",
        "predicts": model.predicts,
        "data set": f"{samples}, SHA-256 {data.fingerprint()[:16]}",
    }

"""Collect and restore the tensors of a run, and describe the properties that must not change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scoresde import checkpoint
from scoresde.checks import quoted
from scoresde.data import Data
from scoresde.data.report import some
from scoresde.errors import CheckpointError, InvalidValueError
from scoresde.objectives import described
from scoresde.pretrained.store import net_config
from scoresde.score import ScoreModel
from scoresde.sde import SDE
from scoresde.training.averages import AveragedWeights
from scoresde.training.shard import laid_like, whole
from scoresde.training.update import Loss

__all__ = ["identity", "pack", "unpack"]


def pack(
    score: nn.Module,
    ema: AveragedWeights,
    optimizer: torch.optim.Optimizer,
    loss: nn.Module,
) -> dict[str, Tensor]:
    """Return all tensors of a run: `model.*`, `ema.*`, `loss.*` and `optimizer.<number>.*`."""
    state = {f"model.{k}": v for k, v in score.state_dict().items()}
    state |= {f"ema.{k}": v for k, v in ema.state_dict().items()}
    state |= {f"loss.{k}": v for k, v in loss.state_dict().items()}
    for i, slots in optimizer.state_dict()["state"].items():
        state |= {f"optimizer.{i}.{k}": v for k, v in slots.items()}
    return whole(state)


def unpack(
    tensors: Mapping[str, Tensor],
    score: nn.Module,
    ema: AveragedWeights,
    optimizer: torch.optim.Optimizer,
    loss: nn.Module,
    *,
    source: str,
) -> None:
    """Load the tensors that `pack` returned.

    Raises:
        CheckpointError: The tensors of `source` do not fit this run.
        InvalidValueError: The checkpoint's weights have another precision, or its model has other
            moments.
    """
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "loss": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise CheckpointError(f"{source} is not a checkpoint of a run: it holds {name!r}")
        parts[part][rest] = value
    _check_same(score, parts["model"], source)
    checkpoint.load_state(score, _laid(parts["model"], score.state_dict()), source=source)
    checkpoint.load_state(loss, parts["loss"], source=source)
    ema.load_state_dict(_laid(parts["ema"], ema.state_dict()))
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    slots = _slots(parts["optimizer"], optimizer, source)
    for index, slot in slots.items():
        for name, value in slot.items():
            if value.ndim and value.shape == weights[index].shape:
                # fused Adam needs its averages in the memory layout of the weights
                slot[name] = laid_like(value, weights[index])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})


def _check_same(score: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise unless stored tensors have the precision and the moments of the score."""
    buffers = dict(score.named_buffers()) if isinstance(score, ScoreModel) else {}
    for name, own in score.state_dict().items():
        stored = tensors.get(name)
        if stored is None or stored.shape != own.shape or not stored.is_floating_point():
            continue  # `load_state` reports this with all other differences
        if stored.dtype != own.dtype:
            raise InvalidValueError(
                f"{source} belongs to another model: its {name} was {stored.dtype} and is now "
                f"{own.dtype}; give the model its old dtype, or take another folder"
            )
        fixed = name in buffers and not name.startswith("net.")
        if fixed and not torch.allclose(stored, own.cpu(), rtol=1e-3, atol=1e-6, equal_nan=True):
            raise InvalidValueError(
                f"{source} belongs to another model: its {name} was {quoted(stored)} and is now "
                f"{quoted(own)}; give the model its old moments, or take another folder"
            )


def _slots(
    tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, source: str
) -> dict[int, dict[str, Tensor]]:
    """Return the optimiser's state, averages and step counts, by the number of the weight.

    Raises:
        CheckpointError: A tensor has another shape or type, or weights of the same group have
            different tensors.
    """
    groups = [group["params"] for group in optimizer.param_groups]
    weights = [p for group in groups for p in group]
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        weight = weights[int(number)] if number in map(str, range(len(weights))) else None
        shape = None if weight is None else () if key == "step" else weight.shape
        if value.shape != shape or not value.is_floating_point():
            raise CheckpointError(
                f"{source} is not a checkpoint of this run: its optimizer.{name} is "
                f"{value.dtype} of shape {tuple(value.shape)}"
            )
        slots.setdefault(int(number), {})[key] = value
    numbers = iter(range(len(weights)))
    for group in groups:  # Adam and Muon keep different tensors
        known = {
            frozenset(slots.get(number, ())) for _, number in zip(group, numbers, strict=False)
        }
        if len(known - {frozenset()}) > 1:
            raise CheckpointError(
                f"{source} is not a checkpoint of this run: its optimiser has different tensors "
                "for two weights of the same group"
            )
    return slots


def _laid(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors laid out as those of the same name and shape in `like`."""
    return {
        k: laid_like(v, like[k]) if k in like and v.shape == like[k].shape else v
        for k, v in tensors.items()
    }


def identity(score: nn.Module, sde: SDE, loss: Loss, data: Data, augment: object) -> dict[str, str]:
    """Return the properties of a run that must not change, besides its configuration, by name."""
    samples = " x ".join(map(str, (len(data), *data.event_shape)))
    if isinstance(score, ScoreModel):
        known = {
            "network": f"{type(score.net).__name__}({net_config(score.net) or ''})",
            "predicts": score.predicts,
        }
    else:
        number = sum(p.numel() for p in score.parameters())
        known = {"network": f"{type(score).__name__}, {number:,} parameters"}
    return {
        "sde": repr(sde),
        **known,
        # other data may have another variance, which changes the default weight of the loss
        "data set": f"{samples}, SHA-256 {data.fingerprint()[:16]}",
        "loss": described(loss),
        **({} if augment is None else {"augment": described(augment)}),
        **_frozen(score),
    }


def _frozen(score: nn.Module) -> dict[str, str]:
    """Return the weights that are not trained, if there are some, for `identity`."""
    names = [name for name, p in score.named_parameters() if not p.requires_grad]
    if not names:
        return {}
    digest = hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
    return {"set of frozen weights": f"{len(names)}, {some(names)}, SHA-256 {digest}"}

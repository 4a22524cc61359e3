"""Where models are kept: the files, the packaged ones, and how a model is described in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoresde import checkpoint
from scoresde import nn as networks
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError
from scoresde.pretrained import hub
from scoresde.sde import SDE, SDES

__all__ = [
    "locate",
    "net_config",
    "packaged",
    "read",
    "rebuild_net",
    "rebuild_sde",
    "sde_fields",
    "spelt",
    "spelt_count",
    "told",
]

_MODELS = Path(__file__).parents[1] / "models"
_DESCRIPTION = ("sde", "net", "event_shape", "predicts")
_NETS = {
    "UNet": networks.UNet,
    "MLP": networks.MLP,
}


def locate(folder: str | Path) -> Path:
    """The file of a model: in a folder, itself a file, one of the package's own, or of the hub's.

    Raises:
        CheckpointError: There is no such model.
    """
    path = Path(folder)
    if path.exists():
        return path / "model.safetensors" if path.is_dir() else path
    if isinstance(folder, str) and hub.is_repo(folder):
        return hub.fetch(folder)
    return packaged(str(folder)) / "model.safetensors"


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description in a model's file.

    Raises:
        CheckpointError: There is no such file, or it is damaged or foreign, or holds something else
            than a model.
    """
    try:
        tensors, config = checkpoint.load_tensors(path)
    except checkpoint.NewerError:
        raise
    except CheckpointError as error:
        if not checkpoint.steps_in(path.parent):
            raise
        raise CheckpointError(
            f"{error}; the checkpoints beside it can write it again: let the run's own training "
            "command go on, which does so even at the end of the run"
        ) from error
    missing = [name for name in _DESCRIPTION if name not in config]
    missing += [name for name in ("mean", "var") if name not in tensors]
    if missing:
        raise CheckpointError(
            f"{path} is no model of scoresde, for it has no {', '.join(missing)}; give the folder "
            "of a run or of a model"
        )
    return tensors, config


def told(config: object, *names: str) -> Any:
    """What a description holds under a name, and within that under the next, or None."""
    for name in names:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def spelt_count(count: object) -> str:
    """A number with its thousands apart, or whatever else somebody stored in its place."""
    return f"{count:,}" if isinstance(count, int) else str(count)


def packaged(name: str) -> Path:
    """The folder of a model that the package carries.

    Raises:
        CheckpointError: There is none of that name.
    """
    names = sorted(p.name for p in _MODELS.glob("*") if p.is_dir())
    if name not in names:
        if Path(name).exists():
            raise CheckpointError(
                f"{name!r} is no packaged model; the one here is read by "
                f"ScoreModel.from_pretrained({name!r})"
            )
        raise CheckpointError(
            f"there is no folder {name!r} and no packaged model of that name; "
            f"packaged are {', '.join(names) or 'none'}"
        )
    return _MODELS / name


def sde_fields(sde: SDE) -> dict[str, Any]:
    """The constructor's arguments of an SDE."""
    init = {name for name, field in sde.__dataclass_fields__.items() if field.init}
    return {name: value for name, value in asdict(sde).items() if name in init}


def net_config(net: nn.Module) -> dict[str, Any] | None:
    """The constructor's arguments of a network, where `config` holds them as JSON, as ours does.

    Networks of others have objects of all kinds under that name.
    """
    config: Any = getattr(net, "config", None)
    try:
        checkpoint.dump(config)
    except (InvalidTypeError, InvalidValueError):
        return None
    return dict(config)


def spelt(fields: Mapping[str, Any]) -> str:
    """A described SDE or network as the call that makes it."""
    named = ", ".join(f"{k}={v!r}" for k, v in fields.items() if k != "type")
    return f"{fields['type']}({named})"


def rebuild_sde(config: Mapping[str, Any]) -> SDE:
    """The SDE of a stored model, of a class of ours."""
    fields = {name: value for name, value in config["sde"].items() if name != "type"}
    sde: SDE = _kind(SDES, "sde", config["sde"]["type"])(**fields)
    return sde


def rebuild_net(config: Mapping[str, Any]) -> nn.Module:
    """The network of a stored model, of a class of ours, with its first weights."""
    with torch.random.fork_rng(devices=[]):  # the first weights are overwritten
        net: nn.Module = _kind(_NETS, "net", config["net"]["type"])(**config["net"]["config"])
    return net


def _kind(table: Mapping[str, Any], what: str, kind: str) -> Any:
    if kind not in table:
        raise CheckpointError(
            f"this model has a {what} of the class {kind}, which is not scoresde's; "
            f"pass it: from_pretrained(folder, {what}=...)"
        )
    return table[kind]

"""Where models are kept: the files, the packaged ones, and how a model is described in JSON."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scoresde import checkpoint
from scoresde.checks import outside
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError
from scoresde.pretrained import hub
from scoresde.sde import SDE

__all__ = [
    "locate",
    "net_config",
    "packaged",
    "read",
    "sde_fields",
    "spelt",
    "spelt_count",
    "told",
]

_MODELS = Path(__file__).parents[1] / "models"
_DESCRIPTION: Mapping[str, type] = {"sde": dict, "net": dict, "event_shape": list, "predicts": str}


def locate(folder: str | Path) -> Path:
    """The file of a model: in a folder, itself a file, one of the package's own, or of the hub's.

    A word without a dot or a separator is the folder here of that name, where it holds a model or a
    run, before it is a packaged model. Of a name like `runs/exp1` the hub is asked only where there
    is no folder `runs`, since it is a slip of a path otherwise. A revision, as in `runs/exp1@main`,
    is never part of a path.

    Raises:
        CheckpointError: There is no such model.
    """
    path = Path(folder)
    if _is_packaged(folder):
        if not _is_model(path):
            return packaged(str(folder)) / "model.safetensors"
        warnings.warn(
            f"{str(folder)!r} is taken for the folder here, as './{folder}' would be; the packaged "
            "model of that name is read where there is no such folder",
            UserWarning,
            stacklevel=outside(),
        )
    if os.path.exists(path):  # and not its method, which raises for a name that is too long
        return path / "model.safetensors" if path.is_dir() else path
    if isinstance(folder, str) and hub.is_repo(folder):
        if "@" not in folder and path.parent.is_dir():
            raise CheckpointError(
                f"there is no folder {folder!r}, but there is one {str(path.parent)!r}"
                f"{checkpoint.near(path)}; of a model of the hub, whose name this can be too, give "
                f"the revision: {folder + '@main'!r}"
            )
        return hub.fetch(folder)
    return packaged(str(folder)) / "model.safetensors"


def _is_packaged(name: str | Path) -> bool:
    return (
        isinstance(name, str) and not set(name) & {".", "/", os.sep} and (_MODELS / name).is_dir()
    )


def _is_model(path: Path) -> bool:
    """Return whether a path is that of a model, or of a run that has one or will have one."""
    return (
        path.is_file() or (path / "model.safetensors").exists() or bool(checkpoint.steps_in(path))
    )


def read(path: Path, raw: bytes | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the description in a model's file.

    Args:
        path: The file.
        raw: Its content, where that was read already.

    Raises:
        CheckpointError: There is no such file, or it is damaged or foreign, or holds something else
            than a model.
    """
    try:
        tensors, config = checkpoint.load_tensors(path, raw)
    except checkpoint.NewerError:
        raise
    except CheckpointError as error:
        if not checkpoint.steps_in(path.parent):
            settings = path.parent / "config.toml"
            if path.exists():
                raise
            if not settings.exists():
                raise CheckpointError(
                    f"the folder {path.parent} holds no model, for there is no file {path} in it; "
                    "give the folder of a run or of a model"
                ) from error
            if who := checkpoint.holder(path.parent):
                raise CheckpointError(
                    f"the run in {path.parent} has no checkpoint so far, and goes on ({who}); wait "
                    "for the first one, whose step --save-every says"
                ) from error
            raise CheckpointError(
                f"the run in {path.parent} has no checkpoint so far; `scoresde train --config "
                f"{shlex.quote(str(settings))}` goes on with it"
            ) from error
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
    for name, kind in _DESCRIPTION.items():
        word = told(config, name, "type") if kind is dict else ""
        if type(config[name]) is not kind or not isinstance(word, str):
            raise CheckpointError(
                f"{path} is no model of scoresde, for its {name} is {str(config[name])[:100]!r}; "
                "give the folder of a run or of a model"
            )
    return tensors, config


def told(config: object, *names: str) -> Any:
    """Return what a description holds under a name, and within that under the next, or None."""
    for name in names:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def spelt_count(count: object) -> str:
    """Return a number with its thousands apart, or whatever else somebody stored in its place."""
    return f"{count:,}" if isinstance(count, int) else str(count)


def packaged(name: str) -> Path:
    """Return the folder of a model that the package carries.

    Raises:
        CheckpointError: There is none of that name.
    """
    names = sorted(p.name for p in _MODELS.glob("*") if p.is_dir())
    if name not in names:
        if os.path.exists(name):
            raise CheckpointError(
                f"{name!r} is no packaged model; the one here is read by "
                f"ScoreModel.from_pretrained({name!r})"
            )
        raise CheckpointError(
            f"there is no folder {name!r} and no packaged model of that name; "
            f"packaged are {', '.join(names) or 'none'}{checkpoint.near(Path(name))}"
        )
    return _MODELS / name


def sde_fields(sde: SDE) -> dict[str, Any]:
    """Return the constructor's arguments of an SDE."""
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
    """Return a described SDE or network as the call that makes it."""
    named = ", ".join(f"{k}={v!r}" for k, v in fields.items() if k != "type")
    return f"{fields.get('type')}({named})"

"""Find and read the files of models, and describe SDEs and networks as JSON."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from scoresde import checkpoint
from scoresde.checks import outside, quoted
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError
from scoresde.pretrained import hub
from scoresde.sde import SDE

__all__ = [
    "PIPELINE",
    "call_text",
    "count_text",
    "entry_of",
    "in_package",
    "locate",
    "net_config",
    "packaged",
    "read",
    "sde_fields",
]

PIPELINE = "model_index.json"
"""The file that lists the parts of a diffusers pipeline."""
_MODELS = Path(__file__).parents[1] / "models"
_DESCRIPTION: Mapping[str, type] = {"sde": dict, "net": dict, "event_shape": list, "predicts": str}


def locate(folder: str | Path) -> Path:
    """Return the file of a model, given its folder, the file itself, or its name.

    The name of a packaged model means that model, unless there is a file with this name, or a
    folder that holds a model or a run. Any other name means the file or folder, if it exists. If
    not, a name such as `runs/exp1` is looked up on the hub, unless there is a folder `runs`. With a
    revision, as in `runs/exp1@main`, it is looked up in any case. For the folder of a diffusers
    pipeline, the file that lists its parts is returned.

    Raises:
        CheckpointError: There is no such model, or the hub cannot be reached.
        MissingExtraError: The name is one of the hub, and huggingface_hub is not installed.

    Warns:
        UserWarning: A file or folder is read in place of a packaged model with the same name.
    """
    path = Path(folder)
    if _is_packaged(folder):
        if not _is_model(path):
            return packaged(str(folder)) / "model.safetensors"
        warnings.warn(
            f"{str(folder)!r} is read from the folder './{folder}'; the packaged model with this "
            "name is read only if there is no such folder",
            UserWarning,
            stacklevel=outside(),
        )
    if os.path.exists(path):  # not path.exists(), which raises for a name that is too long
        return _inside(path) if path.is_dir() else path
    if isinstance(folder, str) and hub.is_repo(folder):
        if "@" not in folder and path.parent.is_dir():
            raise CheckpointError(
                f"there is no folder {folder!r}, but there is a folder "
                f"{str(path.parent)!r}{checkpoint.did_you_mean(path)}; for a model on the hub with "
                f"this name, give the revision: {folder + '@main'!r}"
            )
        return hub.fetch(folder)
    return packaged(str(folder)) / "model.safetensors"


def in_package(path: Path) -> bool:
    """Return True for a file in the package, where nothing may be written."""
    return _MODELS.resolve() in path.resolve().parents


def _inside(folder: Path) -> Path:
    """Return the file of the model in a folder."""
    ours, theirs = folder / "model.safetensors", folder / PIPELINE
    return theirs if theirs.is_file() and not ours.exists() else ours


def _is_packaged(name: str | Path) -> bool:
    return (
        isinstance(name, str)
        and name != ""
        and not set(name) & {".", "/", os.sep}
        and os.path.isdir(_MODELS / name)  # not is_dir(), which raises for a name that is too long
    )


def _is_model(path: Path) -> bool:
    """Return True for a file, and for a folder with a model or checkpoints."""
    return (
        path.is_file() or (path / "model.safetensors").exists() or bool(checkpoint.steps_in(path))
    )


def read(path: Path, raw: bytes | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the description in a model's file.

    Args:
        path: The file.
        raw: The content of the file, if it has been read already.

    Raises:
        CheckpointError: The file is missing, is damaged, has another format, or holds no model.
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
                    f"the folder {path.parent} holds no model, since there is no file {path}; "
                    f"{_theirs(path.parent) or 'give the folder of a run or of a model'}"
                ) from error
            if who := checkpoint.holder(path.parent):
                raise CheckpointError(
                    f"the run in {path.parent} has no checkpoint so far, and is running ({who}); "
                    "wait for the first checkpoint, after --save-every steps"
                ) from error
            raise CheckpointError(
                f"the run in {path.parent} has no checkpoint so far; `scoresde train --config "
                f"{shlex.quote(str(settings))}` continues it"
            ) from error
        raise CheckpointError(
            f"{error}; to write it again from the checkpoints beside it, run the training command "
            "again, even if the run is complete"
        ) from error
    missing = [name for name in _DESCRIPTION if name not in config]
    missing += [name for name in ("mean", "var") if name not in tensors]
    if missing:
        raise CheckpointError(
            f"{path} is not a model of scoresde, since it has no {', '.join(missing)}; give the "
            "folder of a run or of a model"
        )
    for name, kind in _DESCRIPTION.items():
        word = entry_of(config, name, "type") if kind is dict else ""
        if type(config[name]) is not kind or not isinstance(word, str):
            raise CheckpointError(
                f"{path} is not a model of scoresde, since its {name} is "
                f"{str(config[name])[:100]!r}; give the folder of a run or of a model"
            )
    return tensors, config


def _theirs(folder: Path) -> str:
    """Return advice for a folder of diffusers, or "" for any other folder."""
    try:
        name = entry_of(checkpoint.read_json(folder / "config.json"), "_class_name")
    except CheckpointError:
        return ""
    if not isinstance(name, str):
        return ""
    return (
        f"it holds a {quoted(name)} of diffusers; load it with diffusers, and pass it with its "
        "scheduler to interop.from_diffusers"
    )


def entry_of(config: object, *names: str) -> Any:
    """Return the entry `config[names[0]][names[1]]...` of a description, or None."""
    for name in names:
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


def count_text(count: object) -> str:
    """Return an integer as text with commas between thousands; return any other value as text."""
    return f"{count:,}" if isinstance(count, int) else str(count)


def packaged(name: str) -> Path:
    """Return the folder of a model that is part of the package.

    Raises:
        CheckpointError: There is no model of that name.
    """
    names = sorted(p.name for p in _MODELS.glob("*") if p.is_dir())
    if name not in names:
        if os.path.exists(name):
            raise CheckpointError(
                f"{name!r} is not a packaged model; read the folder with this name by "
                f"ScoreModel.from_pretrained({name!r})"
            )
        raise CheckpointError(
            f"there is no folder {name!r} and no packaged model with this name; the packaged "
            f"models are {', '.join(names) or 'none'}{checkpoint.did_you_mean(Path(name))}"
        )
    return _MODELS / name


def sde_fields(sde: SDE) -> dict[str, Any]:
    """Return the arguments of the constructor of an SDE, except functions."""
    values = {field.name: getattr(sde, field.name) for field in fields(sde) if field.init}
    return {name: value for name, value in values.items() if not callable(value)}


def net_config(net: object) -> dict[str, Any] | None:
    """Return the constructor's arguments of a network if its `config` has them as JSON, else None.

    Networks of this package have such a `config`; other networks may have any other object under
    this name. Names that begin with an underscore are left out, such as the path of a diffusers
    network.
    """
    config: Any = getattr(net, "config", None)
    if not isinstance(config, Mapping):
        return None
    named = {name: value for name, value in config.items() if not str(name).startswith("_")}
    try:
        checkpoint.dump(named)
    except (InvalidTypeError, InvalidValueError):
        return None
    return named


def call_text(fields: Mapping[str, Any]) -> str:
    """Return the Python call that makes the described SDE or network."""
    named = ", ".join(f"{k}={v!r}" for k, v in fields.items() if k != "type")
    return f"{fields.get('type')}({named})"

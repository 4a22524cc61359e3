"""Collect the files of a model's folder that are uploaded."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from scoresde import checkpoint
from scoresde.errors import CheckpointError
from scoresde.pretrained import card, store
from scoresde.pretrained.private import config_toml

__all__ = ["contents"]

# files of a run's folder that are uploaded unchanged; checkpoints are not uploaded
_COPIED = [
    "samples.png", "loss.png", "report.json", "report.png", "report/report.json",
    "report/report.png",
]  # fmt: skip


def contents(folder: Path, *, name: str, licence: str | None = None) -> dict[str, bytes]:
    """Return the contents of all files to upload, by their names in the repository.

    The model is read only once, so that exactly the verified bytes are uploaded.

    Args:
        folder: The folder of `model.safetensors`.
        name: The name of the repository, for the card.
        licence: As for `card.text`.

    Raises:
        CheckpointError: There is no model, the model is damaged, or another file is a link or
            cannot be read.
    """
    path, readme = folder / "model.safetensors", folder / "README.md"
    model = checkpoint.read_bytes(path)
    _, config = store.read(path, model)
    for file in ("report", "config.toml"):  # _plain does not read these two files
        if (folder / file).is_symlink():
            raise _link(folder / file)
    toml = config_toml(folder)
    edited = os.path.lexists(readme) and not card.is_generated(readme)
    found = {
        "model.safetensors": model,
        "config.json": (checkpoint.dump(config, indent=2) + "\n").encode(),
        "README.md": _plain(readme)
        if edited
        else card.text(folder, config, name=name, licence=licence).encode(),
    }
    if toml is not None:
        found["config.toml"] = toml.encode()
    for file in _COPIED:
        if os.path.lexists(folder / file):
            found[file] = _plain(folder / file)
    return found


def _plain(path: Path) -> bytes:
    """Return the content of a file; raise if it is a link."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise _link(path)
    return checkpoint.read_bytes(path)


def _link(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a regular file, or is a link, so it is not uploaded; replace it by a copy, "
        "or remove it"
    )

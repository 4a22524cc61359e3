"""What of a model's folder is shared: the model, and what says what it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scoresde import checkpoint
from scoresde.errors import CheckpointError
from scoresde.pretrained import card
from scoresde.pretrained.private import config_toml

__all__ = ["contents"]

# what people want of a run's folder; its checkpoints stay at home
_AS_THEY_ARE = [
    "samples.png", "loss.png", "report.json", "report.png", "report/report.json",
    "report/report.png",
]  # fmt: skip


def contents(
    folder: Path, config: Mapping[str, Any], *, name: str, licence: str | None = None
) -> dict[str, bytes | Path]:
    """All that is shared, by its name in the repository; nothing is written.

    Args:
        folder: Holds `model.safetensors`, which was read.
        config: The description in it.
        name: What `from_pretrained` will take.
        licence: As for `card.text`.

    Raises:
        CheckpointError: A file is a link, which may lead anywhere, or cannot be read.
    """
    readme = folder / "README.md"
    for file in ("report", "config.toml"):  # neither is read by _plain
        if (folder / file).is_symlink():
            raise _link(folder / file)
    toml = config_toml(folder)
    written = os.path.lexists(readme) and not card.is_ours(readme)
    found: dict[str, bytes | Path] = {
        "model.safetensors": (folder / "model.safetensors").resolve(),
        "config.json": (checkpoint.dump(config, indent=2) + "\n").encode(),
        "README.md": _plain(readme)
        if written
        else card.text(folder, config, name=name, licence=licence).encode(),
    }
    if toml is not None:
        found["config.toml"] = toml.encode()
    for file in _AS_THEY_ARE:
        if os.path.lexists(folder / file):
            found[file] = _plain(folder / file)
    return found


def _plain(path: Path) -> bytes:
    """The content of a file that is no link."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise _link(path)
    return checkpoint.read_bytes(path)


def _link(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is a link, or no file, and could be anything; put a copy in its place, or remove "
        "it"
    )

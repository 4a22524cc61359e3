"""What of a model's folder is shared: the model, and what says what it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from scoresde import checkpoint
from scoresde.errors import CheckpointError
from scoresde.pretrained import card, store
from scoresde.pretrained.private import config_toml

__all__ = ["contents"]

# what people want of a run's folder; its checkpoints stay at home
_AS_THEY_ARE = [
    "samples.png", "loss.png", "report.json", "report.png", "report/report.json",
    "report/report.png",
]  # fmt: skip


def contents(folder: Path, *, name: str, licence: str | None = None) -> dict[str, bytes]:
    """Return all that is shared, by its name in the repository; nothing is written.

    The model is read once: the bytes that were verified are those that are sent.

    Args:
        folder: Holds `model.safetensors`.
        name: What `from_pretrained` will take.
        licence: As for `card.text`.

    Raises:
        CheckpointError: There is no model, or it is damaged; another file is a link, which may lead
            anywhere, or cannot be read.
    """
    path, readme = folder / "model.safetensors", folder / "README.md"
    model = checkpoint.read_bytes(path)
    _, config = store.read(path, model)
    for file in ("report", "config.toml"):  # neither is read by _plain
        if (folder / file).is_symlink():
            raise _link(folder / file)
    toml = config_toml(folder)
    written = os.path.lexists(readme) and not card.is_ours(readme)
    found = {
        "model.safetensors": model,
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

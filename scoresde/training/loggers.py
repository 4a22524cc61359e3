"""The log of a run on other people's boards: TensorBoard, Weights & Biases, trackio.

A run that is taken up again goes on in the same curves.
"""

from __future__ import annotations

import importlib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from scoresde import checkpoint
from scoresde.errors import CheckpointError, MissingExtraError
from scoresde.training.callbacks import Callback
from scoresde.training.config import TrainConfig

__all__ = ["TensorBoard", "Trackio", "WandB"]

_PROJECT = "scoresde"


class TensorBoard(Callback):
    """Event files in `folder/tensorboard`: see them with `tensorboard --logdir folder`.

    Args:
        folder: That of the run.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder) / "tensorboard"
        self._module = _imported("torch.utils.tensorboard", "tensorboard", "tensorboard")

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Open a file; what earlier ones say of later steps is hidden.

        Raises:
            CheckpointError: The folder of the files is a link.
        """
        if self.folder.is_symlink():
            raise CheckpointError(f"{self.folder} is a link, which no run leaves; remove it")
        self._writer = self._module.SummaryWriter(
            str(self.folder),
            purge_step=step + 1,
            filename_suffix=f".{secrets.token_hex(16)}",  # else a link could wait there
        )

    def on_log(self, row: Mapping[str, float]) -> None:
        """One point of every curve."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))

    def on_checkpoint(self, step: int, model: nn.Module) -> None:
        """Flush the event file."""
        self._writer.flush()

    def on_end(self, step: int) -> None:
        """Close the file."""
        self._writer.close()


class WandB(Callback):
    """Log to a run of Weights & Biases, in the project of `WANDB_PROJECT` or in "scoresde".

    Args:
        folder: That of the run. Its name is the run's, and `run-id` in it the number under which
            the run goes on.

    Raises:
        MissingExtraError: wandb is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._module = _imported("wandb", "wandb", "wandb")

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Begin, or go on."""
        self._run = self._module.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=self.folder.resolve().name,
            id=_run_id(self.folder),
            resume="allow",
            dir=str(self.folder),
            config=config.as_json(),
            allow_val_change=True,  # the number of steps may have grown
        )
        # its own count may not go back, as ours does after a crash
        self._run.define_metric("*", step_metric="step")

    def on_log(self, row: Mapping[str, float]) -> None:
        """One point of every curve."""
        self._run.log(dict(row))

    def on_end(self, step: int) -> None:
        """Send what is left."""
        self._run.finish()


class Trackio(Callback):
    """Log to a run of trackio, kept on this machine: see it with `trackio show`.

    Args:
        folder: That of the run. Its name and the number in `run-id` are the run's name.

    Raises:
        MissingExtraError: trackio is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._module = _imported("trackio", "trackio", "trackio")

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Begin, or go on."""
        self._run = self._module.init(
            project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
            name=f"{self.folder.resolve().name}-{_run_id(self.folder)}",
            resume="allow",
            config=config.as_json(),
        )

    def on_log(self, row: Mapping[str, float]) -> None:
        """One point of every curve."""
        values = {name: value for name, value in row.items() if name != "step"}
        self._run.log(values, step=int(row["step"]))

    def on_end(self, step: int) -> None:
        """Write what is left."""
        self._run.finish()


def _imported(module: str, package: str, extra: str) -> Any:
    """Return a module, or raise before the work."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name not in (package, module, None):
            raise MissingExtraError(f"{package} cannot be imported here: {error}") from error
        raise MissingExtraError.of(package, extra, f"logging to {package}") from error


def _run_id(folder: Path) -> str:
    """Return what tells this run from all others, also when its folder is moved.

    Raises:
        CheckpointError: The file is another one, of which nothing is sent to a board.
    """
    path = folder / "run-id"
    if not os.path.lexists(path):
        checkpoint.write_bytes(path, secrets.token_hex(4).encode())
    found = checkpoint.read_bytes(path, most=64).decode("latin-1")
    if path.is_symlink() or re.fullmatch("[A-Za-z0-9._-]+", found) is None:
        raise CheckpointError(f"{path} holds no number of a run; remove it for a new one")
    return found

"""Log a run to TensorBoard, Weights & Biases or trackio.

A resumed run continues the same curves.
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
    """Write event files to `folder/tensorboard`; show them by `tensorboard --logdir folder`.

    Args:
        folder: The folder of the run.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute() / "tensorboard"
        self._module = _imported("torch.utils.tensorboard", "tensorboard", "tensorboard")

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Open a new event file, which makes TensorBoard hide later steps of older files.

        Raises:
            CheckpointError: The folder of the event files is a link.
        """
        if self.folder.is_symlink():
            raise CheckpointError(f"{self.folder} is a link that scoresde did not make; remove it")
        self._writer = self._module.SummaryWriter(
            str(self.folder),
            purge_step=step + 1,
            # an unpredictable name, so that nobody can put a link there beforehand
            filename_suffix=f".{secrets.token_hex(16)}",
        )

    def on_log(self, row: Mapping[str, float]) -> None:
        """Add one point to every curve."""
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
    """Log to a run of Weights & Biases, in the project `WANDB_PROJECT`, by default "scoresde".

    Args:
        folder: The folder of the run, whose name becomes the name of the run. Its file `run-id`
            holds the identifier under which a resumed run continues.

    Raises:
        MissingExtraError: wandb is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self._module = _imported("wandb", "wandb", "wandb")

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Begin the run, or continue it."""
        self._run = self._module.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=self.folder.resolve().name,
            id=_run_id(self.folder),
            resume="allow",
            dir=str(self.folder),
            config=config.as_json(),
            allow_val_change=True,  # the number of steps may have been increased
        )
        # log the step as a value: a run resumed after a crash repeats steps, but wandb's own step
        # counter cannot go back
        self._run.define_metric("*", step_metric="step")

    def on_log(self, row: Mapping[str, float]) -> None:
        """Add one point to every curve."""
        self._run.log(dict(row))

    def on_end(self, step: int) -> None:
        """Send the remaining rows."""
        self._run.finish()


class Trackio(Callback):
    """Log to a run of trackio on this machine; show it by `trackio show`.

    The project is `TRACKIO_PROJECT`, by default "scoresde".

    Args:
        folder: The folder of the run. The run's name consists of the folder's name and the
            identifier in the file `run-id`.

    Raises:
        MissingExtraError: trackio is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self._module = _imported("trackio", "trackio", "trackio")

    def on_start(self, step: int, config: TrainConfig) -> None:
        """Begin the run, or continue it."""
        self._run = self._module.init(
            project=os.environ.get("TRACKIO_PROJECT", _PROJECT),
            name=f"{self.folder.resolve().name}-{_run_id(self.folder)}",
            resume="allow",
            config=config.as_json(),
        )

    def on_log(self, row: Mapping[str, float]) -> None:
        """Add one point to every curve."""
        values = {name: value for name, value in row.items() if name != "step"}
        self._run.log(values, step=int(row["step"]))

    def on_end(self, step: int) -> None:
        """Write the remaining rows."""
        self._run.finish()


def _imported(module: str, package: str, extra: str) -> Any:
    """Return a module, or raise MissingExtraError, which names the extra to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name not in (package, module, None):
            raise MissingExtraError(f"{package} cannot be imported here: {error}") from error
        raise MissingExtraError.of(package, extra, f"logging to {package}") from error


def _run_id(folder: Path) -> str:
    """Return the identifier of a run, which does not change when its folder is moved.

    Raises:
        CheckpointError: The file `run-id` holds no identifier. Its content is not sent to a server.
    """
    path = folder / "run-id"
    if not os.path.lexists(path):
        checkpoint.write_bytes(path, secrets.token_hex(4).encode())
    found = checkpoint.read_bytes(path, most=64).decode("latin-1")
    if path.is_symlink() or re.fullmatch("[A-Za-z0-9._-]+", found) is None:
        raise CheckpointError(
            f"{path} does not hold the identifier of a run; remove it, and a new file will be made"
        )
    return found

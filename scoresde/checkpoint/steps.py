"""Keep the last checkpoints of a run in a folder, by step, and find the newest undamaged one."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scoresde.checkpoint.tensors import NewerError, load_tensors, write_tensors
from scoresde.checks import check_integer, outside
from scoresde.errors import CheckpointError

__all__ = ["latest", "save_step", "set_aside", "steps_in"]

_NAME = re.compile(r"step-([0-9]{8,18})\.safetensors")


def save_step(
    folder: str | os.PathLike[str],
    step: int,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    *,
    keep: int,
) -> Path:
    """Write the checkpoint of `step` into `folder`, and keep the last `keep` checkpoints.

    The tensors are those that `copied` returns.

    Raises:
        InvalidValueError: `step` is negative or `keep` below 1.
        CheckpointError: The file cannot be written; then no older checkpoint is removed.
    """
    check_integer("step", step, 0)
    check_integer("keep", keep, 1)
    path = Path(folder) / f"step-{step:08d}.safetensors"
    write_tensors(path, tensors, meta)
    # checkpoints of later steps are not counted, since `latest` skipped them as damaged
    for old in [p for s, p in steps_in(folder) if s <= step][:-keep]:
        with contextlib.suppress(OSError):  # a file that could not be removed does no harm
            old.unlink()
    return path


def steps_in(folder: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """Return the checkpoints in `folder` as (step, file), sorted; none if it does not exist.

    Raises:
        CheckpointError: The folder cannot be read.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"cannot read the folder {folder}: {error.strerror}") from error
    found = [match for match in map(_NAME.fullmatch, names) if match]
    return sorted((int(match[1]), Path(folder) / match[0]) for match in found)


def latest(
    folder: str | os.PathLike[str],
) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """Return the newest undamaged checkpoint in `folder` as (file, tensors, meta), or None.

    Damaged checkpoints are skipped, with a warning that names the newest of them.

    Raises:
        NewerError: A newer version of scoresde wrote the newest checkpoint that is not damaged;
            continuing from an older checkpoint would undo its steps.
        CheckpointError: There are checkpoints, but all are damaged; or the folder cannot be read.
    """
    damaged: list[str] = []
    for _, path in reversed(steps_in(folder)):
        try:
            tensors, meta = load_tensors(path)
        except NewerError:
            raise
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(
                f"{damaged[0]}; continuing from {path.name}", RuntimeWarning, stacklevel=outside()
            )
        return path, tensors, meta
    if damaged:
        raise CheckpointError(
            f"every checkpoint in {folder} is damaged: {'; '.join(damaged)}; remove the folder to "
            "start again"
        )
    return None


def set_aside(folder: str | os.PathLike[str], after: int) -> None:
    """Rename the checkpoints of steps later than `after`, which `latest` found damaged.

    Otherwise these would be kept as the last checkpoints, and undamaged ones would be removed.
    """
    for _, path in [(s, p) for s, p in steps_in(folder) if s > after]:
        with contextlib.suppress(OSError):
            path.rename(path.with_suffix(".damaged"))

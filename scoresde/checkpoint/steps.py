"""A folder of checkpoints by step: the newest good one, and no more of them than needed."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from scoresde.checkpoint.tensors import NewerError, load_tensors, save_tensors
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
    """Write the checkpoint of `step` into `folder` and remove all but the last `keep` up to it.

    Raises:
        InvalidValueError: `step` or `keep` is impossible.
        CheckpointError: the file cannot be written; then no older one is removed.
    """
    check_integer("step", step, 0)
    check_integer("keep", keep, 1)
    path = Path(folder) / f"step-{step:08d}.safetensors"
    save_tensors(path, tensors, meta)
    # A later step is one that `latest` rejected: it does not count, and is soon written again.
    for old in [p for s, p in steps_in(folder) if s <= step][:-keep]:
        with contextlib.suppress(OSError):  # what cannot be removed does no harm
            old.unlink()
    return path


def steps_in(folder: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """The checkpoints in `folder` as (step, file), in rising order; none where it is missing.

    Raises:
        CheckpointError: the folder cannot be read.
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
    """The newest good checkpoint in `folder` as (file, tensors, meta); None where there is none.

    A damaged one is passed over with a warning that names it.

    Raises:
        NewerError: a newer scoresde wrote the newest one; an older one would undo its steps.
        CheckpointError: there are checkpoints, and every one of them is damaged.
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
                f"{damaged[0]}; going on from {path.name}", RuntimeWarning, stacklevel=outside()
            )
        return path, tensors, meta
    if damaged:
        raise CheckpointError(
            f"no good checkpoint is left in {folder}: {'; '.join(damaged)}; remove the folder to "
            "start again"
        )
    return None


def set_aside(folder: str | os.PathLike[str], after: int) -> None:
    """Rename the checkpoints of steps beyond `after`, which `latest` found damaged.

    They would count among those that are kept, and push out good ones.
    """
    for _, path in [(s, p) for s, p in steps_in(folder) if s > after]:
        with contextlib.suppress(OSError):
            path.rename(path.with_suffix(".damaged"))

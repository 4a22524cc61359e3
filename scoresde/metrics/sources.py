r"""Where samples come from, and what is looked at in them: a matrix of features, batch by batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from scoresde import checkpoint, data
from scoresde.data import Data
from scoresde.errors import DataError, InvalidTypeError, ShapeError
from scoresde.metrics.checks import flat

__all__ = ["Features", "Source", "batches", "features_of"]

Features: TypeAlias = Callable[[Tensor], Tensor]
"""A map from a batch `(B, *)` to its features `(B, F)`."""

Source: TypeAlias = Tensor | Data | str | os.PathLike[str] | Iterable[Tensor]
"""Samples: a tensor `(N, *)`, data, batches one after the other, or a file or folder of them."""

# Samples that a feature map sees at one time.
_ROWS = 1024


def batches(name: str, source: Source) -> Iterator[Tensor]:
    """The samples of a source, at most 1024 at a time.

    Args:
        name: What the source is called in errors.
        source: A tensor or data; an iterable of batches, which is gone through once; the folder of
            shards that `scoresde sample` writes, of which one at a time is in memory; one
            `.safetensors` file with the key `x`; or another file or folder that
            `scoresde.data.load` reads.

    Raises:
        InvalidTypeError: The source, or a batch of it, is something else.
        ShapeError: A batch is a single number, or its events have another shape than those before.
        DataError: A file or folder holds no samples.
        CheckpointError: A shard is damaged.
    """
    shape: torch.Size | None = None
    for part in _parts(name, source):
        if not isinstance(part, Tensor) or part.is_complex():
            got = part.dtype if isinstance(part, Tensor) else type(part).__name__
            raise InvalidTypeError(f"{name} must be a tensor of samples, or batches, got {got}")
        if part.ndim == 0:
            raise ShapeError(f"{name} must be a batch (B, *), got a single number")
        shape = part.shape[1:] if shape is None else shape
        if part.shape[1:] != shape:
            raise ShapeError(
                f"{name} must hold events of one shape, got {tuple(shape)} and then "
                f"{tuple(part.shape[1:])}"
            )
        yield from torch.split(part, _ROWS) if len(part) else ()


@torch.no_grad()
def features_of(name: str, source: Source, features: Features | None = None) -> Iterator[Tensor]:
    """The features of a source, float64 `(B, F)` on the CPU, at most 1024 rows at a time.

    Args:
        name: What the source is called in errors.
        source: As for `batches`.
        features: The map; without it the samples themselves, flattened, are the features.

    Raises:
        ShapeError: The map does not return one row per sample.
        InvalidTypeError: A feature is not a real number.
        NonFiniteError: A feature is NaN or infinite.
    """
    for part in batches(name, source):
        if features is None:
            yield flat(name, part).cpu()
            continue
        found = flat(f"features({name})", features(part))
        if len(found) != len(part):
            raise ShapeError(
                f"features must return one row per sample, got {len(found)} rows for {len(part)} "
                "samples"
            )
        yield found.cpu()


def _parts(name: str, source: Source) -> Iterable[Tensor]:
    if isinstance(source, Tensor):
        return (source,)
    if isinstance(source, Data):
        return (source.x,)
    if isinstance(source, str | os.PathLike):
        return _stored(Path(source).expanduser())
    if isinstance(source, Iterable):
        return source
    raise InvalidTypeError(
        f"{name} must be a tensor of samples, batches of them or where they are kept, got "
        f"{type(source).__name__}"
    )


def _stored(path: Path) -> Iterator[Tensor]:
    shards = sorted(path.glob("shard-*.safetensors")) if path.is_dir() else []
    if path.suffix == ".safetensors":
        shards = [path]
    for shard in shards:
        tensors, _ = checkpoint.load_tensors(shard)
        if "x" not in tensors:
            raise DataError(
                f"{shard} has the keys {', '.join(tensors) or '(none)'}; samples are named 'x'"
            )
        yield tensors["x"]
    if not shards:
        yield data.load(path).x

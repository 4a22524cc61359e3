r"""Read samples from their sources, and compute their features batch by batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from scoresde import checkpoint, data
from scoresde.checks import as_numbers, check_dense, check_shape, quoted
from scoresde.data import Data, Identity, Transform
from scoresde.errors import DataError, InvalidTypeError, ShapeError
from scoresde.metrics.checks import flat, reach
from scoresde.score import evaluating

__all__ = ["Features", "Source", "batches", "features_of", "opened"]

Features: TypeAlias = Callable[[Tensor], Tensor]
"""A map from a batch `(B, *)` to its features `(B, F)`."""

Source: TypeAlias = Tensor | Data | str | os.PathLike[str] | Iterable[Tensor]
"""Samples: a tensor `(N, *)`, a `Data`, an iterable of batches, a path, or the name of data."""

# The largest number of samples in one call of a feature map.
_ROWS = 1024
_AS_THEY_ARE = Identity()


def opened(name: str, source: Source | Any) -> Source:
    """Load a source given by name or path; convert an array or a table to a tensor.

    Other sources, and the folder or file of samples, are returned unchanged.

    Raises:
        InvalidTypeError: An array or a table holds something other than numbers.
    """
    if isinstance(source, str | os.PathLike) and not _shards(Path(source)):
        return data.load(source)
    if hasattr(source, "__array__") and not isinstance(source, Tensor):
        return as_numbers(name, np.asarray(source))
    return source


def batches(name: str, source: Source, units: Transform = _AS_THEY_ARE) -> Iterator[Tensor]:
    """Yield the samples of a source, at most 1024 at a time.

    Args:
        name: The name of the source, for errors.
        source: A tensor, an array or a table of numbers; an iterable of batches, which is read
            once; a `Data`, read batch by batch; the folder of shards that `scoresde sample`
            writes, or one `.safetensors` file, with the key `x`; or what `scoresde.data.load`
            reads.
        units: The transform that maps bytes, and the numbers in files of samples, to model units.

    Raises:
        InvalidTypeError: The source, or one of its batches, has another type.
        ShapeError: A batch is a single number, or its events have another shape than the events of
            earlier batches.
        DataError: A file or folder holds no samples.
        CheckpointError: A shard is damaged.
    """
    shape: torch.Size | None = None
    named = isinstance(source, str | os.PathLike)
    source = opened(name, source)
    if named and isinstance(source, Data):
        source = source.units_of(units)
    for part in _parts(source, units):
        if not isinstance(part, Tensor) or part.is_complex():
            raise InvalidTypeError(
                f"{name} must be a tensor of real numbers, or batches of such tensors, got "
                f"{quoted(part)}"
            )
        check_dense(name, part)
        check_shape(name, part)
        if part.dtype == torch.uint8 and units != _AS_THEY_ARE:
            part = units.forward(part)
        shape = part.shape[1:] if shape is None else shape
        if part.shape[1:] != shape:
            raise ShapeError(
                f"{name} must hold events of the same shape, got {tuple(shape)} and then "
                f"{tuple(part.shape[1:])}"
            )
        yield from torch.split(part, _ROWS) if len(part) else ()


@torch.no_grad()
def features_of(
    name: str,
    source: Source,
    features: Features | None = None,
    units: Transform = _AS_THEY_ARE,
    seen: dict[str, tuple[bool, float]] | None = None,
) -> Iterator[Tensor]:
    """Yield the features of a source, float64 `(B, F)` on the CPU, at most 1024 rows at a time.

    Args:
        name: The name of the source, for errors.
        source: As for `batches`.
        features: The feature map, whose networks run in evaluation mode; without it the flattened
            samples are the features.
        units: As for `batches`.
        seen: A dictionary in which the result of `metrics.checks.reach` for the samples is stored
            under the name.

    Raises:
        ShapeError: The map does not return one row per sample.
        InvalidTypeError: A feature is not a real number.
        NonFiniteError: A feature is NaN or infinite.
    """
    with evaluating(features):
        for part in batches(name, source, units):
            if seen is not None:
                seen[name] = max(seen.get(name, (False, 0.0)), reach(part))
            if features is None:
                yield flat(name, part).cpu()
                continue
            # a copy, since a feature map may change its input in place
            found = flat(f"features({name})", features(part.clone()))
            if len(found) != len(part):
                raise ShapeError(
                    f"features must return one row per sample, got {len(found)} rows for "
                    f"{len(part)} samples"
                )
            yield found.cpu()


def _parts(source: Source, units: Transform) -> Iterable[Tensor]:
    if isinstance(source, Tensor):
        return (source,)
    if isinstance(source, Data):
        starts = range(0, len(source), _ROWS)
        return (source.batch(slice(start, start + _ROWS)) for start in starts)
    if isinstance(source, str | os.PathLike):
        stored = (_stored(shard) for shard in _shards(Path(source)))
        return (x if x.dtype == torch.uint8 else units.forward(x) for x in stored)
    return source


def _shards(path: Path) -> list[Path]:
    if path.suffix == ".safetensors":
        return [path]
    return sorted(path.glob("shard-*.safetensors")) if path.is_dir() else []


def _stored(shard: Path) -> Tensor:
    tensors, _ = checkpoint.load_tensors(shard)
    if "x" not in tensors:
        raise DataError(
            f"{shard} has the keys {', '.join(tensors) or '(none)'}; samples are named 'x'"
        )
    return tensors["x"]

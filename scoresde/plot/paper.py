"""What pictures are drawn on: checked numbers, figures, and files that are whole or not there."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde import checkpoint
from scoresde.checks import as_numbers, check_batch
from scoresde.errors import (
    CheckpointError,
    InvalidValueError,
    MissingExtraError,
    ShapeError,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["axes", "figure", "finite", "save", "vector", "write"]


def vector(name: str, values: Tensor | Sequence[float]) -> Tensor:
    """Finite numbers as a vector of float64."""
    tensor = as_numbers(name, values, dtype=torch.float64)
    if tensor.ndim != 1 or len(tensor) == 0:
        raise ShapeError(f"{name} must be a vector of numbers, got shape {tuple(tensor.shape)}")
    return finite(name, tensor)


def finite(name: str, x: Tensor) -> Tensor:
    """The tensor on the CPU and out of any graph, of floating point and finite."""
    check_batch(name, x)
    return x.detach().cpu().to(torch.promote_types(x.dtype, torch.float32))


def figure(purpose: str, size: tuple[float, float]) -> Figure:
    """An empty figure for what has more panels than the plots here; `save` writes it.

    Args:
        purpose: What needs it, for the error.
        size: Width and height in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", "plot", purpose) from error
    return Figure(figsize=size, dpi=120, layout="constrained")


def axes(purpose: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    sheet = figure(purpose, size)
    return sheet, sheet.subplots()


def save(drawn: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure into a PNG file; returns its path.

    Raises:
        InvalidValueError: The file cannot be written, or does not end in `.png`.
    """
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png")
    return write(path, buffer)


def write(path: str | os.PathLike[str], buffer: io.BytesIO) -> Path:
    """Puts a finished picture in its place in one step: nobody ever reads half of one."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InvalidValueError(f"pictures are PNG files, got {str(path)!r}; end it in .png")
    try:
        checkpoint.write_bytes(path, buffer.getvalue())
    except CheckpointError as error:
        raise InvalidValueError(f"{error}; choose another file") from error
    return path

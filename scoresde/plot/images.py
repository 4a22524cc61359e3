"""Images side by side, with Pillow alone."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import torch
from torch import Tensor

from scoresde.checks import check_integer, door
from scoresde.errors import ShapeError
from scoresde.plot import paper

__all__ = ["grid", "is_image"]

# Pixels between the images of a grid, their grey level, and the height that small images get.
_GAP, _GREY, _HEIGHT = 2, 80, 84


def is_image(event_shape: tuple[int, ...]) -> bool:
    """Whether samples of this shape can be shown by `grid`: grey or coloured images."""
    return len(event_shape) == 3 and event_shape[0] in (1, 3)


@door
def grid(
    images: Tensor,
    path: str | os.PathLike[str],
    *,
    columns: int | None = None,
    scale: int | None = None,
) -> Path:
    """Writes images side by side into one PNG file, row by row.

    Args:
        images: `(B, 1, H, W)` grey or `(B, 3, H, W)` colour, floating point in [-1, 1]; what lies
            outside is clipped.
        path: the file, ending in `.png`; its folder is made, and an old file replaced at once.
        columns: images per row; as square as possible without it.
        scale: how many pixels a side of one pixel gets, without blur; without it small images are
            enlarged to about 84 pixels.

    Returns:
        The path.

    Raises:
        ShapeError: `images` has another shape, or no image.
        InvalidTypeError: `images` is not of floating point.
        NonFiniteError: an image holds a NaN or an infinity.
        InvalidValueError: `columns` or `scale` is below one, or the file cannot be written.
    """
    from einops import rearrange, repeat
    from PIL import Image

    pixels = paper.finite("images", images)
    if not is_image(tuple(pixels.shape[1:])) or pixels.numel() == 0:
        raise ShapeError(
            "images must be of shape (B, 1, H, W) or (B, 3, H, W) with B, H, W >= 1, got "
            f"{tuple(pixels.shape)}"
        )
    n, _, height, width = pixels.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else check_integer("columns", columns, 1)
    scale = (
        max(1, _HEIGHT // max(height, width)) if scale is None else check_integer("scale", scale, 1)
    )
    columns = min(columns, n)
    rows = math.ceil(n / columns)

    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    large = repeat(levels, "b c h w -> b c (h i) (w j)", i=scale, j=scale)
    framed = torch.nn.functional.pad(large, (0, _GAP, 0, _GAP), value=_GREY)
    empty = framed.new_full((rows * columns - n, *framed.shape[1:]), _GREY)
    tiled = rearrange(torch.cat([framed, empty]), "(r k) c h w -> (r h) (k w) c", r=rows, k=columns)
    tiled = torch.nn.functional.pad(tiled, (0, 0, _GAP, 0, _GAP, 0), value=_GREY)
    buffer = io.BytesIO()
    Image.fromarray(tiled.squeeze(2).numpy()).save(buffer, format="png")
    return paper.write(path, buffer)

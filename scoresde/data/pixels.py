r"""Convert a Pillow image to an array of bytes, 16-bit integers or floats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from scoresde.units import DEEP, Identity, Transform

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "DEEP_MODE",
    "FLOAT_MODE",
    "GREY_MODES",
    "UNITS",
    "Size",
    "is_cut",
    "pillow_mode",
    "pixels",
]

Size = int | tuple[int, int] | None

DEEP_MODE, FLOAT_MODE = "I;16", "F"
"""Pillow's 16-bit modes, in either byte order, and its mode of floats."""
GREY_MODES = ("1", "L", "LA", "La")
"""Pillow's modes for grey images with at most 8 bits."""
UNITS: Mapping[str, Transform] = {DEEP_MODE: DEEP, FLOAT_MODE: Identity()}
"""The transforms to model units for modes that are not bytes."""


def pixels(image: Image, size: Size, mode: str) -> np.ndarray[Any, Any]:
    """Convert an image to a mode, crop it about its centre, resize it, and return `(C, H, W)`.

    Raises:
        ValueError: Integers exceed 16 bits, or numbers with more than 8 bits would become bytes.
    """
    from PIL import ImageOps

    deep, present = mode in (DEEP_MODE, FLOAT_MODE), pillow_mode(image)
    if not deep and present in (DEEP_MODE, FLOAT_MODE):  # Pillow would clip these to bytes
        raise ValueError(f"its mode is {present!r}, with more than 8 bits per channel; convert it")
    image = ImageOps.exif_transpose(image)
    image = image.convert("I") if mode == DEEP_MODE else image
    image = image.convert(FLOAT_MODE if deep else mode)
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        image = ImageOps.fit(image, (width, height))
    found = np.array(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)
    if mode != DEEP_MODE:
        return found
    if size is not None:  # resizing floats gives fractions, and may exceed the range
        found = found.round().clip(0, 65535)
    if not 0 <= found.min() <= found.max() <= 65535:
        raise ValueError("its numbers need more than 16 bits; save them as floats, in a .npy file")
    return found


def pillow_mode(image: Image) -> str:
    """Return Pillow's name for the type of a pixel; a palette of greys is "L".

    Every mode of integers with more than 8 bits is called "I;16".
    """
    if image.mode.startswith("I"):
        return DEEP_MODE
    if image.mode == "P" and "transparency" not in image.info:
        palette = np.asarray(image.getpalette() or [0, 1, 2]).reshape(-1, 3)
        return "L" if (palette == palette[:, :1]).all() else "P"
    return image.mode


def is_cut(image: Image) -> bool:
    """Return True for an image with 16 bits per colour, of which Pillow reads only 8."""
    parts = getattr(image, "tile", [])
    return image.mode.startswith("RGB") and any(";16" in str(part) for part in parts)

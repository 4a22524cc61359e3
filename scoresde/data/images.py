r"""Decode images when they are needed, or keep them in memory if they are small enough.

Images become bytes `(C, H, W)`, RGB if any image has colours, else grey. If all images have one
channel of 16 bits or floats, they become float32. `load` finds all faults: it reads every header to
find different sizes and modes, and decodes every image once to find damaged images.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import check_integer, outside
from scoresde.data.image_files import Files
from scoresde.data.pixels import (
    DEEP_MODE,
    FLOAT_MODE,
    GREY_MODES,
    UNITS,
    Size,
    is_cut,
    pillow_mode,
    pixels,
)  # fmt: skip
from scoresde.data.samples import Data
from scoresde.data.stores import InMemory, Store, in_threads, numbers, pieces
from scoresde.data.wanted import Wanted
from scoresde.errors import DataError, InvalidValueError
from scoresde.units import BYTES, Transform

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "SKIPPED",
    "Header",
    "Images",
    "Items",
    "Size",
    "check_no_images",
    "check_size",
    "folder",
    "header_of",
    "joined",
    "keep",
    "left_out",
    "mode_of",
    "opened",
    "pixels",
    "shape_of",
    "usable",
]


SKIPPED = 0.1  # the largest share of damaged images that on_bad_image="skip" leaves out
_ROOM = 2**30  # the largest number of bytes of images that are kept in memory
# the EXIF tag of the orientation, and its values for images rotated by 90 degrees
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)


class Items(Protocol):
    """Define a sequence of images that are opened by index."""

    def __len__(self) -> int: ...

    def open(self, i: int) -> Image:
        """Open image number i; its pixels may be read later."""

    def name(self, i: int) -> str:
        """Return the name of image i, for errors."""


@dataclass(frozen=True)
class Header:
    """Hold the header of an image.

    Attributes:
        size: `(height, width)` after the EXIF rotation.
        mode: Pillow's name for the type of a pixel.
        error: The reason why the header cannot be read, or "".
        cut: True for 16 bits per colour, of which Pillow reads only 8.
        several: True for several frames or pages, of which only the first is read.
    """

    size: tuple[int, int] = (0, 0)
    mode: str = ""
    error: str = ""
    cut: bool = False
    several: bool = False


def header_of(items: Items, i: int) -> Header:
    """Read the header of image number i."""
    try:
        with items.open(i) as image:
            height, width, cut = image.height, image.width, is_cut(image)
            if image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE:
                height, width = width, height
            several = getattr(image, "n_frames", 1) > 1
            return Header((height, width), pillow_mode(image), cut=cut, several=several)
    except Exception as error:  # Pillow's decoders raise any error, even SyntaxError
        return Header(error=_line(error))


@dataclass(frozen=True)
class Images:
    """Store images in encoded form, and decode them when they are read.

    Attributes:
        items: The source of the images.
        size: The size `(height, width)`, or the side of a square, to which they are cropped about
            their centre and resized.
        shape: `(N, C, H, W)`.
        mode: Pillow's name for the pixel type to which images are converted.
        random: True if reading the same image again gives a different image.
    """

    items: Items
    size: Size
    shape: tuple[int, ...]
    mode: str
    random: bool = False

    @property
    def units(self) -> Transform:
        """Return the transform from the images' pixels to model units."""
        return UNITS.get(self.mode, BYTES)

    def read(self, index: Tensor | slice) -> Tensor:
        """Return these images `(B, C, H, W)`, bytes or float32.

        Raises:
            DataError: An image, which is named, cannot be read.
        """
        dtype = torch.float32 if self.mode in (DEEP_MODE, FLOAT_MODE) else torch.uint8
        chosen = numbers(len(self.items), index)
        if not chosen:
            return torch.empty(0, *self.shape[1:], dtype=dtype)
        return torch.from_numpy(np.stack([self._decoded(i) for i in chosen]))

    def error(self, i: int) -> str:
        """Return the reason why image number i cannot be decoded, or ""."""
        try:
            self._decoded(i)
        except DataError as error:
            return _line(error.__cause__ or error)
        return ""

    def _decoded(self, i: int) -> np.ndarray[Any, Any]:
        size = self.shape[2:]
        try:
            with self.items.open(i) as image:
                found = pixels(image, self.size, self.mode)
        except Exception as error:  # any error, as in header_of
            raise DataError(_unreadable(self.items.name(i), _line(error))) from error
        if found.shape[1:] != tuple(size):
            raise DataError(
                f"the image {self.items.name(i)} is {found.shape[1:]} (height, width), not "
                f"{tuple(size)} as it was when the data were loaded"
            )
        return found


def folder(path: Path, size: Size, wanted: Wanted, *, skip: bool, lazy: bool | None) -> Data:
    """Return the images of a folder.

    Args:
        path: The folder. If all images are in subfolders, the subfolders are the classes.
        size: The size to which images are resized.
        wanted: The conditions of the images, with rows in the order of all file names.
        skip: Leave out images that cannot be read, up to a tenth.
        lazy: Decode images when they are needed; None keeps up to 1 GiB in memory.

    Raises:
        DataError: There are no images, their sizes differ, or an image cannot be read; the message
            names the image.
    """
    files = Files(path)
    headers = list(in_threads(partial(header_of, files), range(len(files))))
    errors = {i: found.error for i, found in enumerate(headers) if found.error}
    _refuse(files, errors, skip)
    images = joined(files, headers, size)
    data = files.data(images, wanted, images.units)
    if skip:
        errors = usable(images, errors)
        _refuse(files, errors, skip)
        if errors:
            warnings.warn(
                f"left out {len(errors)} of {len(files)} images that cannot be read, the first "
                f"is {files.name(min(errors))}",
                RuntimeWarning,
                stacklevel=outside(),
            )
            data = data[[i for i in range(len(files)) if i not in errors]]
    return data.kept(keep(data.store, lazy))


def keep(store: Store, lazy: bool | None) -> Store:
    """Read a store into memory if `lazy` is False, or if it is None and samples take <= 1 GiB."""
    dtype = store.read(slice(0, 0)).dtype
    if lazy or (lazy is None and math.prod(store.shape) * dtype.itemsize > _ROOM):
        return store
    x = torch.empty(store.shape, dtype=dtype)
    for rows, samples in pieces(store):
        x[rows] = samples
    return InMemory(x)


def shape_of(items: Items, headers: Sequence[Header], size: Size) -> tuple[int, ...]:
    """Return the shape `(N, C, H, W)` that images have in common.

    Raises:
        DataError: Their sizes differ, and `size` is None.
    """
    good = [i for i, found in enumerate(headers) if not found.error]
    channels = 3 if mode_of(items, headers) == "RGB" else 1
    if size is not None:
        return (len(headers), channels, *((size, size) if isinstance(size, int) else size))
    first = headers[good[0]].size
    for i in good:
        if headers[i].size != first:
            raise DataError(
                f"the images have different sizes: {items.name(good[0])} is {first} and "
                f"{items.name(i)} is {headers[i].size} (height, width); crop and resize them all, "
                f"for example by size={first if first[0] != first[1] else first[0]}"
            )
    return (len(headers), channels, *first)


def mode_of(items: Items, headers: Sequence[Header]) -> str:
    """Return the common mode of images: "L" or "RGB" for bytes, or "I;16" or "F" for one channel.

    Raises:
        DataError: Some images have 16 bits or floats, and others have another mode.
    """
    modes = _modes(headers)
    deep = [i for i, mode in modes.items() if mode in (DEEP_MODE, FLOAT_MODE)]
    if not deep:
        return "L" if all(mode in GREY_MODES for mode in modes.values()) else "RGB"
    mode = modes[deep[0]]
    other = next((i for i, found in modes.items() if found != mode), None)
    if other is not None:
        raise DataError(
            f"{items.name(deep[0])} has the mode {mode!r}, more than 8 bits a channel, but "
            f"{items.name(other)} has the mode {modes[other]!r}; convert all images to the same "
            "mode"
        )
    return mode


def left_out(items: Items, headers: Sequence[Header]) -> list[str]:
    """Return a text for each kind of content that is not read: bits, transparency, frames."""
    modes = _modes(headers)
    kinds = {
        "16 bits per colour, of which only 8 are read": [i for i in modes if headers[i].cut],
        "transparency, which is left out": [i for i, m in modes.items() if "A" in m.upper()],
        "several frames, of which only the first is read": [i for i in modes if headers[i].several],
    }
    return [_have(items, modes, found, what) for what, found in kinds.items() if found]


def _modes(headers: Sequence[Header]) -> dict[int, str]:
    return {i: found.mode for i, found in enumerate(headers) if not found.error}


def _have(items: Items, modes: Mapping[int, str], found: Sequence[int], what: str) -> str:
    return (
        f"{len(found)} of {len(modes)} images have {what}; the first is {items.name(found[0])}, "
        f"of mode {modes[found[0]]!r}"
    )


def joined(items: Items, headers: Sequence[Header], size: Size) -> Images:
    """Make a store of images, and warn about content that is not read, and added colours.

    Raises:
        DataError: Their sizes differ, and `size` is None.
    """
    shape, modes = shape_of(items, headers, size), _modes(headers)
    coloured = [i for i, mode in modes.items() if mode not in GREY_MODES]
    lost = left_out(items, headers)
    if 0 < 2 * len(coloured) < len(modes):
        lost.append(_have(items, modes, coloured, "colours, so that all become RGB"))
    for text in lost:
        warnings.warn(f"{text}; convert them if that matters", UserWarning, stacklevel=outside())
    return Images(items, size, shape, mode_of(items, headers))


def opened(items: Items, size: Size) -> Images:
    """Read the headers of images, and make a store of the images, as `joined` does.

    Raises:
        DataError: A header cannot be read, or sizes differ and `size` is None.
    """
    headers = list(in_threads(partial(header_of, items), range(len(items))))
    for i, found in enumerate(headers):
        if found.error:
            raise DataError(f"cannot read the image {items.name(i)}: {found.error}")
    return joined(items, headers, size)


def usable(images: Images, errors: Mapping[int, str]) -> dict[int, str]:
    """Decode the images without a known error; return all errors by the number of the image."""
    rest = [i for i in range(len(images.items)) if i not in errors]
    found = dict(zip(rest, in_threads(images.error, rest), strict=True))
    return {**errors, **{i: error for i, error in found.items() if error}}


def check_no_images(**options: object) -> None:
    """Raise InvalidValueError if an option for images is given for other data, and is not None."""
    for name, value in options.items():
        if value is not None:
            raise InvalidValueError(f"{name}={value!r} is for images; leave it out for arrays")


def check_size(size: Size) -> None:
    """Raise InvalidValueError unless the sides of a size are integers of at least 1."""
    for side in size if isinstance(size, tuple) else (1 if size is None else size,):
        check_integer("each side in size", side, 1)


def _refuse(items: Items, errors: Mapping[int, str], skip: bool) -> None:
    if not errors or (skip and len(errors) <= SKIPPED * len(items)):
        return
    first = min(errors)
    if not skip:
        raise DataError(_unreadable(items.name(first), errors[first]))
    raise DataError(
        f"cannot read the image {items.name(first)} (and {len(errors) - 1} more): "
        f"{errors[first]}; remove them: more than {SKIPPED:.0%} of {len(items)} are damaged"
    )


def _unreadable(name: str, error: str) -> str:
    return f"cannot read the image {name}: {error}; remove it, or pass on_bad_image='skip'"


def _line(error: BaseException) -> str:
    """Return the message of an error in one line, or its type if there is none."""
    return " ".join(str(error).split()) or type(error).__name__

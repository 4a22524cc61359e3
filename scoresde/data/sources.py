r"""Where data come from: arrays and array files, folders of images, data sets by name.

Images become `(C, H, W)` bytes with the transform to [-1, 1], which is kept with them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from scoresde.checks import door
from scoresde.data.arrays import array_file
from scoresde.data.hub import PREFIX, from_hub, from_table, is_table
from scoresde.data.images import Size, check_size, folder
from scoresde.data.named import digits, torchvision_set
from scoresde.data.samples import Data
from scoresde.errors import InvalidTypeError, InvalidValueError

__all__ = ["find", "load"]


@door
def load(
    source: str | os.PathLike[str] | Tensor | np.ndarray[Any, Any] | object,
    *,
    label: Tensor | np.ndarray[Any, Any] | Sequence[int] | None = None,
    split: str | None = None,
    size: Size = None,
    standardize: bool = False,
    on_bad_image: Literal["raise", "skip"] = "raise",
    lazy: bool | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Data:
    """Find data, and look at all of them once.

    Args:
        source: one of

            - a float tensor or array `(N, *event)`, taken as it is;
            - a path, that is a `Path` or a string with a dot or a separator in it: a `.npy` file,
              of which one of more than 256 MiB is read where it lies, a `.npz` file (keys `x`, or
              `images`, with labels `y`, or `labels`), or a folder of images (whose first-level
              folders, if all images lie in some, are the classes);
            - a name: `"digits"`, the 1,797 real 8x8 digits of the package, or any data
              set that torchvision downloads (`"mnist"`, `"fashion_mnist"`, `"cifar10"` ...);
            - `"hf:name"`, `"hf:name:split"` or `"hf:name:split:column"`, a data set of Hugging
              Face's hub or a folder that its `save_to_disk` wrote; or such a data set itself.
        label: labels `(N,)` for a tensor or array.
        split: `"train"` (the default) or `"test"`, of torchvision's data sets, or one of the hub.
        size: images are cropped about their centre and resized to `(height, width)`, or a square.
        standardize: shift and scale floats to mean 0 and variance 1, each dimension of vectors,
            and each channel of what has more axes; the transform is kept.
        on_bad_image: `"raise"`, or `"skip"` to pass over up to a tenth of a folder with a warning.
        lazy: whether images stay where they are, and are decoded when they are needed; None keeps
            up to 1 GiB of them in memory.
        root: where torchvision's files are kept, `~/.cache/scoresde` by default.

    Returns:
        The data. Bytes are learnt as floats in [-1, 1], `x / 127.5 - 1`, digits as `x / 8 - 1`;
        other numbers stay as they are.

    Raises:
        DataError: nothing is there, or nothing usable, or a download failed; names the file.
        InvalidTypeError: integers that are no bytes, or a `source` of an impossible type.
        InvalidValueError: an argument is wrong, or means nothing for this source.
        UnknownNameError: no data set has that name.
        MissingExtraError: `"hf:..."` without datasets.
    """
    skip = on_bad_image == "skip"
    data = find(source, label=label, split=split, size=size, skip=skip, lazy=lazy, root=root)
    if not isinstance(data.raw, Tensor):
        _ = data.survey  # whatever cannot be read, or is not finite, is an error here
    if not standardize:
        return data
    if data.transform.levels is not None:
        raise InvalidValueError(
            f"{source!r} holds bytes, which are scaled to [-1, 1]; standardize= is for floats"
        )
    return data.standardized()


def find(
    source: object,
    *,
    label: Any = None,
    split: str | None = None,
    size: Size = None,
    skip: bool = False,
    lazy: bool | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Data:
    """What `load` loads, before its samples are looked at."""
    check_size(size)
    if isinstance(source, Tensor | np.ndarray):
        _check_no_images(size, lazy)
        return Data(source, label=label)
    if label is not None:
        raise InvalidValueError("label= goes with a tensor; files and data sets bring their own")
    if is_table(source):
        return from_table(source, None, size, lazy=lazy)
    if not isinstance(source, str | os.PathLike):
        raise InvalidTypeError(
            f"cannot load data from a {type(source).__name__}; pass a tensor, a path, or a name"
        )
    name = os.fspath(source)
    if name.startswith(PREFIX):
        return from_hub(name, split, size, lazy=lazy)
    is_name = isinstance(source, str) and not set(name) & {".", "/", os.sep}
    if is_name and name.lower() != "digits":
        return torchvision_set(name, split or "train", size, root, lazy=lazy)
    if split is not None:
        raise InvalidValueError(
            f"{name!r} comes whole, it has no split {split!r}; use `data.split(fraction)`"
        )
    path = Path(name).expanduser()
    if path.is_dir() and not is_name:
        return folder(path, size, skip=skip, lazy=lazy)
    _check_no_images(size, lazy)
    return digits() if is_name else array_file(path)


def _check_no_images(size: Size, lazy: bool | None) -> None:
    for name, value in (("size", size), ("lazy", lazy)):
        if value is not None:
            raise InvalidValueError(f"{name}={value!r} is for images; leave it out for arrays")

r"""Load data from arrays, files, folders of images, tables, torch data sets, or by name.

Images become bytes `(C, H, W)`, and the transform of the data maps them to [-1, 1].
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from scoresde.checks import door, outside, quoted
from scoresde.data.arrays import array_file
from scoresde.data.conditions import Kind
from scoresde.data.frames import check_order, frame, is_frame
from scoresde.data.hub import PREFIX, from_hub, from_table, is_table
from scoresde.data.images import Size, check_no_images, check_size, folder
from scoresde.data.layout import check_layout, doubt, is_smooth
from scoresde.data.named import digits, is_name, torchvision_set
from scoresde.data.samples import Data
from scoresde.data.torch_sets import from_torch, is_torch
from scoresde.data.values import from_mapping, from_rows, from_sequence, is_items, of_table
from scoresde.data.wanted import Wanted
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.sde import Classes, Field

__all__ = ["by_name", "doubt_of", "find", "load"]

_LOOKED_AT = 64  # the number of samples that are compared with signals


@door
def load(
    source: str | os.PathLike[str] | Tensor | np.ndarray[Any, Any] | object,
    *,
    condition: Mapping[str, Any] | str | Sequence[str] | None = None,
    kinds: Mapping[str, Classes | Field] | None = None,
    sample: str | Sequence[str] | None = None,
    split: str | None = None,
    size: Size = None,
    layout: str | None = None,
    missing: Literal["raise", "drop"] = "raise",
    standardize: bool = False,
    on_bad_image: Literal["raise", "skip"] = "raise",
    lazy: bool | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Data:
    """Load data, and read all of it once.

    Args:
        source: One of

            - a tensor, an array or nested lists `(N, *event)` of floats or of bytes (images); a
              list of samples, of pairs or of dictionaries; a tuple of arrays `(x, y)`; or a `Data`;
            - a dictionary of arrays, in which `x` or `images` are the samples, integers `y` or
              `labels` are the condition `label`, and other arrays with the same number of rows are
              further conditions; or a dictionary of columns `(N,)`, read as a table;
            - a path: a `Path`, or a string. A string without a dot or a separator is a path only if
              no data set has this name. A `.npy` file above 256 MiB is read when samples are
              needed; a `.npz` file is read as a dictionary of arrays, and a `.pt` file as the
              tensor, dictionary or tuple that it holds; the columns of a `.csv` or `.parquet` file,
              except those in `condition`, are the entries of samples; if all images of a folder are
              in subfolders, the subfolders are the classes;
            - a DataFrame of pandas or polars, or a table of pyarrow, read as a `.csv` file;
            - a torch data set, iterable data set or loader, whose items are samples, dictionaries,
              or pairs of a sample and its condition (a label or floats)
              (`scoresde.data.torch_sets`);
            - a name: `"digits"`, the packaged 1,797 digits of 8x8 pixels, or any data set that
              torchvision downloads (`"mnist"`, `"fashion_mnist"`, `"cifar10"` ...);
            - `"hf:name"`, `"hf:name:split"` or `"hf:name:split:column"`, a data set on the Hugging
              Face Hub or a folder that `save_to_disk` wrote; or such a data set as an object.
        condition: The conditions: the name of a column of the source, or several names, each for a
            separate condition; or a mapping from names of conditions to their values. A value is a
            tensor or an array with one row for each sample; the path of a `.npy` or `.csv` file of
            such rows (for a folder of images, a `.csv` file may have the file names in a column
            "file"); or the names of one or several columns of the source. One column of integers or
            text gives labels, with -1 for missing labels. Floats or several columns give a vector,
            with NaN for missing numbers. If you name columns of the source, the other conditions of
            the source are not used.
        kinds: The kinds of conditions by name, `Classes(10)` or `Field((1,))`, if they do not
            follow from the values.
        sample: The name of the array with the samples, such as `"theta"` for p(theta | x); or the
            names of the columns that are the samples. Columns in neither `sample` nor `condition`
            are not used.
        split: `"train"` (the default) or `"test"` of a torchvision data set, or a split of a data
            set on the hub.
        size: The size `(height, width)`, or the side of a square, to which images are cropped about
            their centre and resized.
        layout: The order of the axes of a sample, if channels do not come first: `"T"` for signals
            with one number at each time, `"TC"` for signals with several numbers at each time,
            `"HW"` for grey images, `"HWC"` for colour images, `"DHW"` for volumes. The loaded data
            have channels first.
        missing: `"raise"` raises an error for samples with a NaN or an empty cell, `"drop"` leaves
            them out.
        standardize: Shift and scale floats to mean 0 and variance 1, for each dimension of vectors
            or channel of other samples, by the transform of the data.
        on_bad_image: `"raise"` raises an error for a damaged image, `"skip"` leaves out up to a
            tenth of a folder's images, with a warning.
        lazy: Decode images when they are needed; None does so only above 1 GiB of images. For a
            torch data set, read samples when they are needed; None does so above 256 MiB.
        root: The folder of torchvision's files, `~/.cache/scoresde` by default.

    Returns:
        The data. The transform to model units is `x / 127.5 - 1` for bytes, `x / 8 - 1` for the
        digits, a similar map to [-1, 1] for 16-bit integers, and the identity for other numbers.

    Raises:
        DataError: The source does not exist or cannot be used, or a download failed.
        InvalidTypeError: The samples are an array of integers other than unsigned 8-bit or 16-bit
            ones, or the source has a wrong type.
        InvalidValueError: An argument is wrong, or cannot be used with this source.
        UnknownNameError: There is no data set, array or column with a given name.
        MissingExtraError: The package datasets, which `"hf:..."` needs, is not installed.

    Warns:
        UserWarning: Samples were left out, the axes of a sample may be in another order than
            channels first, or vectors look like signals.
    """
    skip = on_bad_image == "skip"
    data = find(
        source, condition=by_name(condition), kinds=kinds, sample=sample, split=split, size=size,
        layout=layout, missing=missing, skip=skip, lazy=lazy, root=root,
    )  # fmt: skip
    data.read_all()
    if isinstance(source, str | os.PathLike):
        data.source = os.fspath(source)
    text = "" if layout or isinstance(source, Data) else doubt_of(data)
    if text:
        warnings.warn(text, UserWarning, stacklevel=outside())
    return standardized(data, source) if standardize else data


def standardized(data: Data, source: object) -> Data:
    """Return the data of a source, standardized.

    Raises:
        InvalidValueError: The data are bytes or other integers, which are scaled to [-1, 1].
    """
    if data.transform.levels is not None:
        raise InvalidValueError(
            f"{quoted(source)} holds bytes, which are scaled to [-1, 1]; standardize= is for floats"
        )
    return data.standardized()


def by_name(
    condition: Mapping[str, Any] | str | Sequence[str] | None,
) -> Mapping[str, Any] | None:
    """Return a mapping from conditions to columns; a column alone gives the condition its name.

    Raises:
        InvalidTypeError: `condition` is neither names nor a mapping.
    """
    if condition is None or isinstance(condition, Mapping):
        return condition
    names = [condition] if isinstance(condition, str) else list(condition)
    if not all(isinstance(name, str) for name in names):
        raise InvalidTypeError(
            "condition= takes the names of columns, or maps names to columns or rows, as "
            f"condition={{'y': ['height']}}; got {quoted(condition)}"
        )
    return {name: name for name in names}


def find(
    source: object,
    *,
    condition: Mapping[str, Any] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    sample: str | Sequence[str] | None = None,
    split: str | None = None,
    size: Size = None,
    layout: str | None = None,
    missing: Literal["raise", "drop"] = "raise",
    skip: bool = False,
    lazy: bool | None = None,
    root: str | os.PathLike[str] | None = None,
) -> Data:
    """Return what `load` returns, without reading all samples."""
    check_size(size)
    check_layout(layout)
    chosen = (sample,) if isinstance(sample, str) else tuple(sample or ())
    wanted = Wanted(condition or {}, kinds or {}, chosen, missing, layout)
    what = f"the {type(source).__name__}"
    check_order({what: source, **(condition or {})})
    if is_torch(source) or is_items(source):
        _check_whole(f"a {type(source).__name__}", split)
        return from_torch(source, size, wanted, lazy=lazy)
    if is_frame(source):
        check_no_images(size=size, lazy=lazy)
        return of_table(frame(source), wanted)
    if is_table(source):
        return from_table(source, None, size, wanted, lazy=lazy)
    if isinstance(source, Tensor | np.ndarray | list | tuple | Data | Mapping):
        check_no_images(size=size, lazy=lazy)
        if isinstance(source, Mapping):
            return from_mapping(source, what, wanted)
        wanted.check_no_names(what)
        if isinstance(source, Data):
            return wanted.data(source)
        if isinstance(source, list | tuple):
            return from_sequence(source, what, wanted)
        return from_rows(source, "the samples", wanted)
    if hasattr(source, "to_numpy"):  # a column of a pandas or polars table
        return from_rows(source.to_numpy(), "the samples", wanted)
    if not isinstance(source, str | os.PathLike):
        raise InvalidTypeError(
            f"cannot load data from a {type(source).__name__}; pass a tensor, an array, a list, a "
            "dictionary or a table of them, a path, a name, or a data set of torch"
        )
    name = os.fspath(source)
    if name.startswith(PREFIX):
        return from_hub(name, split, size, wanted, lazy=lazy)
    named = is_name(source)
    if named and os.path.exists(name):
        warnings.warn(
            f"{name!r} is read as the data set with this name; for the file or folder write "
            f"'./{name}'",
            UserWarning,
            stacklevel=outside(),
        )
    if named and name.lower() != "digits":
        return torchvision_set(name, split or "train", size, root, wanted, lazy=lazy)
    _check_whole(repr(name), split)
    path = Path(name).expanduser()
    if path.is_dir() and not named:
        return folder(path, size, wanted, skip=skip, lazy=lazy)
    check_no_images(size=size, lazy=lazy)
    return wanted.data(digits()) if named else array_file(path, wanted)


def doubt_of(data: Data) -> str:
    """Return a sentence if the axes of floats may be in another order, else "".

    It is also given for vectors that look like signals.
    """
    if data.transform.levels is not None:
        return ""
    if len(data.event_shape) == 1 and not data.columns:
        x = data.store.read(slice(_LOOKED_AT))
        if x.is_floating_point() and is_smooth(x):
            d = data.event_shape[0]
            return (
                f"samples of shape ({d},) are read as {d} numbers without an order, but neighbours "
                "are alike, as in a signal; for signals of one channel write layout='T'"
            )
    return doubt(data.event_shape)


def _check_whole(what: str, split: str | None) -> None:
    if split is not None:
        raise InvalidValueError(
            f"{what} has no splits such as {split!r}; leave split= out; to hold out a part, pass "
            "held_out= to the training, or call `data.split(fraction)`"
        )

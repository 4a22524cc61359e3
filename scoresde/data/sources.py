r"""Load data from arrays, files, folders of images, tables, data sets of torch, or by name.

Images become `(C, H, W)` bytes; the data hold their transform to [-1, 1].
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
from scoresde.data.layout import check_layout, doubt
from scoresde.data.named import digits, is_name, torchvision_set
from scoresde.data.samples import Data
from scoresde.data.torch_sets import from_torch, is_torch
from scoresde.data.values import from_mapping, from_rows, from_sequence, is_items, of_table
from scoresde.data.wanted import Wanted
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.sde import Classes, Field

__all__ = ["by_name", "doubt_of", "find", "load"]


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
    """Load data, and read all of them once.

    Args:
        source: one of

            - a tensor, an array or lists `(N, *event)` of floats, taken as they are, or of bytes,
              which are images; a list of such samples, of pairs or of dictionaries; a tuple of
              arrays `(x, y)`; or data;
            - a dictionary of arrays: `x` or `images` are the samples, integers `y` or `labels` the
              label, and other arrays with as many rows are conditions; or of columns `(N,)`;
            - a path: a `Path`, a string with a dot or a separator, or the name of a file or folder
              that is not that of a data set. A `.npy` file of more than 256 MiB is read when
              needed; a `.npz` or `.pt` file of arrays is read as a dictionary; the columns of a
              `.csv` or `.parquet` file are the samples, except those in `condition`; in a
              folder of images, if all lie in folders within it, those are the classes;
            - a DataFrame of pandas or polars, or a table of pyarrow, read as such a file;
            - a data set of torch, a stream or a loader, whose items are samples, pairs with a label
              or with floats, or dictionaries (`scoresde.data.torch_sets`);
            - a name: `"digits"`, the 1,797 real 8x8 digits of the package, or any data
              set that torchvision downloads (`"mnist"`, `"fashion_mnist"`, `"cifar10"` ...);
            - `"hf:name"`, `"hf:name:split"` or `"hf:name:split:column"`, a data set of Hugging
              Face's hub or a folder that its `save_to_disk` wrote; or such a data set itself.
        condition: the name of a column, or several, each a separate condition; or conditions by
            name: a tensor or an array with one row for each sample; the path
            of a `.npy` or `.csv` file of rows, in the order of the samples, or, for a folder of
            images, with the names of the files in a column "file"; or one or several columns of the
            source. One column of integers or text is a label, -1 where it is missing; floats, and
            several columns, are a vector, NaN where a number is missing. If a column of the source
            is named, its other conditions are left out.
        kinds: kinds of conditions by name, `Classes(10)` or `Field((1,))`, if the numbers do not
            show them.
        sample: the samples: the name of an array of the source, as `"theta"` for p(theta | x); or
            names of columns, and columns in neither `sample` nor `condition` are left out.
        split: `"train"` (the default) or `"test"`, of torchvision's data sets, or one of the hub.
        size: images are cropped about their centre and resized to `(height, width)`, or a square.
        layout: the order of the axes of a sample, if channels do not come first: `"T"` for signals
            of one number at a time, `"TC"` of several, `"HW"` for grey images, `"HWC"`, `"DHW"` for
            volumes. The data have their channels first.
        missing: `"raise"`, or `"drop"` to leave out samples with a NaN or an empty cell.
        standardize: shift and scale floats to mean 0 and variance 1, for each dimension of vectors,
            or for each channel of other samples; the data hold the transform.
        on_bad_image: `"raise"`, or `"skip"` to leave out damaged images, up to a tenth of a folder,
            with a warning.
        lazy: decode images when they are needed; None keeps up to 1 GiB of them in memory.
        root: the folder of torchvision's files, `~/.cache/scoresde` by default.

    Returns:
        The data. In model units bytes are floats in [-1, 1], `x / 127.5 - 1`, digits `x / 8 - 1`,
        16-bit integers floats in [-1, 1] too; other numbers stay as they are.

    Raises:
        DataError: the source does not exist or is not usable, or a download failed.
        InvalidTypeError: the samples are integers but not bytes, or a `source` of a wrong type.
        InvalidValueError: an argument is wrong, or has no meaning for this source.
        UnknownNameError: no data set has that name, or no array or column.
        MissingExtraError: `"hf:..."` without datasets.

    Warns:
        UserWarning: Samples were left out, or the shape of a sample may have another `layout` than
            channels first.
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
    if not standardize:
        return data
    if data.transform.levels is not None:
        raise InvalidValueError(
            f"{quoted(source)} holds bytes, which are scaled to [-1, 1]; standardize= is for floats"
        )
    return data.standardized()


def by_name(
    condition: Mapping[str, Any] | str | Sequence[str] | None,
) -> Mapping[str, Any] | None:
    """Return conditions by name; a column that is named alone has its own name.

    Raises:
        InvalidTypeError: They are neither names nor a mapping.
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
    """Return what `load` returns, before all samples are read once."""
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
    if hasattr(source, "to_numpy"):  # a column of a table
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
            f"{name!r} is read as the data set of that name; for the file or folder write "
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
    """Return a sentence if the axes of floats may be in another order, or an empty string."""
    return "" if data.transform.levels is not None else doubt(data.event_shape)


def _check_whole(what: str, split: str | None) -> None:
    if split is not None:
        raise InvalidValueError(
            f"{what} has no splits, and so no {split!r}; leave split= out, and hold out a part by "
            "held_out= in a training, or by `data.split(fraction)`"
        )

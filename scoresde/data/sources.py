r"""Where data come from: arrays and array files, folders of images, data sets by name.

Images become `(C, H, W)` bytes with the transform to [-1, 1], which is kept with them.
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
from scoresde.data.frames import frame, is_frame
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

__all__ = ["doubt_of", "find", "load"]


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
    """Find data, and look at all of them once.

    Args:
        source: one of

            - a tensor, an array or lists `(N, *event)` of floats, taken as they are, or of bytes,
              which are images; a list of such samples, of pairs or of dictionaries; a tuple of
              arrays `(x, y)`; or data;
            - a dictionary of arrays, of which the samples are `x`, or `images`, integers `y`, or
              `labels`, the label, and all else of as many rows conditions; or of columns `(N,)`;
            - a path, that is a `Path`, a string with a dot or a separator in it, or the word of a
              file or folder here that is no name of a data set: a `.npy` file,
              of which one of more than 256 MiB is read where it lies; a `.npz` or `.pt` file of
              arrays, as a dictionary; a `.csv` or `.parquet` file, whose columns are the samples
              but for those that `condition` names; or a folder of images (whose first-level
              folders, if all images lie in some, are the classes);
            - a DataFrame of pandas or polars, or a table of pyarrow, as such a file;
            - a data set of torch, a stream or a loader, whose items are samples, pairs with a label
              or with floats, or dictionaries (`scoresde.data.torch_sets`);
            - a name: `"digits"`, the 1,797 real 8x8 digits of the package, or any data
              set that torchvision downloads (`"mnist"`, `"fashion_mnist"`, `"cifar10"` ...);
            - `"hf:name"`, `"hf:name:split"` or `"hf:name:split:column"`, a data set of Hugging
              Face's hub or a folder that its `save_to_disk` wrote; or such a data set itself.
        condition: conditions by name: rows, one for each sample, such as a tensor or an array;
            the path of a `.npy` or `.csv` file of them, which for a folder has the order of its
            files, or their names in a column "file"; or one or several columns of the source.
            Integers and text in one column are labels, -1 where there is none, and floats, and
            several columns, a vector, NaN where a number is missing. Where any is a column of the
            source, its other conditions are left out.
        kinds: what a condition is, where its numbers do not say it: `Classes(10)`, `Field((1,))`.
        sample: what of the source is sampled: the name of one of its arrays, as `"theta"` for
            p(theta | x); or the names of columns, where all others that `condition` does not
            name are left out.
        split: `"train"` (the default) or `"test"`, of torchvision's data sets, or one of the hub.
        size: images are cropped about their centre and resized to `(height, width)`, or a square.
        layout: which axis of a sample is which, where channels do not come first: `"TC"` for times
            of several numbers, `"HW"` for grey images, `"HWC"`, `"DHW"` for volumes. The data have
            their channels first.
        missing: `"raise"`, or `"drop"` to leave out samples with a NaN or an empty cell.
        standardize: shift and scale floats to mean 0 and variance 1, each dimension of vectors,
            and each channel of what has more axes; the transform is kept.
        on_bad_image: `"raise"`, or `"skip"` to pass over up to a tenth of a folder with a warning.
        lazy: whether images stay where they are, and are decoded when they are needed; None keeps
            up to 1 GiB of them in memory.
        root: where torchvision's files are kept, `~/.cache/scoresde` by default.

    Returns:
        The data. Bytes are learnt as floats in [-1, 1], `x / 127.5 - 1`, digits as `x / 8 - 1`,
        whole numbers of 16 bits as floats in [-1, 1] too; other numbers stay as they are.

    Raises:
        DataError: nothing is there, or nothing usable, or a download failed; names the file.
        InvalidTypeError: integers that are no bytes, or a `source` of an impossible type.
        InvalidValueError: an argument is wrong, or means nothing for this source.
        UnknownNameError: no data set has that name, or no array or column.
        MissingExtraError: `"hf:..."` without datasets.

    Warns:
        UserWarning: Samples were left out, or the shape of a sample may mean something else than
            channels first; says which `layout` that would be.
    """
    skip = on_bad_image == "skip"
    if condition is not None and not isinstance(condition, Mapping):
        first = condition if isinstance(condition, str) else next(iter(condition), "y")
        raise InvalidTypeError(
            "condition= says by which name a model takes a column, as condition={'label': "
            f"{first!r}}} for classes, or condition={{'y': [{first!r}]}} for numbers"
        )
    data = find(
        source, condition=condition, kinds=kinds, sample=sample, split=split, size=size,
        layout=layout, missing=missing, skip=skip, lazy=lazy, root=root,
    )  # fmt: skip
    data.look()
    if isinstance(source, str | os.PathLike):
        data.source = os.fspath(source)
    told = "" if layout or isinstance(source, Data) else doubt_of(data)
    if told:
        warnings.warn(told, UserWarning, stacklevel=outside())
    if not standardize:
        return data
    if data.transform.levels is not None:
        raise InvalidValueError(
            f"{quoted(source)} holds bytes, which are scaled to [-1, 1]; standardize= is for floats"
        )
    return data.standardized()


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
    """Return what `load` loads, before its samples are looked at."""
    check_size(size)
    check_layout(layout)
    chosen = (sample,) if isinstance(sample, str) else tuple(sample or ())
    wanted = Wanted(condition or {}, kinds or {}, chosen, missing, layout)
    what = f"the {type(source).__name__}"
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
            f"{name!r} is the data set of that name; for what lies here write './{name}'",
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
    """Return how floats are read, where their shape may mean something else; or nothing."""
    return "" if data.transform.levels is not None else doubt(data.event_shape)


def _check_whole(what: str, split: str | None) -> None:
    if split is not None:
        raise InvalidValueError(
            f"{what} comes whole, it has no split {split!r}; leave split= out, and set a part "
            "aside by held_out= in a training, or by `data.split(fraction)`"
        )

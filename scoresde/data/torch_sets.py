"""Read the samples and conditions of torch data sets and loaders.

An item has one of three forms. It can be a sample, which is an array or an image. It can be a pair
of a sample and an integer or text (the condition "label") or floats (the condition "y"). Or it can
be a dictionary with the sample as "x", "images" or "image", and with conditions by name, in which
None or a missing key is a missing value.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils import data as torch_data

from scoresde.checks import outside
from scoresde.data import stores
from scoresde.data.images import Header, Size, check_no_images, header_of, joined, keep
from scoresde.data.keyed import units_of
from scoresde.data.samples import Data
from scoresde.data.stores import Rows, channels_first, plain
from scoresde.data.torch_items import (
    SAMPLE,
    SAMPLES,
    Columns,
    Items,
    Pictures,
    as_array,
    is_image,
    nbytes,
    split_item,
    stacked,
)
from scoresde.data.wanted import Wanted
from scoresde.errors import DataError, InvalidValueError
from scoresde.units import BYTES

__all__ = ["class_names", "from_torch", "is_torch"]

# the largest numbers of bytes and samples of an iterable data set that are read into memory
_ROOM, _MOST = 2**30, 10**7
_OBJECT = 300  # the bytes of an array besides its numbers
_PROBED = 8  # the number of samples that are read twice, to detect random samples
_ORDERS = (
    torch_data.SequentialSampler, torch_data.RandomSampler, torch_data.DistributedSampler,
)  # fmt: skip


def is_torch(source: object) -> bool:
    """Return True for a torch data set or loader."""
    return isinstance(source, torch_data.Dataset | torch_data.DataLoader)


def from_torch(source: Any, size: Size, wanted: Wanted, *, lazy: bool | None) -> Data:
    """Return the samples of a data set, with the wanted conditions.

    Args:
        source: A map-style data set; an iterable data set, which is read once; or a loader, whose
            data set is used.
        size: The size to which images are resized.
        wanted: The conditions; by default all.
        lazy: Read samples when they are needed; None reads up to 256 MiB into memory, but not
            random samples.

    Raises:
        DataError: There are no samples, or too many in an iterable data set; shapes differ; or a
            sample cannot be read, which the message names.
        InvalidTypeError: Samples are not numbers, or a condition other than the label is text.
        InvalidValueError: The sampler of a loader may leave out samples, or `lazy` is True for an
            iterable data set.
    """
    if isinstance(source, torch_data.DataLoader):
        source = _set_of(source)
    if not lazy and not wanted.layout and (data := _in_tensors(source)) is not None:
        check_no_images(size=size)
        wanted.check_no_names(f"a {type(source).__name__}")
        return wanted.data(data)
    listed = isinstance(source, list | tuple)
    what = f"the {type(source).__name__}" if listed else type(source).__name__
    items_of = partial(Items, sample=wanted.sample, as_is=wanted.layout is not None)
    if isinstance(source, torch_data.IterableDataset):
        if lazy:
            raise InvalidValueError(
                f"{what} is an iterable data set, which is read once; leave out lazy=True, or "
                "return samples by __getitem__"
            )
        return _data(items_of(_streamed(source, what, wanted), what), size, wanted, held=True)
    items = items_of(source, what)
    random = _random(items)
    small = nbytes(items[0]) * len(items) <= stores.IN_MEMORY
    together = bool(random - {SAMPLE})  # random conditions must be read together with their samples
    if together and (lazy or not small):
        raise DataError(
            f"{what} has random conditions, which would be read separately from the samples; "
            "return the same conditions each time"
        )
    held = together or (small and not random) if lazy is None else not lazy
    if random:
        _warn_of_random(what, min(random), held=held)
    return _data(items, size, wanted, held=held, lazy=lazy, random=bool(random) and not held)


def _data(
    items: Items,
    size: Size,
    wanted: Wanted,
    *,
    held: bool,
    lazy: bool | None = None,
    random: bool = False,
) -> Data:
    """Return the data of items; `held` keeps arrays in memory, and `lazy` is as for images."""
    is_picture = is_image(items[0][SAMPLE])
    if not is_picture:
        check_no_images(size=size)
    asked = {given for given in wanted.condition.values() if isinstance(given, str)}
    columns = Columns(items, class_names(items.source), asked)
    pictures = Pictures(items)
    headers: list[Header] = []
    samples: list[Any] = []
    for i, item in enumerate(items):
        x = item.pop(SAMPLE)
        columns.add(i, item)
        if is_picture:
            pictures.held[i] = x
            headers.append(header_of(pictures, i))
            if headers[-1].error:
                raise DataError(f"cannot read the image {items.name(i)}: {headers[-1].error}")
        if not held:
            pictures.held.clear()
        elif not is_picture:
            samples.append(x)
    if is_picture:
        images = replace(joined(pictures, headers, size), random=random)
        x = keep(images, True if random else lazy)
        return wanted.images(x, columns, transform=images.units)
    if held:
        x = stacked("x", samples, items.what)
        x = channels_first(x, items.what, as_is=wanted.layout is not None)
        units = units_of(x.dtype)
        return wanted.data(x.astype(plain(x.dtype), copy=False), columns, transform=units)
    rows = Rows(len(items), items.sample, items.what, random=random)
    return wanted.data(rows, columns, transform=units_of(rows.given))


def class_names(source: Any) -> tuple[str, ...]:
    """Return the attribute `classes` of a data set or of a data set inside it, if it has names."""
    names: Any = getattr(source, "classes", None)
    parts = getattr(source, "datasets", None)
    inside = parts if isinstance(parts, list) else [getattr(source, "dataset", None)]
    if names is None and any(one is not None for one in inside):
        found = {class_names(one) for one in inside}
        return found.pop() if len(found) == 1 else ()
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(names) if listed and len(set(names)) == len(names) else ()


def _set_of(loader: torch_data.DataLoader[Any]) -> Any:
    """Return the data set of a loader; its batches, order and workers are not used.

    Raises:
        InvalidValueError: The loader's sampler may leave out or repeat samples.
    """
    source = loader.dataset
    if isinstance(source, torch_data.IterableDataset):
        return source
    sampler = getattr(loader.batch_sampler, "sampler", loader.batch_sampler) or loader.sampler
    if type(sampler) not in _ORDERS:
        raise InvalidValueError(
            f"this DataLoader uses a {type(sampler).__name__}, which may leave samples out; pass a "
            "data set with the chosen samples, such as torch.utils.data.Subset"
        )
    if loader.collate_fn not in (torch_data.default_collate, torch_data.default_convert):
        warnings.warn(
            "the collate_fn of the DataLoader is not used, since samples are read one by one; "
            "move its work to the data set",
            UserWarning,
            stacklevel=outside(),
        )
    return source


def _in_tensors(source: Any) -> Data | None:
    """Return the data of a TensorDataset or a Subset of one; None for anything else."""
    if type(source) is torch_data.TensorDataset:
        parts = split_item(source.tensors, type(source).__name__)
        x = parts.pop(SAMPLE)
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return Data(x, transform=BYTES if x.dtype == torch.uint8 else None, **parts)
    if type(source) is torch_data.Subset:
        data = _in_tensors(source.dataset)
        return None if data is None else data[[int(i) for i in source.indices]]
    return None


def _streamed(source: Any, what: str, wanted: Wanted) -> list[Any]:
    """Return the items of an iterable data set.

    Raises:
        DataError: There are no items or too many, or an item cannot be read.
    """
    items: list[Any] = []
    taken = 0
    stream = iter(source)
    while True:
        try:
            item = next(stream)
        except StopIteration:
            break
        except Exception as error:  # a user's code may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"cannot read sample {len(items)} of {what}: {reason}") from error
        items.append(item)
        found = split_item(item, f"sample {len(items) - 1} of {what}", wanted.sample or SAMPLES)
        taken += nbytes(found) + _OBJECT * len(found)
        if taken > _ROOM or len(items) > _MOST:
            raise DataError(
                f"{what} is an iterable data set of more than {len(items) - 1:,} samples, of "
                f"{taken:,} bytes, which is too much for memory; write them to a .npy file, or "
                "return them by __getitem__ of a torch.utils.data.Dataset"
            )
    return items


def _random(items: Items) -> set[str]:
    """Read some items again, and return the names of the values that differ."""
    found = set()
    for i in range(min(_PROBED, len(items))):
        one, two = items[i], items[i]
        found |= one.keys() ^ two.keys()
        found |= {name for name in one.keys() & two.keys() if _differ(one[name], two[name])}
    return found


def _differ(one: Any, two: Any) -> bool:
    a, b = as_array(one), as_array(two)
    return a.shape != b.shape or not np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def _warn_of_random(what: str, name: str, *, held: bool) -> None:
    how = "the first value is kept" if held else "it is drawn again at every reading"
    other = repr(name) if name else "one"
    warnings.warn(
        f"{what} returns another {other} when a sample is read again: {how}, so a resumed run is "
        "not exactly the same; return the same values each time, and augment by augment=",
        UserWarning,
        stacklevel=outside(),
    )

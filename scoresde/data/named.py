r"""Load data sets by name: the packaged digits, and the data sets of torchvision."""

from __future__ import annotations

import importlib
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scoresde import checkpoint
from scoresde.data.classes import Named
from scoresde.data.images import Size, keep, opened
from scoresde.data.samples import Data
from scoresde.data.torch_sets import class_names
from scoresde.data.wanted import Wanted
from scoresde.errors import DataError, InvalidValueError, UnknownNameError
from scoresde.units import Range

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["digits", "is_name", "torchvision_set"]


def digits() -> Data:
    """Return 1,797 handwritten digits with labels, images of 8x8 pixels with 17 grey values.

    They are the test set of Alpaydin & Kaynak (1998), *Optical Recognition of Handwritten Digits*,
    UCI Machine Learning Repository, doi:10.24432/C50P49 (CC BY 4.0), in scikit-learn's order.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as found:
        images, labels = (torch.from_numpy(found[name]) for name in ("images", "labels"))
    return Data(images[:, None], transform=Range(0, 16, levels=17), label=labels)


def is_name(source: object) -> bool:
    """Return True if a source is the name of a data set rather than a path.

    A name has no dot and no separator. If a file or a folder has the same name, it counts as a name
    only if there is a data set with this name.
    """
    if not isinstance(source, str) or set(source) & {".", "/", os.sep}:
        return False
    return not os.path.exists(source) or source.lower() == "digits" or _key(source) in _known()


class Pairs:
    """Open the images of a data set whose items are pairs of an image and a target."""

    def __init__(self, pairs: Any, what: str) -> None:
        self.pairs, self.what = pairs, what

    def __len__(self) -> int:
        return len(self.pairs)

    def open(self, i: int) -> Image:
        """Return the image of pair i."""
        image: Image = self.pairs[i][0]
        return image

    def name(self, i: int) -> str:
        """Return the name of image i, for errors."""
        return f"number {i} of {self.what}"


def torchvision_set(
    name: str,
    split: str,
    size: Size,
    root: str | os.PathLike[str] | None,
    wanted: Wanted,
    *,
    lazy: bool | None,
) -> Data:
    """Load a data set that torchvision downloads, as images with labels if it has any.

    Raises:
        DataError: torchvision is not installed, the download failed, or image sizes differ.
        InvalidValueError: There is no such split.
        UnknownNameError: No data set has that name.
    """
    pairs = _download(name, split, root)
    items = Pairs(pairs, name)
    found = opened(items, size)
    targets = [pairs[i][1] for i in range(len(pairs))]
    known = all(isinstance(target, int) for target in targets)
    names = class_names(pairs)
    label: Any = torch.tensor(targets) if known else None
    if known and int(label.max()) < len(names):
        label = Named(label, names)
    conditions = {"label": label} if known else {}
    return wanted.images(keep(found, lazy), conditions, transform=found.units)


def _key(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _known() -> dict[str, Any]:
    """Return the data sets that torchvision downloads, by name; none if it is not installed."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError):
        return {}
    table = {n.lower(): getattr(datasets, n) for n in datasets.__all__}
    return {n: c for n, c in table.items() if _downloads(c)}


def _download(name: str, split: str, root: str | os.PathLike[str] | None) -> Any:
    try:
        importlib.import_module("torchvision.datasets")
    except (ImportError, RuntimeError) as error:
        raise DataError(
            f"the data set {name!r} needs torchvision, which cannot be imported: {error}; install "
            f"the torchvision version for torch {torch.__version__}"
        ) from error
    downloads, key = _known(), _key(name)
    if key not in downloads:
        if near := checkpoint.did_you_mean(Path(name)):
            raise UnknownNameError(
                f"there is no data set {name!r}, and no file or folder with this name{near}"
            )
        raise UnknownNameError.of("data set", name, [*downloads, "digits"])
    make = downloads[key]
    options: dict[str, Any] = {"download": True}
    if "train" in inspect.signature(make).parameters:
        if split not in ("train", "test"):
            raise InvalidValueError(
                f"{name!r} has the splits 'train' and 'test', got split={split!r}"
            )
        options["train"] = split == "train"
    elif "split" in inspect.signature(make).parameters:
        options["split"] = split
    folder = Path("~/.cache/scoresde" if root is None else root).expanduser()
    try:
        return make(str(folder), **options)
    except ValueError as error:
        raise InvalidValueError(f"cannot load {name!r}: {error}") from error
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise DataError(
            f"cannot download {name!r} ({' '.join(str(error).split())}); connect this machine to "
            f"the network once, or copy torchvision's files into {folder}"
        ) from error


def _downloads(make: Any) -> bool:
    named = inspect.signature(make).parameters.values()
    required = {p.name for p in named if p.default is p.empty and p.kind < p.VAR_POSITIONAL}
    return required == {"root"} and "download" in {p.name for p in named}

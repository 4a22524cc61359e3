r"""Where data come from: arrays, `.npy` and `.npz` files, folders of images, data sets by name.

Images become `(C, H, W)` float32 in [-1, 1]; the transform that did it is kept with them.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scoresde.data.samples import Data, Range
from scoresde.errors import (
    DataError,
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    UnknownNameError,
)

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["load"]

_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
_SKIPPED = 0.1  # the share of broken images that on_bad_image="skip" passes over


def load(
    source: str | os.PathLike[str] | Tensor | np.ndarray[Any, Any],
    *,
    label: Tensor | np.ndarray[Any, Any] | Sequence[int] | None = None,
    split: str | None = None,
    size: int | tuple[int, int] | None = None,
    on_bad_image: str = "raise",
    root: str | os.PathLike[str] | None = None,
) -> Data:
    """Read data into memory.

    Args:
        source: one of

            - a float tensor or array `(N, *event)`, taken as it is;
            - a path, that is a `Path` or a string with a dot or a separator in it: a `.npy` or
              `.npz` file (keys `x`, or `images`, with labels `y`, or `labels`), or a folder of
              images (whose first-level folders, if all images lie in some, are the classes);
            - a name: `"digits"`, the 1,797 real 8x8 digits that scikit-learn ships, or any data
              set that torchvision downloads (`"mnist"`, `"fashion_mnist"`, `"cifar10"` ...).
        label: labels `(N,)` for a tensor or array.
        split: `"train"` (the default) or `"test"`, of torchvision's data sets.
        size: images are cropped about their centre and resized to `(height, width)`, or a square.
        on_bad_image: `"raise"`, or `"skip"` to pass over up to a tenth of a folder with a warning.
        root: where torchvision's files are kept, `~/.cache/scoresde` by default.

    Returns:
        The data. Bytes become float32 in [-1, 1] by `x / 127.5 - 1`, digits by `x / 8 - 1`; other
        numbers stay as they are.

    Raises:
        DataError: nothing is there, or nothing usable, or a download failed; names the file.
        InvalidTypeError: integers that are no bytes, or a `source` of an impossible type.
        InvalidValueError: an argument is wrong, or means nothing for this source.
        UnknownNameError: no data set has that name.
        MissingExtraError: `"digits"` without scikit-learn.
    """
    if on_bad_image not in ("raise", "skip"):
        raise InvalidValueError(f"on_bad_image is {on_bad_image!r}; it must be 'raise' or 'skip'")
    if isinstance(source, Tensor | np.ndarray):
        x = source if isinstance(source, Tensor) else torch.from_numpy(np.ascontiguousarray(source))
        return Data(x, None if label is None else torch.as_tensor(label))
    if not isinstance(source, str | os.PathLike):
        raise InvalidTypeError(
            f"cannot load data from a {type(source).__name__}; pass a tensor, a path, or a name"
        )
    if label is not None:
        raise InvalidValueError("label= goes with a tensor; files and data sets bring their own")
    name = os.fspath(source)
    is_name = isinstance(source, str) and not set(name) & {".", "/", os.sep}
    if is_name and name.lower() != "digits":
        return _torchvision(name, split or "train", size, root)
    if split is not None:
        raise InvalidValueError(
            f"{name!r} comes whole, it has no split {split!r}; use `data.split(fraction)`"
        )
    if is_name:
        return _digits()
    path = Path(name).expanduser()
    return _folder(path, size, skip=on_bad_image == "skip") if path.is_dir() else _file(path)


def _digits() -> Data:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError.of("scikit-learn", "digits", "the data set 'digits'") from error
    found = load_digits()
    transform = Range(0, 16)
    x = transform.forward(torch.from_numpy(found.images))[:, None]
    return Data(x, torch.from_numpy(found.target), transform)


def _file(path: Path) -> Data:
    if path.suffix not in (".npy", ".npz"):
        what = "has a suffix that is not read" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}; pass a .npy or .npz file, or a folder of images")
    try:
        # opened here, since numpy forgets to close a file that is broken
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            arrays = {"x": content} if isinstance(content, np.ndarray) else dict(content)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a broken file
        raise DataError(f"cannot read {path}: {error}") from error
    x = next((arrays[k] for k in ("x", "images") if k in arrays), None)
    y = next((arrays[k] for k in ("y", "labels") if k in arrays), None)
    if x is None:
        raise DataError(
            f"{path} has the keys {', '.join(arrays) or '(none)'}; name the samples 'x' or "
            "'images', and the labels, if any, 'y' or 'labels'"
        )
    for key, array, kinds in (("samples", x, "fuib"), ("labels", y, "ui")):
        if array is not None and array.dtype.kind not in kinds:
            what = "numbers" if array is x else "integers"
            raise InvalidTypeError(f"the {key} in {path} are {array.dtype}; they must be {what}")
    label = None if y is None else torch.from_numpy(y.astype(np.int64))
    if x.dtype == np.uint8:
        return _bytes(torch.from_numpy(_channels_first(x, path)), label)
    return Data(torch.from_numpy(x.astype(np.float32) if x.dtype.kind == "f" else x), label)


def _channels_first(x: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        return x.transpose(0, 3, 1, 2)
    if x.ndim == 4:
        return x
    raise DataError(
        f"the bytes in {path} have shape {x.shape}; images are (N, H, W), (N, C, H, W) or "
        "(N, H, W, C), and other data should be stored as floats"
    )


def _folder(folder: Path, size: int | tuple[int, int] | None, *, skip: bool) -> Data:
    from PIL import Image

    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _IMAGES)
    if not files:
        raise DataError(f"there are no images in {folder}; looked for {', '.join(sorted(_IMAGES))}")
    images, kept, broken = [], [], []
    for path in files:
        try:
            with Image.open(path) as image:
                images.append(_pixels(image, size))
            kept.append(path)
        except Exception as error:  # Pillow's decoders raise anything, SyntaxError included
            broken.append(path)
            if not skip or len(broken) > _SKIPPED * len(files):
                count = f" (and {len(broken) - 1} before it)" if skip else ""
                raise DataError(
                    f"cannot read the image {path}{count}: {error}; remove it"
                    + (
                        f", more than {_SKIPPED:.0%} are broken"
                        if skip
                        else ", or pass on_bad_image='skip'"
                    )
                ) from error
    if broken:
        warnings.warn(
            f"passed over {len(broken)} of {len(files)} images that cannot be read, the first is "
            f"{broken[0]}",
            RuntimeWarning,
            stacklevel=3,
        )
    x = _stack(images, kept.__getitem__)
    parents = [p.relative_to(folder).parts[:-1] for p in kept]
    if not all(parents):
        return _bytes(x, None)
    classes = sorted({p.relative_to(folder).parts[0] for p in files})
    return _bytes(x, torch.tensor([classes.index(p[0]) for p in parents]), len(classes))


def _torchvision(
    name: str,
    split: str,
    size: int | tuple[int, int] | None,
    root: str | os.PathLike[str] | None,
) -> Data:
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        raise DataError(
            f"the data set {name!r} comes through torchvision, which cannot be imported here: "
            f"{error}; install the torchvision that belongs to torch {torch.__version__}"
        ) from error
    table = {n.lower(): getattr(datasets, n) for n in datasets.__all__}
    downloads = {n: c for n, c in table.items() if _downloads(c)}
    key = name.lower().replace("_", "").replace("-", "")
    if key not in downloads:
        raise UnknownNameError.of("data set", name, [*downloads, "digits"])
    make = downloads[key]
    options: dict[str, Any] = {"download": True}
    if "train" in inspect.signature(make).parameters:
        if split not in ("train", "test"):
            raise InvalidValueError(f"split is {split!r}; {name!r} has 'train' and 'test'")
        options["train"] = split == "train"
    elif "split" in inspect.signature(make).parameters:
        options["split"] = split
    folder = Path("~/.cache/scoresde" if root is None else root).expanduser()
    try:
        found = make(str(folder), **options)
    except ValueError as error:
        raise InvalidValueError(f"cannot load {name!r}: {error}") from error
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise DataError(
            f"cannot download {name!r} ({' '.join(str(error).split())}); connect this machine to "
            f"the network once, or copy torchvision's files into {folder}"
        ) from error
    images, targets = zip(*((_pixels(image, size), target) for image, target in found), strict=True)
    x = _stack(images, lambda i: f"number {i}")
    if all(isinstance(target, int) for target in targets):
        return _bytes(x, torch.tensor(targets))
    return _bytes(x, None)


def _downloads(make: Any) -> bool:
    named = inspect.signature(make).parameters.values()
    required = {p.name for p in named if p.default is p.empty and p.kind < p.VAR_POSITIONAL}
    return required == {"root"} and "download" in {p.name for p in named}


def _pixels(image: Image, size: int | tuple[int, int] | None) -> np.ndarray[Any, Any]:
    from PIL import ImageOps

    if image.mode.startswith(("I", "F")):  # Pillow would clip these to bytes
        raise ValueError(f"its mode is {image.mode!r}, more than 8 bits a channel; convert it")
    image = ImageOps.exif_transpose(image)
    image = image.convert("L" if image.mode in ("1", "L") else "RGB")
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        image = ImageOps.fit(image, (width, height))
    return np.array(image).reshape(image.height, image.width, -1)


def _stack(images: Iterable[np.ndarray[Any, Any]], name: Callable[[int], object]) -> Tensor:
    pixels = list(images)
    channels = max(p.shape[2] for p in pixels)
    for i, p in enumerate(pixels):
        if p.shape[:2] != pixels[0].shape[:2]:
            raise DataError(
                f"the images have different sizes: {name(0)} is {pixels[0].shape[:2]} and {name(i)}"
                f" is {p.shape[:2]} (height, width); pass size="
            )
    grey_too = (np.broadcast_to(p, (*p.shape[:2], channels)) for p in pixels)
    return torch.from_numpy(np.stack(list(grey_too)).transpose(0, 3, 1, 2))


def _bytes(x: Tensor, label: Tensor | None, classes: int | None = None) -> Data:
    transform = Range(0, 255)
    return Data(transform.forward(x), label, transform, classes)

"""List the images in a folder and its subfolders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from scoresde import checkpoint
from scoresde.data.classes import Named
from scoresde.data.samples import Data
from scoresde.data.stores import Store
from scoresde.data.wanted import Wanted
from scoresde.errors import DataError
from scoresde.units import Transform

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Files"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
_WAYS = 100  # at most this many paths may lead to the same folder, through links


class Files:
    """List the images in a folder and its subfolders, sorted by path; links are followed.

    Attributes:
        folder: The folder.
        paths: The image files.
        others: The other files.

    Raises:
        DataError: There are no images, or a folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        # an absolute path, since the working directory may change before images are read
        self.folder = folder = folder.absolute()
        self.paths: list[Path] = []
        self.others: list[Path] = []
        for path in sorted(_below(folder)):
            (self.paths if path.suffix.lower() in _SUFFIXES else self.others).append(path)
        if not self.paths:
            if (folder / "model.safetensors").exists() or (folder / "config.toml").exists():
                raise DataError(
                    f"{folder} holds a model, not data; to use samples of the model, call "
                    f"scoresde.sample(scoresde.load({str(folder)!r}), n=1000)"
                )
            raise DataError(
                f"there are no images in {folder} with a suffix {', '.join(sorted(_SUFFIXES))}"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, i: int) -> Image:
        """Open an image, whose pixels Pillow reads when they are needed."""
        from PIL import Image

        # raises an error for a pipe, for which Pillow would wait
        with checkpoint.open_file(self.paths[i]):
            return Image.open(self.paths[i])

    def name(self, i: int) -> str:
        """Return the path of image i."""
        return str(self.paths[i])

    def classes(self) -> Named | None:
        """Return the top-level subfolder of every file as its class, or None if a file has none."""
        inner = [path.relative_to(self.folder).parts[:-1] for path in self.paths]
        if not all(inner):
            return None
        names = {name: k for k, name in enumerate(sorted({parts[0] for parts in inner}))}
        return Named(torch.tensor([names[parts[0]] for parts in inner]), tuple(names))

    def data(self, images: Store, wanted: Wanted, units: Transform) -> Data:
        """Return `images` of these files with their classes, if any, and the `wanted` values."""
        classes = self.classes()
        conditions = {} if classes is None else {"label": classes}
        names = [path.relative_to(self.folder).as_posix() for path in self.paths]
        return wanted.images(images, conditions, transform=units, files=names)


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders, without following cycles of links."""
    left: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    ways: Counter[tuple[int, int]] = Counter()
    while left:
        folder, above = left.pop()
        try:
            found = folder.stat()
            entries = list(os.scandir(folder))
        except OSError as error:
            raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
        real = (found.st_dev, found.st_ino)
        if real in above:
            continue
        ways[real] += 1
        if ways[real] > _WAYS:  # a few links to links can make billions of paths
            raise DataError(
                f"more than {_WAYS} paths lead to the folder {folder} through links; remove some "
                "links"
            )
        for entry in entries:
            if os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
                left.append((Path(entry.path), above | {real}))
            else:
                yield Path(entry.path)

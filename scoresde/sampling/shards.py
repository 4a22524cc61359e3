r"""Draw many samples into a folder of shards, with several processes, and resume after a stop.

Shard c holds the samples $cb \dots cb + b - 1$ of a request, which one process draws as one chunk.
So a shard does not depend on the number of processes, the number of shards or interruptions. A
valid shard is not drawn again. All shards in a folder must belong to one request, so each file also
stores the request.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoresde import checkpoint, distributed
from scoresde.checks import check_integer
from scoresde.errors import CheckpointError, InvalidValueError

__all__ = ["Shards"]

_NAME = re.compile(r"shard-[0-9]{5,}\.safetensors")


class Shards:
    """Draw samples into a folder, in files of `size` samples; the last file may hold fewer.

    All processes must call the same methods in the same order. From `draw` until this object is
    deleted, no other process can draw into the folder.

    Args:
        folder: The folder, created if it is missing.
        n: The number of samples, at least 1.
        size: The number of samples in each file, at least 1.

    Raises:
        InvalidValueError: A number is below 1.
    """

    def __init__(self, folder: Path, n: int, size: int) -> None:
        check_integer("n", n, 1)
        check_integer("batch_size", size, 1)
        self.folder = folder
        self.n = n
        self.size = size
        self._drawn: dict[str, Any] | None = None
        self._lock = checkpoint.Lock(folder, "draws samples")

    def __len__(self) -> int:
        return -(-self.n // self.size)

    def path(self, number: int) -> Path:
        """Return the file of shard `number`."""
        return self.folder / f"shard-{number:05d}.safetensors"

    def rows(self, number: int) -> range:
        """Return the indices of the samples in shard `number`."""
        return range(number * self.size, min((number + 1) * self.size, self.n))

    def draw(
        self,
        chunk: Callable[[range], Mapping[str, Tensor]],
        request: Mapping[str, Any],
        *,
        scratch: bool = False,
    ) -> int:
        """Draw the missing shards, and wait for all processes.

        Args:
            chunk: A function of `rows` that returns tensors `(len(rows), *)` by name.
            request: All values on which samples depend, besides their index, as JSON.
            scratch: Replace shards of another request, and remove shards beyond `n`, instead of
                raising an error.

        Returns:
            The number of shards that were missing.

        Raises:
            InvalidValueError: The folder holds samples of another request, or more than n samples.
            CheckpointError: A shard cannot be written, or another process draws into the folder.
        """
        self._drawn = dict(request)
        try:
            missing = distributed.on_main(lambda: self._missing(request, scratch))
            for number in missing[distributed.rank() :: distributed.size()]:
                tensors = chunk(self.rows(number))
                checkpoint.save_tensors(self.path(number), tensors, {"request": request})
            distributed.wait()
        except BaseException:
            if self._lock.file is not None and not self._there():
                self.remove()  # nothing was drawn
            raise
        finally:
            self._lock.idle = True  # another `Shards` of this process may take the lock
        return len(missing)

    def joined(self) -> dict[str, Tensor]:
        """Return all samples in order, by name.

        Raises:
            CheckpointError: A shard is missing, or does not fit the others.
        """
        found = [checkpoint.load_tensors(self.path(k)) for k in range(len(self))]
        first, meta = found[0]
        request = meta.get("request") if self._drawn is None else self._drawn
        for number, (tensors, meta) in enumerate(found):
            outline = {name: (value.dtype, value.shape[1:]) for name, value in tensors.items()}
            fits = outline == {name: (v.dtype, v.shape[1:]) for name, v in first.items()}
            if (
                not fits
                or meta.get("request") != request
                or _rows(tensors) != len(self.rows(number))
            ):
                raise CheckpointError(
                    f"{self.path(number)} does not fit {self.path(0).name}: another program "
                    "writes to this folder; take another folder"
                )
        return {name: torch.cat([tensors[name] for tensors, _ in found]) for name in first}

    def remove(self) -> None:
        """Remove the shards, and remove the folder if it is then empty.

        Raises:
            CheckpointError: Another process draws into the folder.
        """
        if self.folder.is_dir():
            self._lock.take()
        for path in self._there():
            path.unlink(missing_ok=True)
        self._lock.remove()
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    def _there(self) -> list[Path]:
        return sorted(p for p in self.folder.glob("shard-*") if _NAME.fullmatch(p.name))

    def _missing(self, request: Mapping[str, Any], scratch: bool) -> list[int]:
        checkpoint.make_folder(self.folder)
        self._lock.take()
        self._lock.idle = False
        found = {k: self._length(k, request, scratch) for k in range(len(self))}
        expected = {self.path(k) for k in found}
        many = [path for path in self._there() if path not in expected]
        if scratch:
            for path in many:
                path.unlink(missing_ok=True)
        many += [self.path(k) for k, length in found.items() if length > len(self.rows(k))]
        if many and not scratch:
            raise InvalidValueError(
                f"{self.folder} holds more than {self.n} samples, see {many[0].name}; draw at "
                "least as many, or take another folder"
            )
        return [k for k, length in found.items() if length != len(self.rows(k))]

    def _length(self, number: int, request: Mapping[str, Any], scratch: bool) -> int:
        """Return the number of samples of this request in a shard; 0 if damaged or missing."""
        path = self.path(number)
        if not path.exists():
            return 0
        try:
            tensors, meta = checkpoint.load_tensors(path)
        except CheckpointError:
            return 0
        known = meta.get("request")
        stored = known if isinstance(known, Mapping) else {}
        changes = [
            f"{name} was {stored.get(name)!r} and is now {value!r}"
            for name, value in request.items()
            if stored.get(name) != value
        ]
        if changes and not scratch:
            raise InvalidValueError(
                f"{path} holds samples of another request: {', '.join(changes)}; give the old "
                "values, or take another folder"
            )
        return 0 if changes else _rows(tensors)


def _rows(tensors: Mapping[str, Tensor]) -> int:
    """Return the number of samples, or 0 if it differs between the tensors."""
    lengths = {value.shape[:1] for value in tensors.values()}
    return next(iter(lengths))[0] if len(lengths) == 1 and () not in lengths else 0

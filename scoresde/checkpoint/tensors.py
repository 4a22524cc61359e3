"""One safetensors file with a JSON object, a schema and a checksum in its header."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from scoresde.checkpoint.files import read_bytes, write_bytes
from scoresde.checkpoint.objects import LARGEST, dump, parse
from scoresde.checkpoint.state import layout
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError

__all__ = ["SCHEMA", "NewerError", "digest", "load_tensors", "save_tensors", "schema"]

SCHEMA = 2
"""The number of what is written; all from 1 on are read. Files of schema 1 hold no number."""

_FORMAT = "scoresde"
_FIRST = "scoresde-1"
_PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}


class NewerError(CheckpointError):
    """A checkpoint of a schema that only a newer scoresde knows."""


def save_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write `tensors` and the JSON object `meta` to one safetensors file, atomically.

    Args:
        path: the file; its folder is made if need be, an older file is replaced.
        tensors: any shapes, dtypes and devices; views and shared memory are stored as copies.
        meta: what `json` can hold; NaN and infinities are refused.

    Raises:
        CheckpointError: the file cannot be written (a full disk, say); an older file is untouched.
        InvalidTypeError, InvalidValueError: `meta` is no JSON object, or `tensors` are not strided
            tensors by name.
    """
    for name, value in tensors.items():
        _check(name, value)
    text = dump(meta or {})
    owned = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    header = {"format": _FORMAT, "schema": str(SCHEMA), "meta": text}
    header["sha256"] = digest(owned, text, SCHEMA)
    write_bytes(path, _ordered(safetensors.torch.save(owned, header)))


def _check(name: object, value: object) -> None:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        kind = f"{value.layout}, {value.device}" if isinstance(value, Tensor) else type(value)
        raise InvalidTypeError(f"cannot store {name!r} ({kind}); use dense tensors with values")
    # the header is JSON in UTF-8, and has one name for itself
    sound = isinstance(name, str) and name == name.encode("utf-8", "replace").decode()
    if not sound or name == "__metadata__":
        raise InvalidValueError(f"a tensor cannot be stored under the name {name!r}; use another")


def load_tensors(
    path: str | os.PathLike[str], raw: bytes | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: the tensors (on the CPU) and the JSON object.

    Args:
        path: the file.
        raw: its content, where that was read already; then the file is not opened.

    Raises:
        NewerError: a newer scoresde wrote the file.
        CheckpointError: the file is missing, truncated, damaged, a pickle, or not ours.
    """
    tensors, meta, _ = _load(Path(path), raw)
    return tensors, meta


def schema(path: str | os.PathLike[str]) -> int:
    """Return the number of a file's schema, after all of the file was read and verified.

    Raises:
        CheckpointError: as in `load_tensors`.
    """
    return _load(Path(path))[2]


def _load(path: Path, raw: bytes | None = None) -> tuple[dict[str, Tensor], dict[str, Any], int]:
    raw = read_bytes(path) if raw is None else raw
    ours = _metadata(path, raw)
    number = _schema(path, ours)
    text = ours.get("meta", "")
    damaged = f"{path} ({len(raw):,} bytes) is damaged"
    try:
        tensors = safetensors.torch.load(raw)
        found = digest(tensors, text, number or SCHEMA)
        meta = parse(text) if number else {}
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{damaged}: {error}") from error
    if number is None:
        raise CheckpointError(
            f"{path} is a safetensors file that scoresde did not write (format "
            f"{ours.get('format')!r}, expected {_FORMAT!r}){layout(tensors)}"
        )
    if found != ours.get("sha256") or not isinstance(meta, dict):
        raise CheckpointError(
            f"{damaged}: its SHA-256 is {found[:12]}..., expected "
            f"{ours.get('sha256', '')[:12]}...; use an earlier copy"
        )
    return tensors, meta, number


def _schema(path: Path, ours: Mapping[str, str]) -> int | None:
    """Return the number of the schema, or None where the file is not ours."""
    if ours.get("format") == _FIRST:
        return 1
    text = ours.get("schema", "")
    if ours.get("format") != _FORMAT or not (text.isascii() and text.isdecimal()):
        return None
    number = int(text[:9])
    if number > SCHEMA:
        raise NewerError(
            f"{path} was written by a newer scoresde: its schema is {number}, and this one reads "
            f"schemas 1 to {SCHEMA}; run `pip install --upgrade scoresde`"
        )
    return number if number > 1 else None


def digest(tensors: Mapping[str, Tensor], text: str, number: int) -> str:
    """The SHA-256, in hexadecimal, over names, dtypes, shapes and bytes of tensors, and a text.

    Args:
        tensors: On the CPU.
        text: What else is counted.
        number: The schema of the file whose checksum it is.
    """
    found = hashlib.sha256(text.encode() if number == 1 else f"{number}\n{text}".encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _ordered(raw: bytes) -> bytes:
    """The same file with its header sorted, which safetensors orders anew in every process."""
    end = 8 + int.from_bytes(raw[:8], "little")
    if end > LARGEST:
        raise InvalidValueError(
            f"the names of the tensors and their description take {end:,} bytes, and no more than "
            f"{LARGEST:,} are read back; describe less"
        )
    header = json.dumps(json.loads(raw[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + raw[end:]


def _metadata(path: Path, raw: bytes) -> dict[str, str]:
    size = len(raw)
    # a header of 640 bytes begins as a pickle does, but the bytes after its length are JSON
    pickled = raw[:2] in (b"PK", b"\x80\x02", b"\x80\x04") and raw[8:9] != b"{"
    if pickled or path.suffix.lower() in _PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, which can run any code when it is loaded; scoresde reads "
            "safetensors only: if you trust the file, convert it with torch.load(..., "
            "weights_only=True) and safetensors.torch.save_file"
        )
    start = 8 + int.from_bytes(raw[:8], "little")
    if size < 8 or (start > size and raw[8:9] in (b"{", b"")):
        raise CheckpointError(
            f"{path} is truncated: it has {size:,} bytes, expected more than "
            f"{max(start, 8):,}; use an earlier copy"
        )
    try:
        if start > LARGEST:
            raise ValueError("it is longer than any that is written")
        header = parse(raw[8:start])
        metadata = dict(header.pop("__metadata__", {}))
        expected = start + max((int(v["data_offsets"][1]) for v in header.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"{path} ({size:,} bytes) is no safetensors file, or its header is damaged"
        ) from error
    if expected != size:
        what = "truncated" if size < expected else "damaged"
        raise CheckpointError(
            f"{path} is {what}: it has {size:,} bytes, expected {expected:,}; use an earlier copy"
        )
    return {str(k): str(v) for k, v in metadata.items()}

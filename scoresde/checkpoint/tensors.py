"""Write and read a safetensors file with a JSON object, a schema and a checksum in its header."""

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
from scoresde.checks import quoted
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError

__all__ = [
    "SCHEMA",
    "NewerError",
    "copied",
    "digest",
    "load_tensors",
    "save_tensors",
    "schema",
    "write_tensors",
]

SCHEMA = 2
"""The schema of written files. Files with a schema from 1 to this number can be read."""

_FORMAT = "scoresde"
_FIRST = "scoresde-1"  # the format of files of schema 1, which do not have the number
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}


class NewerError(CheckpointError):
    """Report a checkpoint that only a newer scoresde can read."""


def save_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write `tensors` and the JSON object `meta` to one safetensors file, atomically.

    Args:
        path: The file. Its folder is created if it is missing, and an existing file is replaced.
        tensors: Tensors of any shapes and devices, and of the usual dtypes (not complex128, for
            example); views are stored as copies.
        meta: A JSON object; NaN and infinities are not allowed.

    Raises:
        CheckpointError: The file cannot be written (a full disk, say); an older file is unchanged.
        InvalidTypeError, InvalidValueError: `meta` is not a JSON object, `tensors` is not a mapping
            from names to dense tensors of such dtypes, or names and `meta` together are too long.
    """
    write_tensors(path, copied(tensors), meta)


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous copies of the tensors on the CPU, which later changes do not reach.

    Raises:
        InvalidTypeError, InvalidValueError: As in `save_tensors`.
    """
    if not isinstance(tensors, Mapping):
        raise InvalidTypeError(f"cannot store {quoted(tensors)}; give tensors by name")
    for name, value in tensors.items():
        _check(name, value)
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write what `copied` returned, as `save_tensors` does, without a further copy.

    The tensors must not change until the file is written.
    """
    text = dump(meta or {})
    header = {"format": _FORMAT, "schema": str(SCHEMA), "meta": text}
    header["sha256"] = digest(tensors, text, SCHEMA)
    write_bytes(path, *_parts(tensors, header))


def _check(name: object, value: object) -> None:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        kind = f"{value.layout}, {value.device}" if isinstance(value, Tensor) else type(value)
        raise InvalidTypeError(f"cannot store {name!r} ({kind}); use dense tensors with values")
    if value.dtype not in _DTYPES:
        raise InvalidTypeError(f"cannot store {name!r}: no safetensors file holds {value.dtype}")
    # the header is JSON in UTF-8, and uses the name __metadata__
    valid = isinstance(name, str) and name == name.encode("utf-8", "replace").decode()
    if not valid or name == "__metadata__":
        raise InvalidValueError(f"a tensor cannot be stored under the name {name!r}; use another")


def load_tensors(
    path: str | os.PathLike[str], raw: bytes | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that `save_tensors` wrote: its tensors, on the CPU, and its JSON object.

    Args:
        path: The file.
        raw: The content of the file, if it has already been read; then the file is not opened.

    Raises:
        NewerError: A newer scoresde wrote the file.
        CheckpointError: The file is missing, truncated, damaged, a pickle, or not written by
            scoresde.
    """
    tensors, meta, _ = _load(Path(path), raw)
    return tensors, meta


def schema(path: str | os.PathLike[str]) -> int:
    """Check the whole file, and return the number of its schema.

    Raises:
        CheckpointError: As in `load_tensors`.
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
    """Return the number of the schema, or None if scoresde did not write the file."""
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
    """Return the hexadecimal SHA-256 of a text and of tensors with names, dtypes and shapes.

    Args:
        tensors: Tensors on the CPU.
        text: The text.
        number: The schema of the file.
    """
    found = hashlib.sha256(text.encode() if number == 1 else f"{number}\n{text}".encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(_bytes(value))
    return found.hexdigest()


def _parts(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """Return the parts of a safetensors file: the header, and the bytes of each tensor.

    The library makes the same file with two more copies of all tensors in memory, and does not
    define the order of the header.
    """
    # the largest elements first, so that every tensor is aligned
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for name in names:
        value = tensors[name]
        start, first = start + value.nbytes, start
        entries[name] = {
            "dtype": _DTYPES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [first, start],
        }
    header = json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    if len(header) + 8 > LARGEST:
        raise InvalidValueError(
            f"the names of the tensors and their description take {len(header):,} bytes, but at "
            f"most {LARGEST:,} can be read back; shorten the description"
        )
    return [len(header).to_bytes(8, "little") + header, *(_bytes(tensors[name]) for name in names)]


def _bytes(value: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU, without a copy if it is contiguous."""
    return value.reshape(-1).view(torch.uint8).numpy().data


def _metadata(path: Path, raw: bytes) -> dict[str, str]:
    size = len(raw)
    # a safetensors file with a header of 640 bytes begins like a pickle, but continues with JSON
    pickled = raw[:2] in (b"PK", b"\x80\x02", b"\x80\x04") and raw[8:9] != b"{"
    if pickled or path.suffix.lower() in _PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, which can run any code when it is loaded; scoresde reads "
            "safetensors only. scoresde.interop.load_score_sde and load_ncsnv2 read checkpoints "
            "of these projects, and save_pretrained then writes a folder; convert another file, "
            "if you trust it, with torch.load(..., weights_only=True) and "
            "safetensors.torch.save_file"
        )
    start = 8 + int.from_bytes(raw[:8], "little")
    if size < 8 or (start > size and raw[8:9] in (b"{", b"")):
        raise CheckpointError(
            f"{path} is truncated: it has {size:,} bytes, expected more than "
            f"{max(start, 8):,}; use an earlier copy"
        )
    try:
        if start > LARGEST:
            raise ValueError("its header is longer than any that scoresde writes")
        header = parse(raw[8:start])
        metadata = dict(header.pop("__metadata__", {}))
        expected = start + max((int(v["data_offsets"][1]) for v in header.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"{path} ({size:,} bytes) is not a safetensors file, or its header is damaged"
        ) from error
    if expected != size:
        what = "truncated" if size < expected else "damaged"
        raise CheckpointError(
            f"{path} is {what}: it has {size:,} bytes, expected {expected:,}; use an earlier copy"
        )
    return {str(k): str(v) for k, v in metadata.items()}

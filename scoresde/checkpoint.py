r"""Files that survive a crash: safetensors with JSON, written atomically, read with a checksum.

One file holds tensors *and* a JSON object (in the safetensors header), so the two cannot
disagree. A write goes to a temporary file in the same folder, is flushed to the disk, and takes
the place of the old file in one rename: a reader sees the old file or the new one, never a part.
A SHA-256 over names, dtypes, shapes, bytes and JSON is stored in the header and checked on
reading. Nothing here knows about models, and nothing here unpickles.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError

__all__ = [
    "clean",
    "latest",
    "load_state",
    "load_tensors",
    "read_json",
    "save_step",
    "save_tensors",
    "steps_in",
    "write_bytes",
    "write_json",
]

_FORMAT = "scoresde-1"
_SUFFIX = ".safetensors"
_PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle"}
_LAYOUTS = {
    "all_modules.": "score_sde_pytorch; build that network yourself and wrap it in a ScoreModel",
    "down_blocks.": "diffusers; load it with diffusers and wrap it with `from_denoiser`",
    "_orig_mod.": "a network saved under torch.compile; save the network that was compiled",
    "module.": "a network saved under DataParallel; save its `.module`",
}


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
        InvalidTypeError, InvalidValueError: `meta` is no JSON.
    """
    text = _dump(meta or {})
    owned = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    header = {"format": _FORMAT, "meta": text, "sha256": _digest(owned, text)}
    write_bytes(path, safetensors.torch.save(owned, header))


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote: the tensors (on the CPU) and the JSON object.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, a pickle, or not ours.
    """
    path = Path(path)
    raw = _read(path)
    ours = _metadata(path, raw)
    try:
        tensors = safetensors.torch.load(raw)
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} ({len(raw):,} bytes) is damaged: {error}") from error
    if ours.get("format") != _FORMAT or not {"meta", "sha256"} <= ours.keys():
        raise CheckpointError(
            f"{path} is a safetensors file that scoresde did not write (format "
            f"{ours.get('format')!r}, expected {_FORMAT!r}){_layout(tensors)}"
        )
    found = _digest(tensors, ours["meta"])
    if found != ours["sha256"]:
        raise CheckpointError(
            f"{path} ({len(raw):,} bytes) is damaged: its SHA-256 is {found[:12]}..., expected "
            f"{ours['sha256'][:12]}...; use an earlier copy"
        )
    return tensors, json.loads(ours["meta"])


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically; NaN and infinities are refused.

    Raises:
        CheckpointError: the file cannot be written; an older file is untouched.
        InvalidTypeError, InvalidValueError: `value` is no JSON.
    """
    write_bytes(path, (_dump(value, indent=2) + "\n").encode())


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing, or holds anything but one JSON object.
    """
    path = Path(path)
    try:
        value = json.loads(_read(path), parse_constant=_refuse)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise CheckpointError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value


def save_step(
    folder: str | os.PathLike[str],
    step: int,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    *,
    keep: int,
) -> Path:
    """Write the checkpoint of `step` into `folder` and remove all but the last `keep` up to it.

    Raises:
        CheckpointError: the file cannot be written; then no older one is removed.
    """
    path = Path(folder) / f"step-{step:08d}{_SUFFIX}"
    save_tensors(path, tensors, meta)
    # A later step is one that `latest` rejected: it does not count, and is soon written again.
    for old in [p for s, p in steps_in(folder) if s <= step][:-keep]:
        old.unlink(missing_ok=True)
    return path


def steps_in(folder: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """The checkpoints in `folder` as (step, file), in rising order."""
    found = Path(folder).glob(f"step-*{_SUFFIX}")
    return sorted((int(p.stem[5:]), p) for p in found if p.stem[5:].isdecimal())


def latest(
    folder: str | os.PathLike[str],
) -> tuple[Path, dict[str, Tensor], dict[str, Any]] | None:
    """The newest good checkpoint in `folder` as (file, tensors, meta); None where there is none.

    A damaged one is passed over with a warning that names it.

    Raises:
        CheckpointError: there are checkpoints, and every one of them is damaged.
    """
    damaged = []
    for _, path in reversed(steps_in(folder)):
        try:
            tensors, meta = load_tensors(path)
        except CheckpointError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(f"{damaged[0]}; going on from {path.name}", RuntimeWarning, stacklevel=2)
        return path, tensors, meta
    if damaged:
        raise CheckpointError(
            f"no good checkpoint is left in {folder}: {'; '.join(damaged)}; remove the folder to "
            "start again"
        )
    return None


def clean(folder: str | os.PathLike[str]) -> None:
    """Remove what a killed writer left behind in `folder`."""
    for stale in Path(folder).glob(".*.tmp"):
        stale.unlink(missing_ok=True)


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy `tensors` into `module`, strictly: the same names and the same shapes.

    Args:
        module: receives parameters and buffers, each cast to its own dtype.
        tensors: a complete state dict.
        source: where the tensors come from, for the message.

    Raises:
        CheckpointError: names are missing or unexpected, or shapes differ; lists at most five of
            each, and says so where the names are those of another library.
    """
    own = module.state_dict()
    complaints = []
    missing = [k for k in own if k not in tensors]
    extra = [k for k in tensors if k not in own]
    shapes = [
        f"{k} is {tuple(tensors[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own
        if k in tensors and tensors[k].shape != own[k].shape
    ]
    for kind, names in (("missing", missing), ("unexpected", extra), ("of another shape", shapes)):
        if names:
            more = f", and {len(names) - 5} more" if len(names) > 5 else ""
            complaints.append(f"{len(names)} {kind}: {', '.join(names[:5])}{more}")
    if complaints:
        raise CheckpointError(
            f"{source} does not fit {type(module).__name__}; {'; '.join(complaints)}"
            f"{_layout(extra)}"
        )
    module.load_state_dict(dict(tensors), strict=True)


def _layout(names: Iterable[str]) -> str:
    for mark, what in _LAYOUTS.items():
        if any(name.startswith(mark) or f".{mark}" in name for name in names):
            return f"; its names are those of {what}"
    return ""


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _metadata(path: Path, raw: bytes) -> dict[str, str]:
    size = len(raw)
    if path.suffix.lower() in _PICKLES or raw[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        raise CheckpointError(
            f"{path} is a pickle, which can run any code when it is loaded; scoresde reads "
            "safetensors only: if you trust the file, convert it with torch.load(..., "
            "weights_only=True) and safetensors.torch.save_file"
        )
    start = 8 + int.from_bytes(raw[:8], "little")
    if size < 8 or (start > size and raw[8:9] == b"{"):
        raise CheckpointError(
            f"{path} is truncated: it has {size:,} bytes, expected more than "
            f"{max(start, 8):,}; use an earlier copy"
        )
    try:
        header = json.loads(raw[8:start])
        metadata = dict(header.pop("__metadata__", {}))
        expected = start + max((int(v["data_offsets"][1]) for v in header.values()), default=0)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise CheckpointError(
            f"{path} ({size:,} bytes) is no safetensors file, or its header is damaged"
        ) from error
    if expected != size:
        what = "truncated" if size < expected else "damaged"
        raise CheckpointError(
            f"{path} is {what}: it has {size:,} bytes, expected {expected:,}; use an earlier copy"
        )
    return {str(k): str(v) for k, v in metadata.items()}


def _dump(value: Mapping[str, Any], indent: int | None = None) -> str:
    try:
        return json.dumps(value, allow_nan=False, indent=indent, default=_plain)
    except ValueError as error:
        raise InvalidValueError(f"cannot be stored as JSON: {error} in {value!r}") from error


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise InvalidTypeError(
        f"cannot store {value!r} ({type(value).__name__}) as JSON; use numbers, strings, lists "
        "and dictionaries"
    )


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically; its folder is made if need be.

    Raises:
        CheckpointError: the file cannot be written; an older file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                os.chmod(temporary, path.stat().st_mode)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if os.name == "posix":  # the rename itself must reach the disk; Windows has no such call
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; what was there before is untouched"
        ) from error

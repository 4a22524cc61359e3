"""Read and write frozen dataclasses as TOML: a table for each dataclass, a key for each field.

A field that is None has no key, since TOML has no null. An SDE is a table with the name of its
class, `type = "VESDE"`, and the fields of this class. A loss, a weight and a distribution of times
are each a table with the name, `type = "min_snr"`, and the parameters.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from scoresde import checkpoint
from scoresde.cli.choices import Choice, typed
from scoresde.errors import (
    CheckpointError,
    InvalidTypeError,
    InvalidValueError,
    ScoreSDEError,
    UnknownNameError,
)
from scoresde.sde import SDE, SDES

__all__ = ["build", "fields_of", "read", "tables", "write"]


def write(path: Path, config: object, comment: str) -> None:
    """Write a tree of dataclasses, below a comment of one line.

    Raises:
        CheckpointError: The file cannot be written; an older file is untouched.
        InvalidValueError: A text, such as a path, is not valid UTF-8.
    """
    text = f"# {comment}\n\n{tomli_w.dumps(tables(config))}"
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError(
            f"{path} cannot hold {error.object[error.start - 20 : error.end]!r}, which is not "
            "valid UTF-8; rename that file"
        ) from error
    checkpoint.write_bytes(path, content)


def read(path: str | Path, kind: type[Any]) -> Any:
    """Read a file as `write` writes it; keys that are left out have their defaults.

    Raises:
        InvalidValueError: There is no such file, it is not TOML, or a value is not allowed.
        InvalidTypeError: A value has the wrong type.
        UnknownNameError: A key is unknown.
    """
    try:
        found = checkpoint.parse_toml(checkpoint.read_bytes(path).decode())
    except CheckpointError as error:
        raise InvalidValueError(str(error)) from error
    except ValueError as error:  # the syntax or the encoding is wrong
        raise InvalidValueError(f"{path} is not TOML: {error}") from error
    try:
        return build(kind, found, "")
    except ScoreSDEError as error:
        raise type(error)(f"{path}: {error}") from error


def tables(config: Any) -> dict[str, Any]:
    """Return a dataclass as nested dictionaries for TOML."""
    if isinstance(config, Choice):
        return {"type": config.name, **config.parameters}
    named = {"type": type(config).__name__} if isinstance(config, SDE) else {}
    found = {name: getattr(config, name) for name in fields_of(type(config))}
    return named | {k: _plain(v) for k, v in found.items() if v is not None}


def build(kind: type[Any], table: Mapping[str, Any], where: str) -> Any:
    """Return the dataclass of a table.

    Args:
        kind: The class; for `SDE` the table names the class.
        table: The fields.
        where: The keys above, ending in a dot, for messages.

    Raises:
        InvalidValueError: A value is not allowed, or missing.
        InvalidTypeError: A value has the wrong type.
        UnknownNameError: A key is unknown, or the class of an SDE.
    """
    if kind is SDE or issubclass(kind, Choice):
        table = dict(table)
        if "type" not in table:
            raise InvalidValueError(f"the key {where}type is missing")
        name = table.pop("type")
        if issubclass(kind, Choice):
            return kind(name, table)
        if not isinstance(name, str) or name not in SDES:
            raise UnknownNameError.of("SDE", name, SDES)
        kind = SDES[name]
    known = fields_of(kind)
    for key in table:
        if key not in known:
            inner = (name for name, hint in known.items() if key in _fields_within(hint))
            if (part := next(inner, None)) is not None:
                raise UnknownNameError(f"unknown key '{where}{key}'; it is '{where}{part}.{key}'")
            raise UnknownNameError.of("key", where + key, [where + name for name in known])
    given = {key: _typed(known[key], table[key], where + key) for key in table}
    for field in dataclasses.fields(kind):
        bare = field.default is field.default_factory is dataclasses.MISSING
        if bare and field.init and field.name not in given:
            raise InvalidValueError(f"the key {where}{field.name} is missing")
    return kind(**given)


def fields_of(kind: type) -> dict[str, Any]:
    """Return the fields of a dataclass that its constructor takes, with their types."""
    hints = typing.get_type_hints(kind)
    return {f.name: hints[f.name] for f in dataclasses.fields(kind) if f.init}


def _fields_within(hint: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, or none for any other type."""
    return fields_of(hint) if isinstance(hint, type) and dataclasses.is_dataclass(hint) else {}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return tables(value)
    return list(value) if isinstance(value, tuple) else value


def _typed(hint: Any, value: Any, key: str) -> Any:
    """Return the value of a key, checked against the type of the field."""
    # a field that may be a dataclass or None
    hint = next((h for h in typing.get_args(hint) if dataclasses.is_dataclass(h)), hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise InvalidTypeError(f"{key} must be a table, got {value!r}")
        return build(hint, value, f"{key}.")
    return typed(hint, value, key)

"""Read and write an SDE as words of the command line: `VESDE sigma_max=10`."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

import tyro

from scoresde.cli import toml
from scoresde.errors import InvalidValueError
from scoresde.sde import SDE, SDES

__all__ = ["sde_of", "sde_words", "words_of"]


def sde_of(words: list[str]) -> SDE:
    """Parse words such as `VESDE sigma_max=10` into an SDE."""
    if not words:
        raise InvalidValueError("give the name of an SDE, as in `VESDE sigma_max=10`")
    name, *parameters = words
    table: dict[str, Any] = {"type": name}
    for word in parameters:
        key, sign, text = word.partition("=")
        try:
            table[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            what = f"{key}={text}" if sign else word
            raise InvalidValueError(
                f"cannot read {what!r}; write the parameters of an SDE as in `VESDE sigma_max=10`"
            ) from error
    sde: SDE = toml.build(SDE, table, f"{name}.")
    return sde


def words_of(sde: SDE) -> list[str]:
    """Return the words for an SDE, without parameters that have their default values."""
    usual = {f.name: f.default for f in dataclasses.fields(sde)}
    table = toml.tables(sde)
    changed = [k for k in table if k != "type" and getattr(sde, k) != usual[k]]
    values = {k: repr(getattr(sde, k)).strip("()").replace(" ", "") for k in changed}
    return [table["type"], *(f"{k}={v}" for k, v in values.items())]


def sde_words(*, optional: bool) -> Any:
    """Return tyro's specification of an SDE option; with `optional` the word auto is None."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{'auto|' * optional}{{{','.join(SDES)}}} [PARAMETER=VALUE ...]",
        instance_from_str=lambda given: (
            None if optional and list(given) == ["auto"] else sde_of(given)
        ),
        is_instance=lambda value: isinstance(value, SDE) or (optional and value is None),
        str_from_instance=lambda value: ["auto"] if value is None else words_of(value),
    )

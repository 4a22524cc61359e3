"""Choose a loss, a weight or a distribution of times by its name and parameters."""

from __future__ import annotations

import ast
import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Self

import typeguard
import tyro
from torch import Tensor

from scoresde.checks import check_name
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.objectives import LOSSES, WEIGHTS, Weight
from scoresde.sde import LAWS, TimeLaw

__all__ = ["Choice", "LawChoice", "LossChoice", "WeightChoice", "parameters_of", "typed", "words"]

# The parameters of losses that the trainer or other options set.
_COMMON = {"score", "sde", "x", "t", "noise", "condition", "weight", "law", "generator"}


@dataclass(frozen=True)
class Choice:
    """Hold the name of an entry of a table, and the parameters that differ from their defaults.

    Args:
        name: The name of the entry.
        parameters: Values by the names of parameters.

    Raises:
        UnknownNameError: The table has no such entry, or the entry has no such parameter.
        InvalidTypeError, InvalidValueError: The value of a parameter is not allowed.

    Examples:
        >>> WeightChoice("min_snr", {"gamma": 3.0}).make(var=0.5)
        min_snr(3, 0.5)
    """

    kind: ClassVar[str]
    table: ClassVar[Mapping[str, Any]]

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.kind, self.name, self.table)
        known = parameters_of(self.table[self.name])
        given = {}
        for key, value in self.parameters.items():
            if not known:
                raise InvalidValueError(f"{self.name} has no parameters, got {key}={value!r}")
            check_name("parameter", key, known)
            given[key] = typed(known[key], value, f"{self.name}.{key}")
        object.__setattr__(self, "parameters", given)
        self.make()

    def make(self, **usual: Any) -> Any:
        """Return the entry with its parameters.

        Args:
            usual: Values that replace defaults of the entry, if it has parameters with these names.
        """
        entry = self.table[self.name]
        known = parameters_of(entry)
        given = {k: v for k, v in usual.items() if k in known} | dict(self.parameters)
        if is_dataclass(entry):
            return replace(entry, **given)  # type: ignore[type-var]
        return functools.partial(entry, **given) if given else entry

    @classmethod
    def of_words(cls, given: Sequence[str]) -> Self:
        """Parse words such as `min_snr gamma=3` into a choice."""
        if not given:
            example = next(iter(cls.table))
            raise InvalidValueError(f"give the name of a {cls.kind}, as in `{example}`")
        found: dict[str, Any] = {}
        for word in given[1:]:
            key, sign, text = word.partition("=")
            if not sign:
                raise InvalidValueError(f"cannot read {word!r}; write parameters as NAME=VALUE")
            try:
                found[key] = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                found[key] = text
        return cls(given[0], found)

    def as_words(self) -> list[str]:
        """Return the inverse of `of_words`."""
        return [self.name, *(f"{key}={value}" for key, value in self.parameters.items())]


class LossChoice(Choice):
    """Name a loss."""

    kind = "loss"
    table: ClassVar[Mapping[str, Callable[..., Tensor]]] = LOSSES


class WeightChoice(Choice):
    """Name a weight."""

    kind = "weight"
    table: ClassVar[Mapping[str, Weight]] = WEIGHTS


class LawChoice(Choice):
    """Name a distribution of times."""

    kind = "law"
    table: ClassVar[Mapping[str, TimeLaw]] = LAWS


def words(kind: type[Choice], *, optional: bool = False) -> Any:
    """Return tyro's specification of an option that is a choice.

    Args:
        kind: The class of the choice.
        optional: Read the word auto as None.
    """
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{'auto|' * optional}{{{','.join(kind.table)}}} [PARAMETER=VALUE ...]",
        instance_from_str=lambda given: (
            None if optional and list(given) == ["auto"] else kind.of_words(given)
        ),
        is_instance=lambda value: isinstance(value, kind) or (optional and value is None),
        str_from_instance=lambda value: ["auto"] if value is None else value.as_words(),
    )


def parameters_of(entry: object) -> dict[str, Any]:
    """Return the parameters of an entry with their types, without those that the trainer sets."""
    if is_dataclass(entry):
        kind = entry if isinstance(entry, type) else type(entry)
        hints = typing.get_type_hints(kind)
        return {f.name: hints[f.name] for f in fields(entry)}
    hints = typing.get_type_hints(entry)
    signature = inspect.signature(entry)  # type: ignore[arg-type]
    names = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    bare = [name for name in names if name not in {*_COMMON, *hints}]
    if bare:
        raise InvalidTypeError(
            f"the command line needs an annotation of the type of {', '.join(bare)} in "
            f"{getattr(entry, '__name__', entry)}, which has none; annotate it, such as "
            f"{bare[0]}: float = 1.0"
        )
    return {name: hints[name] for name in names if name not in _COMMON}


def typed(hint: Any, value: Any, what: str) -> Any:
    """Return a value checked against a type; a list becomes a tuple, and an int for float a float.

    Args:
        hint: The type.
        value: The value, as read from a command or from TOML.
        what: The name of the value, for the error.

    Raises:
        InvalidTypeError: The value has another type.
    """
    value = tuple(value) if isinstance(value, list) else value
    try:
        if isinstance(value, bool) and bool not in (hint, *typing.get_args(hint)):
            raise typeguard.TypeCheckError("True is not a number here")
        every = typeguard.CollectionCheckStrategy.ALL_ITEMS
        typeguard.check_type(value, hint, collection_check_strategy=every)
    except typeguard.TypeCheckError as error:
        name = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        name = name.removesuffix(" | None")  # neither a command nor TOML has a word for None
        raise InvalidTypeError(f"{what} must be {name}, got {value!r}") from error
    return float(value) if hint is float else value

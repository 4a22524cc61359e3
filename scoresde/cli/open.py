"""Define options that may be left open (None), and are chosen when the data have been loaded."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass, replace
from typing import Annotated, Any, ClassVar, Self

import tyro

__all__ = ["PLAIN", "SHARES", "Open", "opened"]

_WORD = "auto"
_ANSWERS = {"yes": True, "no": False}
_WORDS = {"None": "none", "": "none", "False": "no", "True": "yes"}


def plainly(default: str) -> str:
    """Return the text by which the help shows a default, in plain words.

    Examples:
        >>> print(plainly("20000"), plainly("False"), plainly("0.0"))
        (default: 20,000) (default: no) (default: 0)
    """
    try:
        text = f"{int(default):,}"
    except ValueError:
        try:
            text = f"{float(default):g}"
        except ValueError:
            text = _WORDS.get(default, default)
    return f"(default: {text})"


PLAIN = tyro.conf.arg(help_behavior_hint=plainly)
"""The annotation of an option whose default is shown in plain words."""


@dataclass(frozen=True, kw_only=True)
class Open:
    """Hold the options of a configuration, some of which may be open.

    It is the base class of the classes that `opened` makes. An option whose name is in `may` is
    open if its value is None. Options that are not open are checked when an object is made.
    """

    base: ClassVar[Any]
    may: ClassVar[frozenset[str]]

    def __post_init__(self) -> None:
        whole = self.over(self.base)
        for name, value in self._given().items():
            if not isinstance(value, Open):
                object.__setattr__(self, name, getattr(whole, name))

    def _given(self) -> dict[str, Any]:
        """Return the options that are not open."""
        every = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: value for k, value in every.items() if value is not None or k not in self.may}

    @classmethod
    def of(cls, whole: Any) -> Self:
        """Return options with the values of a configuration; none is open."""
        values = {f.name: getattr(whole, f.name) for f in fields(cls)}
        parts = {f.name: f.default for f in fields(cls) if isinstance(f.default, Open)}
        return cls(**values | {name: part.of(values[name]) for name, part in parts.items()})

    def over(self, chosen: Any) -> Any:
        """Return a configuration with these values, and the values of `chosen` for open options."""
        return replace(
            chosen,
            **{
                name: value.over(getattr(chosen, name)) if isinstance(value, Open) else value
                for name, value in self._given().items()
            },
        )

    def filled(self, chosen: Any) -> Self:
        """Return the options, with the values of `chosen` for open options."""
        return self.of(self.over(chosen))

    def open(self) -> set[str]:
        """Return the names of the open options, including the open options of the parts."""
        found = {name for name in self.may if getattr(self, name) is None}
        parts = [getattr(self, f.name) for f in fields(self)]
        return found.union(*(part.open() for part in parts if isinstance(part, Open)))


def opened(name: str, base: Any, may: Mapping[str, Any], **parts: Any) -> Any:
    """Return a subclass of `Open` whose options are the fields of the configuration `base`.

    Args:
        name: The name of the class.
        base: A configuration; its values are the defaults of options that cannot be open.
        may: The options that may be open, by name. Each is given as an annotated type, or as a
            tuple of the type of a value, its metavar, and further annotations.
        parts: For each field that is a configuration itself, its class of options and an
            annotation.
    """
    kind = type(base)
    hints = typing.get_type_hints(kind, include_extras=True)
    known = []
    for f in fields(kind):
        if f.name in may:
            note = may[f.name]
            note = _annotated(*note) if isinstance(note, tuple) else note
            known.append((f.name, note, field(default=None)))
        elif f.name in parts:
            part, note = parts[f.name]
            known.append((f.name, Annotated[part, note], field(default=part())))
        else:
            value = getattr(base, f.name)
            known.append((f.name, Annotated[hints[f.name], PLAIN], field(default=value)))
    made = make_dataclass(
        name,
        known,
        bases=(Open,),
        frozen=True,
        kw_only=True,
        namespace={"base": base, "may": frozenset(may)},
    )
    made.__doc__ = kind.__doc__
    made.__module__ = __name__
    return made


def _shares_of(words: list[str]) -> float | dict[str, float] | None:
    if words == [_WORD]:
        return None
    if len(words) == 1:
        return float(words[0])
    return {name: float(share) for name, share in zip(words[::2], words[1::2], strict=True)}


def _shares_as_words(shares: float | dict[str, float] | None) -> list[str]:
    if isinstance(shares, dict):
        return [word for name, share in shares.items() for word in (name, f"{share:g}")]
    return [_WORD if shares is None else f"{shares:g}"]


SHARES = Annotated[
    float | dict[str, float] | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="auto|FLOAT|NAME FLOAT ...",
        instance_from_str=_shares_of,
        is_instance=lambda value: value is None or isinstance(value, float | dict),
        str_from_instance=_shares_as_words,
    ),
]
"""A share, or shares by name; None if it is open."""


def _annotated(kind: Any, metavar: str, *notes: Any) -> Any:
    """Return the annotated type of an option that is open if its word is auto."""
    several = typing.get_origin(kind) is tuple
    one = typing.get_args(kind)[0] if several else kind

    def read(words: list[str]) -> Any:
        if words == [_WORD]:
            return None
        if kind is bool:
            return _ANSWERS[words[0] if words else "yes"]
        try:
            values = tuple(one(word) for word in words)
        except ValueError as error:
            what = {int: "a whole number", float: "a number"}.get(one, "another value")
            raise ValueError(f"it takes {what} or auto, got {' '.join(words)!r}") from error
        return values if several else values[0]

    def shown(value: Any) -> list[str]:
        if value is None:
            return [_WORD]
        if kind is bool:
            return ["yes" if value else "no"]
        return [str(v) for v in value] if several else [str(value)]

    spec = tyro.constructors.PrimitiveConstructorSpec(
        nargs="*" if several or kind is bool else 1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, tuple if several else one),
        str_from_instance=shown,
    )
    return Annotated[(kind | None, spec, *notes)]

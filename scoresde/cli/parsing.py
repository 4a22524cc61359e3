"""Parse the words of a command by tyro, with the options that every command has."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import tyro

from scoresde.cli.helptext import explained
from scoresde.cli.terminal import MisreadError
from scoresde.errors import UnknownNameError

__all__ = ["Command", "General", "options_of", "parse"]

_COLUMNS = 20


class Command(Protocol):
    """Define a command with its options."""

    def run(self) -> None:
        """Run the command."""


@dataclass(frozen=True)
class General:
    """Hold the options that every command has."""

    device: Annotated[
        str | None,
        tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: a GPU, else the CPU)"),
    ] = None
    """Where networks run: cpu, cuda, cuda:1, mps ..."""
    quiet: Annotated[
        bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(aliases=["-q"], help_behavior_hint="")
    ] = False
    """Print only results, warnings and errors."""


def parse(name: str, kind: Any, words: Sequence[str]) -> tuple[Command, General]:
    """Return a command and the options that every command has.

    Args:
        name: The name of the command.
        kind: The dataclass of its options. If it has a method `usual`, `usual(words)` returns the
            default values, or None. If it has an attribute `bare`, such as "--data", this word may
            be written before the positional argument, and is removed.
        words: The words after the name.

    Raises:
        SystemExit: The words ask for help, or tyro reports an error of another kind.
        MisreadError: A value cannot be read or is not allowed, or an option is unknown or missing.
    """
    option = getattr(kind, "bare", None)
    words = [word.removeprefix(f"{option}=") for word in words if word != option]
    if {"--help", "-h"} & {*words}:
        explained(kind)
    usual = getattr(kind, "usual", lambda words: None)(words)
    whole = _whole(kind)
    default = None if usual is None else whole(command=usual, general=General())
    read = functools.partial(
        tyro.cli,
        whole,
        prog=f"scoresde {name}",
        description=inspect.getdoc(kind),
        args=words,
        default=tyro.MISSING_NONPROP if default is None else default,
    )
    with _VALUES, _readable_width():
        printed = io.StringIO()
        try:
            with contextlib.redirect_stderr(printed):
                found = read()
        except SystemExit as end:
            text = printed.getvalue()
            wrong = _wrong_value(text) or _wrong_option(name, kind, words, text)
            wrong = wrong if end.code else None
            if wrong is not None:
                raise MisreadError(wrong) from end
            if not end.code:
                raise
            found = read()  # again, so that tyro prints its error
    return found.command, found.general


@contextlib.contextmanager
def _readable_width() -> Iterator[None]:
    """Let tyro print for at least 20 columns in the block; for fewer it would never finish."""
    before = os.environ.get("COLUMNS")
    if shutil.get_terminal_size().columns >= _COLUMNS:
        yield
        return
    os.environ["COLUMNS"] = str(_COLUMNS)
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _wrong_value(text: str) -> str | None:
    """Return tyro's error about a wrong value as a sentence, or None for another error."""
    plain = " ".join(re.sub(r"[│╭╮╰╯─]|-{20,}", " ", text).split())
    plain = re.split(r" Argument helptext:| For full helptext", plain)[0]
    choice = re.search(
        r"invalid choice '(.*)' for argument '(.+)'. Expected one of \((.*)\)", plain
    )
    if choice is not None:
        value, option, listed = choice.groups()
        return str(UnknownNameError.of(option, value, re.findall(r"'([^']*)'", listed)))
    found = re.search(r"Error parsing (\S+): (.*)", plain)
    if found is None:
        return None
    name, reason = found.groups()
    if not name.startswith("-"):  # a part of the command that is not an option
        return reason
    return f"{name}{reason.removeprefix('it')}" if reason.startswith("it ") else f"{name}: {reason}"


def _wrong_option(name: str, kind: Any, words: Sequence[str], text: str) -> str | None:
    """Return a sentence about unknown or missing options, or None for another error."""
    options = options_of(kind)
    names = [word.partition("=")[0].replace("_", "-") for word in words]
    unknown = [word for word in names if word.startswith("--") and word not in options]
    helped = f"`scoresde {name} --help` lists the options"
    if unknown:
        hint = _hint(unknown[0].removeprefix("--"), options)
        return f"{unknown[0]} is not an option of scoresde {name}; {hint}{helped}"
    plain = re.sub(r"[│╭╮╰╯]", "", text)
    missing, _, odd = plain.partition("Unrecognized options")
    required = missing.partition("Missing from")[2]
    needed = re.findall(r"^\s+(--[a-z][\w-]*(?= \S)|[A-Z]{2,}(?=\s*$))", required, re.M)
    if found := re.search(r":\s+(\S+)", odd):
        option = needed[0] if needed else "--out" if "--out" in options else "--NAME"
        return (
            f"{found[1]!r} belongs to no option; write the option before it, as in "
            f"{option} {found[1]}: {helped}"
        )
    if needed:
        return f"scoresde {name} needs {' and '.join(needed)}; {helped}"
    return None


def _hint(word: str, options: Collection[str]) -> str:
    """Return a sentence about the option that an unknown word may mean, or an empty string.

    Examples:
        >>> _hint("epochs", ["--steps"])[:48]
        'give the length of a training as --steps, not in'
        >>> _hint("learning-rate", ["--lr"]), _hint("sampels", ["--samples"])
        ('did you mean --lr? ', 'did you mean --samples? ')
    """
    if word in ("epochs", "epoch", "max-epochs", "num-epochs") and "--steps" in options:
        return (
            "give the length of a training as --steps, not in epochs: N / --batch-size steps are "
            "one pass through N samples; "
        )
    bare = {option.removeprefix("--"): option for option in options}
    meant = [option for option, words in _MEANT.items() if word in words and option in bare]
    near = meant or difflib.get_close_matches(word, bare, n=1)
    return f"did you mean {bare[near[0]]}? " if near else ""


# Words that people write in place of the name of an option, and the option.
_MEANT = {
    "out": ("output", "outdir", "output-dir", "o", "save", "folder", "dest", "file"),
    "n": ("num-samples", "n-samples", "samples", "num", "count", "number"),
    "lr": ("learning-rate", "rate"),
    "data": ("dataset", "input", "input-dir", "train-data", "source"),
    "condition": ("conditions", "label", "labels", "target", "targets", "y", "given"),
    "class": ("label", "classes", "cls", "y"),
    "steps": ("iterations", "iters", "updates", "max-steps", "num-steps", "nfe"),
    "batch-size": ("batch", "bs"),
    "size": ("image-size", "resolution", "resize", "img-size"),
    "standardize": ("standardise", "normalize", "normalise", "rescale"),
    "held-out": ("val-split", "validation", "test-size", "val", "holdout"),
    "optimiser": ("optimizer", "optim"),
    "channels": ("width", "hidden", "dim", "features"),
    "device": ("gpu", "cuda", "cpu"),
    "net": ("model", "architecture", "arch"),
    "quiet": ("silent",),
    "guidance": ("cfg", "guidance-scale", "w"),
    "missing": ("dropna", "na"),
}


@functools.cache
def options_of(kind: Any) -> dict[str, list[str]]:
    """Return the long options of a command, each with a list of its choices.

    The list is empty if an option takes any value. The options are parsed from the output of
    `--help`.
    """
    printed = io.StringIO()
    with (
        _VALUES, _readable_width(),
        contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit),
    ):  # fmt: skip
        tyro.cli(_whole(kind), args=["--help"])
    text = re.sub(r"\x1b\[[\d;]*m|[│╭╮╰╯─]", "", printed.getvalue())
    found: dict[str, list[str]] = {}
    for part in re.split(r"\n\s*(?=--?[a-z])", text)[1:]:
        first, _, _ = part.partition("\n  " + 8 * " ")  # without the explanation
        choices = re.search(r"(?:(auto)\|)?\{([\w\s,-]*)\}", first)
        words = re.sub(r"\s", "", choices[2]).split(",") if choices else []
        words = ["auto", *words] if choices and choices[1] else words
        for name in re.findall(r"--[a-z][\w-]*", re.split(r"\s{2,}|\{", first)[0]):
            found[name] = words
    return found


@functools.cache
def _whole(kind: Any) -> Any:
    """Return one dataclass of a command and of the options that every command has."""
    bare = tyro.conf.arg(name="")
    return dataclasses.make_dataclass(
        kind.__name__,
        [
            ("command", Annotated[kind, bare]),
            ("general", Annotated[General, bare], General()),
        ],
        namespace={"__doc__": inspect.getdoc(kind)},
        frozen=True,
    )


def _rule(kind: type, what: str = "") -> Callable[..., Any]:
    """Return a rule by which tyro reads a value of type `kind` or `kind | None`, in plain words."""

    def read(words: list[str]) -> Any:
        try:
            return kind(words[0])
        except ValueError as error:
            raise ValueError(f"it takes {what}, got {words[0]!r}") from error

    def is_one(value: object) -> bool:
        whole = kind is float and type(value) is int
        return whole or (isinstance(value, kind) and not isinstance(value, bool))

    def rule(info: Any) -> Any:
        optional = info.type == (kind | None)
        if info.type is not kind and not optional:
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="TEXT" if kind is str else kind.__name__.upper(),
            instance_from_str=read,
            is_instance=lambda value: is_one(value) or (optional and value is None),
            str_from_instance=lambda value: ["none" if value is None else str(value)],
        )

    return rule


_VALUES = tyro.constructors.ConstructorRegistry()
for _kind, _what in {int: "a whole number", float: "a number", str: "", Path: ""}.items():
    _VALUES.primitive_rule(_rule(_kind, _what))

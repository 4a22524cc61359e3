"""Lines for people, where any are left to read them."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TextIO

__all__ = [
    "MisreadError",
    "hushed",
    "in_options",
    "open_closed",
    "say",
    "show",
    "silence",
    "tell",
    "then",
]


class MisreadError(Exception):
    """A value that cannot be read, or that is impossible."""


_HUSHED: ContextVar[bool] = ContextVar("hushed", default=False)


@contextmanager
def hushed(quiet: bool) -> Iterator[None]:
    """Within the block, where it is quiet, results, warnings and errors are printed alone."""
    from scoresde import progress  # which imports torch

    token = _HUSHED.set(quiet or _HUSHED.get())
    try:
        with progress.hidden() if quiet else nullcontext():
            yield
    finally:
        _HUSHED.reset(token)


def tell(line: str) -> None:
    """Print a line about the work on stdout, but for where it is to be quiet."""
    if not _HUSHED.get():
        say(line, sys.stdout)


def then(what: str, *words: object) -> None:
    """Tell which command may be next, in a line of its own that can be pasted into a shell.

    Args:
        what: What it does, as in "see samples".
        words: Its words after `scoresde`.
    """
    command = " ".join(shlex.quote(str(word)) for word in words)
    tell(f"next, to {what}:\n  scoresde {command}")


def say(line: str, file: TextIO) -> None:
    """Print a line about the work, which goes on where the line cannot be printed.

    As where a terminal was closed, the reader of a pipe has gone, or a disk is full.
    """
    try:
        print("\n".join(map(_harmless, line.split("\n"))), file=file, flush=True)
    except (OSError, ValueError):  # the latter of a stream that was closed
        silence(file)


def show(text: object) -> None:
    """Print lines that are the result of the work, whose words may be of a file.

    Raises:
        OSError: They cannot be printed.
    """
    for line in str(text).split("\n"):
        print(_harmless(line), flush=True)


def in_options(message: str, options: Mapping[str, Collection[str]]) -> str:
    """Return a message about arguments of Python's as one about options.

    Args:
        message: The message.
        options: The options, each with the words that it takes if they are few.

    Examples:
        >>> in_options("choose batch_size=8, or condition={'label': 'dog'}", {"--batch-size": []})
        'choose --batch-size 8, or --condition label=dog'
        >>> in_options("leave out weight, condition={'weight': ['weight']}", {"--weight": []})
        'leave out weight, --condition weight=weight,'
    """

    def spelt(found: re.Match[str]) -> str:
        name, sign, value = (part or "" for part in found.groups())
        option = name.replace("_", "-")
        if f"--{option}" not in options or not (sign or "_" in name):
            return found[0]
        if value in ("True", "False") and "yes" in options[f"--{option}"]:
            return f"--{option} {'yes' if value == 'True' else 'no'}"
        if value in ("True", "False"):
            return f"--{'' if value == 'True' else 'no-'}{option}"
        return f"--{option} {value.strip(_QUOTES)}".rstrip()

    message = _CONDITION.sub(lambda found: f"--condition {found[1]}={_listed(found[2])}", message)
    message = _ARGUMENT.sub(spelt, message)
    first = re.match(r"(\w+) must ", message)  # as in "n must be an integer"
    return f"--{message}" if first and f"--{first[1]}" in options else message


_QUOTES = "'\""
_CONDITION = re.compile(r"condition=\{'(\w+)': (\[[^]]*\]|'[^']*'|[^}]*)\}")
# not within a longer word, a path or quotes
_ARGUMENT = re.compile(
    r"(?<!--condition )(?<![\w./='\"`-])([a-z][a-z_]*)(?:(=)('[^']*'|[\w.+-]*\w)?)?(?![\w/=])"
)


def _listed(text: str) -> str:
    """Return `['a', 'b']` as `a,b`, and `['a']` as `a,`, which is a vector of one."""
    parts = [part.strip(f" {_QUOTES}") for part in text.strip("[]").split(",")]
    return ",".join(parts) + ("," if text.startswith("[") and len(parts) == 1 else "")


def _harmless(line: str) -> str:
    """Return a line without what terminals obey, or what cannot be written in UTF-8."""
    return "".join(c if c.isprintable() else "?" for c in line)


def silence(file: TextIO) -> None:
    """Let a stream lead nowhere, so that the interpreter can flush it at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    except (OSError, ValueError):
        return  # it is no stream of the system


def open_closed() -> None:
    """Let the standard streams that were closed lead nowhere: else a file would get their number.

    What is written to an error stream would then go into that file.
    """
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            file = os.open(os.devnull, flags)
            setattr(sys, name, open(file, "r" if name == "stdin" else "w"))  # noqa: SIM115

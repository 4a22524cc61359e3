"""Print lines to the terminal, unless the output is hidden; ignore a closed terminal."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TextIO
from weakref import WeakKeyDictionary

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
    """Report an option that is refused while options are parsed."""


# errors of streams that lost a line about the work and were then redirected to the null device
_FAILED: WeakKeyDictionary[TextIO, OSError] = WeakKeyDictionary()
_HUSHED: ContextVar[bool] = ContextVar("hushed", default=False)


@contextmanager
def hushed(quiet: bool) -> Iterator[None]:
    """Print only results, warnings and errors in the block, if `quiet`."""
    from scoresde import progress  # which imports torch

    token = _HUSHED.set(quiet or _HUSHED.get())
    try:
        with progress.hidden() if quiet else nullcontext():
            yield
    finally:
        _HUSHED.reset(token)


def tell(line: str) -> None:
    """Print a line about the work on stdout, unless `hushed` hides such lines."""
    if not _HUSHED.get():
        say(line, sys.stdout)


def then(what: str, *words: object) -> None:
    """Print a command that may be run next, in a line that can be pasted into a shell.

    Args:
        what: The purpose of the command, as in "see samples".
        words: The words after `scoresde`.
    """
    command = " ".join(shlex.quote(str(word)) for word in words)
    tell(f"next, to {what}:\n  scoresde {command}")


def say(line: str, file: TextIO) -> None:
    """Print a line about the work, and ignore errors of printing.

    Such errors occur if a terminal was closed, the reader of a pipe has ended, or a disk is full.
    """
    try:
        print(_harmless(line, file), file=file, flush=True)
    except (BrokenPipeError, ValueError):  # ValueError: the stream was closed
        silence(file)
    except OSError as error:
        _FAILED[file] = error
        silence(file)


def show(text: object) -> None:
    """Print lines that are the result of the work, without control characters.

    Raises:
        OSError: These lines or earlier ones cannot be printed.
    """
    try:
        if (earlier := _FAILED.get(sys.stdout)) is not None:
            raise earlier
        print(_harmless(str(text), sys.stdout), flush=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from error


def in_options(message: str, options: Mapping[str, Collection[str]]) -> str:
    """Return a message about Python arguments, rewritten for options of the command line.

    Args:
        message: The message.
        options: The options, each with the words that it accepts, if these words are few.

    Examples:
        >>> in_options("choose batch_size=8, or condition={'label': 'dog'}", {"--batch-size": []})
        'choose --batch-size 8, or --condition label=dog'
        >>> in_options("leave out weight, condition={'weight': ['weight']}", {"--weight": []})
        'leave out weight, --condition number:weight'
        >>> in_options("name them by sample=['a', 'b']", {"--sample": []})
        'name them by --sample a,b'
    """

    def option_of(found: re.Match[str]) -> str:
        name, sign, value = (part or "" for part in found.groups())
        option = name.replace("_", "-")
        if f"--{option}" not in options or not (sign or "_" in name):
            return found[0]
        if value in ("True", "False") and "yes" in options[f"--{option}"]:
            return f"--{option} {'yes' if value == 'True' else 'no'}"
        if value in ("True", "False"):
            return f"--{'' if value == 'True' else 'no-'}{option}"
        return f"--{option} {value.strip(_QUOTES)}".rstrip()

    if "--size" in options:
        message = _SIZE.sub(r"--size \1x\2", message)
    message = _CONDITION.sub(lambda found: _condition(found[1], _listed(found[2])), message)
    if "--sample" in options:
        message = _SAMPLE.sub(lambda found: f"--sample {_listed(found[1], '')}", message)
    message = _ARGUMENT.sub(option_of, message)
    first = re.match(r"(\w+) must ", message)  # as in "n must be an integer"
    return f"--{message}" if first and f"--{first[1]}" in options else message


_QUOTES = "'\""
_SIZE = re.compile(r"size=\((\d+), (\d+)\)")
_CONDITION = re.compile(r"condition=\{'(\w+)': (\[[^]]*\]|'[^']*'|[^}]*)\}")
_SAMPLE = re.compile(r"sample=(\[[^]]*\])")
# not within a longer word, a path or quotes
_ARGUMENT = re.compile(
    r"(?<!--condition )(?<![\w./='\"`-])([a-z][a-z_]*)(?:(=)('[^']*'|[\w.+-]*\w)?)?(?![\w/=])"
)


def _listed(text: str, alone: str = "number:") -> str:
    """Return `['a', 'b']` as `a,b`, and `['a']` as `number:a`, which is a vector of one entry."""
    parts = [part.strip(f" {_QUOTES}") for part in text.strip("[]").split(",")]
    return (alone if text.startswith("[") and len(parts) == 1 else "") + ",".join(parts)


def _condition(name: str, columns: str) -> str:
    """Return the option of a condition, without a name if it is the name of its only column."""
    same = columns.removeprefix("number:") == name
    return f"--condition {columns if same else f'{name}={columns}'}"


def _harmless(text: str, file: TextIO) -> str:
    """Return lines with `?` for control characters and those that the stream cannot encode."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    text = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return text.encode(encoding, "replace").decode(encoding)


def silence(file: TextIO) -> None:
    """Redirect a stream to the null device, so that the interpreter can flush it at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
    except (OSError, ValueError):
        return  # not a stream of the operating system


def open_closed() -> None:
    """Open the null device for standard streams that are closed.

    Otherwise the next opened file would get the number of a standard stream, and messages would be
    written into that file.
    """
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            file = os.open(os.devnull, flags)
            setattr(sys, name, open(file, "r" if name == "stdin" else "w"))  # noqa: SIM115

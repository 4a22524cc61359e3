"""Define the command line: `scoresde demo`, `train` and so on, with the terms of the Python API.

Every error is one line on stderr. The exit code is 0 on success, 1 after an error, 2 if there is no
such command or an option is refused while options are parsed, and 128 + the number of a signal that
ended the command.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from importlib import import_module
from types import MappingProxyType
from typing import Any

from scoresde.cli.overview import overview, unknown
from scoresde.cli.terminal import (
    MisreadError,
    hushed,
    in_options,
    open_closed,
    say,
    show,
    silence,
)
from scoresde.errors import InvalidValueError, ScoreSDEError

__all__ = ["COMMANDS", "main"]

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "demo": "demo.Demo",
        "train": "train.Train",
        "sample": "sample.Sample",
        "edit": "edit.Edit",
        "inpaint": "inpaint.Inpaint",
        "solve": "solve.Solve",
        "info": "info.Info",
        "likelihood": "likelihood.Likelihood",
        "bench samplers": "bench.Bench",
        "data check": "data.CheckData",
        "audit": "audit.Audit",
        "evaluate": "evaluate.Evaluate",
        "calibrate": "calibrate.Calibrate",
        "ema": "ema.Ema",
        "push": "push.Push",
        "suggest": "suggest.Suggest",
    }
)
"""The commands by name: a module of `scoresde.cli` and a dataclass in it with a method `run`."""


_KIND: ContextVar[Any] = ContextVar("kind", default=None)  # the class of the running command


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: The words of the command; by default the words given in the shell.

    Returns:
        The exit code. An unknown command, and options refused while they are parsed, end in
        `SystemExit(2)`; SIGTERM or SIGHUP during training end in `SystemExit(143)` or
        `SystemExit(129)`.
    """
    open_closed()
    _KIND.set(None)
    try:
        _run(sys.argv[1:] if args is None else list(args))
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        _say(str(error) or "interrupted")
        return 130
    except MisreadError as error:
        _say(str(error), "error")
        raise SystemExit(2) from error
    except BrokenPipeError:
        silence(sys.stdout)  # the program that reads the pipe has ended
        return 1
    except Exception as error:
        if os.environ.get("SCORESDE_DEBUG") == "1":
            raise
        kind = "" if isinstance(error, ScoreSDEError) else f"{type(error).__name__}: "
        if kind and isinstance(error, OSError) and error.filename:
            kind, error = "", OSError(f"cannot use {str(error.filename)[:200]}: {error.strerror}")
        _say(f"{kind}{error}", "error")
        return 1
    return 0


def _run(words: Sequence[str]) -> None:
    """Run the command of these words, or print the list of commands or the version.

    The list needs no torch, which takes a second to import.
    """
    _check_empty(words)
    if words in (["--help"], ["-h"], ["help"]):
        show(overview())
    elif words == ["--version"]:
        show(f"scoresde {import_module('scoresde').__version__}")
    elif words[:1] == ["completion"]:
        from scoresde.cli.completion import completion

        show(completion(words[1:], {name: _command(name) for name in COMMANDS}))
    elif not words:
        say(overview(), sys.stderr)
        raise SystemExit(2)
    else:
        _run_command(*_ordered(words))


def _run_command(name: str, rest: Sequence[str]) -> None:
    """Run a command with the words after its name, in all processes of `torchrun`."""
    from scoresde import distributed
    from scoresde.cli.parsing import parse

    with warnings.catch_warnings(), distributed.group(), _main_prints(distributed.is_main()):
        kind = _command(name)
        _KIND.set(kind)
        command, general = parse(name, kind, rest)
        with distributed.on(general.device), hushed(general.quiet):
            command.run()


def _check_empty(words: Sequence[str]) -> None:
    """Raise InvalidValueError for an empty word, as from an unset variable of the shell."""
    for word in words:
        name, sign, value = word.partition("=")
        if not word or (name.startswith("--") and sign and not value):
            raise InvalidValueError(
                f"{name or 'a word of the command'} is empty, and an empty path would mean the "
                "current folder; write '.' for that folder"
            )


def _ordered(words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the name of the command and its options, including options given before the name."""
    rest = list(words)
    before: list[str] = []
    while rest[:1] and rest[0].startswith("-"):
        if rest[0].partition("=")[0] not in ("--device", "--quiet", "-q"):
            break
        count = 2 if rest[0] == "--device" else 1  # a name comes after it
        before += rest[:count]
        del rest[:count]
    if rest[:1] == ["help"]:
        rest = [*rest[1:], "--help"]
    for count in (1, 2):
        if (name := " ".join(rest[:count])) in COMMANDS:
            return name, [*rest[count:], *before]
    say(f"scoresde: error: {unknown(rest or before, COMMANDS)}", sys.stderr)
    raise SystemExit(2)


def _command(name: str) -> Any:
    module, _, kind = COMMANDS[name].partition(".")
    return getattr(import_module(f"scoresde.cli.{module}"), kind)


@contextmanager
def _main_prints(main: bool) -> Iterator[None]:
    """Let only the main process print and warn in the block; every process prints its errors."""
    if main:
        warnings.showwarning = lambda message, *_: _say(str(message), "warning")
        yield
    else:
        warnings.simplefilter("ignore")
        with redirect_stdout(None):
            yield


def _say(message: str, level: str = "") -> None:
    number = os.environ.get("RANK", "0")
    who = "scoresde:" if number == "0" else f"scoresde, process {number}:"
    text = " ".join(message.split())
    if (kind := _KIND.get()) is not None:
        from scoresde.cli.parsing import options_of

        text = in_options(text, options_of(kind))
    say(f"{who} {level}{': ' if level else ''}{text}", sys.stderr)

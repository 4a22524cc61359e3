"""The command line: `scoresde demo`, `train` and so on, in the words of the Python API.

Whatever goes wrong is one line on stderr. The exit code is 0 on success alone, 1 after an error,
2 for options that cannot be understood or are impossible, and 128 + the number of a signal that
ended the command.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scoresde import distributed
from scoresde.cli.terminal import open_closed, say, silence
from scoresde.errors import InvalidValueError, ScoreSDEError

if TYPE_CHECKING:
    from typing import Protocol

    class Command(Protocol):
        """A command with its options."""

        def run(self) -> None:
            """Carry out the command."""


__all__ = ["COMMANDS", "main"]

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "demo": "demo.Demo",
        "train": "train.Train",
        "sample": "sample.Sample",
        "edit": "edit.Edit",
        "info": "info.Info",
        "likelihood": "likelihood.Likelihood",
        "bench": "bench.Bench",
        "data": "data.CheckData",
        "audit": "audit.Audit",
        "evaluate": "evaluate.Evaluate",
        "calibrate": "calibrate.Calibrate",
        "ema": "ema.Ema",
        "push": "push.Push",
        "suggest": "suggest.Suggest",
    }
)
"""The commands by name: a module of `scoresde.cli` and a dataclass in it with a method `run`."""

_DESCRIPTION = """Score-based generative models through stochastic differential equations.
Start with `scoresde demo`; every command has a --help of its own."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: Its words; by default those that the shell gave.

    Returns:
        The exit code. Options that cannot be understood end in `SystemExit(2)`, and SIGTERM or
        SIGHUP during training in `SystemExit(143)` or `SystemExit(129)`.
    """
    open_closed()
    try:
        with warnings.catch_warnings(), distributed.group(), _one_voice():
            _parse(args).run()
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        _say(str(error) or "interrupted")
        return 130
    except BrokenPipeError:
        silence(sys.stdout)  # whoever read it has gone
        return 1
    except Exception as error:
        if os.environ.get("SCORESDE_DEBUG") == "1":
            raise
        kind = "" if isinstance(error, ScoreSDEError) else f"{type(error).__name__}: "
        _say(f"error: {kind}{error}")
        return 1
    return 0


def _parse(args: Sequence[str] | None) -> Command:
    import tyro

    words = sys.argv[1:] if args is None else list(args)
    for word in words:  # as of a variable of the shell that is not set
        name, sign, value = word.partition("=")
        if not word or (name.startswith("--") and sign and not value):
            raise InvalidValueError(
                f"{name or 'a word of the command'} is empty, and a path that is empty would be "
                "this folder; write '.' for that"
            )
    if words[:1] == ["train"]:
        train: Command = _command("train").parse(words[1:])  # its defaults may be in a file
        return train
    if words and words[0] in COMMANDS:  # the others are not imported
        one: Command = tyro.cli(_command(words[0]), prog=f"scoresde {words[0]}", args=words[1:])
        return one
    command: Command = tyro.extras.subcommand_cli_from_dict(
        {name: _command(name) for name in COMMANDS},
        prog="scoresde",
        description=_DESCRIPTION,
        args=words,
    )
    return command


def _command(name: str) -> Any:
    module, _, kind = COMMANDS[name].partition(".")
    return getattr(import_module(f"scoresde.cli.{module}"), kind)


@contextmanager
def _one_voice() -> Iterator[None]:
    """Among several processes number 0 speaks for all; only errors are told by each."""
    if distributed.is_main():
        warnings.showwarning = lambda message, *_: _say(f"warning: {message}")
        yield
    else:
        warnings.simplefilter("ignore")
        with redirect_stdout(None):
            yield


def _say(message: str) -> None:
    number = os.environ.get("RANK", "0")
    who = "scoresde:" if number == "0" else f"scoresde, process {number}:"
    say(f"{who} {' '.join(message.split())}", sys.stderr)

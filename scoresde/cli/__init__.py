"""The command line: `scoresde demo`, `train` and so on, in the words of the Python API.

Whatever goes wrong is one line on stderr. The exit code is 0 on success alone, 1 after an error,
2 for options that cannot be understood or are impossible, and 128 + the number of a signal that
ended the command.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

from scoresde import distributed
from scoresde.errors import ScoreSDEError

if TYPE_CHECKING:
    from typing import Protocol

    class Command(Protocol):
        """What is to be done, with its options."""

        def run(self) -> None:
            """Do it."""


__all__ = ["main"]

_DESCRIPTION = """Score-based generative models through stochastic differential equations.
Start with `scoresde demo`; every command has a --help of its own."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: Its words; by default those that the shell gave.

    Returns:
        The exit code. Options that cannot be understood end in `SystemExit(2)`, and SIGTERM during
        training in `SystemExit(143)`.
    """
    try:
        with warnings.catch_warnings(), distributed.group(), _one_voice():
            _parse(args).run()
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        _say(str(error) or "interrupted")
        return 130
    except BrokenPipeError:
        # whoever read our output has gone; nor can the interpreter flush it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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

    from scoresde.cli.audit import Audit
    from scoresde.cli.bench import Bench
    from scoresde.cli.data import CheckData
    from scoresde.cli.demo import Demo
    from scoresde.cli.ema import Ema
    from scoresde.cli.evaluate import Evaluate
    from scoresde.cli.info import Info
    from scoresde.cli.likelihood import Likelihood
    from scoresde.cli.push import Push
    from scoresde.cli.sample import Sample
    from scoresde.cli.suggest import Suggest
    from scoresde.cli.train import Train

    commands: dict[str, Callable[..., Command]] = {
        "demo": Demo,
        "train": Train,
        "sample": Sample,
        "info": Info,
        "likelihood": Likelihood,
        "bench": Bench,
        "data": CheckData,
        "audit": Audit,
        "evaluate": Evaluate,
        "ema": Ema,
        "push": Push,
        "suggest": Suggest,
    }
    words = sys.argv[1:] if args is None else list(args)
    if words[:1] == ["train"]:
        return Train.parse(words[1:])  # it may take its defaults from a file
    command: Command = tyro.extras.subcommand_cli_from_dict(
        commands,
        prog="scoresde",
        description=_DESCRIPTION,
        args=words,
    )
    return command


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
    print(who, " ".join(message.split()), file=sys.stderr)

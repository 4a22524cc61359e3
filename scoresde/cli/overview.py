"""Print the list of commands, and correct the name of an unknown command."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

__all__ = ["GROUPS", "MORE", "overview", "unknown"]

GROUPS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "begin": {
            "demo": "draw handwritten digits with the model of the package, in seconds",
            "data check": "find what would break a training with your data",
            "suggest": "choose noise levels, a network and training settings, with reasons",
            "train": "train a model of data; run the command again to resume",
        },
        "use a model": {
            "sample": "draw samples, as a picture or as numbers",
            "info": "describe a model or a run, and verify its files",
            "edit": "move data towards the distribution of a model",
            "inpaint": "draw the missing part of an image or an array",
            "solve": "draw samples that agree with a noisy linear measurement",
            "likelihood": "compute the log-density of data",
        },
        "test a model": {
            "evaluate": "compare samples with data that the model has not seen",
            "calibrate": "test the draws of a conditional model against held-out data",
            "audit": "test a model at every noise scale",
        },
        "further": {
            "ema": "make a model from another average of a run's weights",
            "push": "share a model on the Hugging Face Hub",
            "bench samplers": "measure the errors of samplers on problems with known answers",
            "completion": "print the script for completion in bash or zsh",
            "help": "print this list, or the help of a command",
        },
    }
)
"""The commands in groups, in the order of a user's work."""
MORE = ("completion", "help")
"""Commands that are not dataclasses of options."""


def overview() -> str:
    """Return the text of `scoresde --help`."""
    lines = [
        "usage: scoresde COMMAND [OPTIONS]",
        "",
        "Score-based generative models through stochastic differential equations.",
    ]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:16}{what}" for name, what in commands.items())]
    return "\n".join(
        [
            *lines,
            "",
            "every command:",
            "  --help          print its options",
            "  --quiet         print results, warnings and errors alone",
            "  --device NAME   run networks on cpu, cuda, cuda:1, mps ...",
            "",
            "scoresde --version prints the version. To begin: scoresde demo",
        ]
    )


def unknown(words: Sequence[str], commands: Iterable[str]) -> str:
    """Return the error for an unknown command, which suggests the most similar command."""
    word = words[0]
    if word.lower() == "-v":
        return f"{word!r} is not a command; did you mean `scoresde --version`?"
    if word.startswith("-"):
        hint = "options come after a command, as in `scoresde demo --n 16`"
        return f"{word[:100]!r} is not a command; {hint}"
    known = {part: name for name in (*commands, *MORE) for part in (name, *name.split())}
    known["version"] = "--version"
    near = difflib.get_close_matches(word[:100].lower(), known, n=1)
    hints = [f"did you mean `scoresde {known[name]}`?" for name in near]
    listed = "`scoresde help` lists the commands"
    return f"there is no command {word[:100]!r}; {' '.join([*hints, listed])}"

"""What the command line says before any command is chosen: the list of commands, and slips."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

__all__ = ["GROUPS", "MORE", "overview", "unknown"]

GROUPS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "begin": {
            "demo": "draw handwritten digits with the model of the package, in seconds",
            "data check": "say what would break a training on data, before it begins",
            "suggest": "choose noise levels and a sampler for data, each with its reason",
            "train": "train a model of data; the same command again resumes",
        },
        "use a model": {
            "sample": "draw samples, as a picture or as numbers",
            "info": "say what a model or a run is, and whether its files are whole",
            "edit": "make data more like what a model has learnt",
            "inpaint": "draw what is missing of an image or an array",
            "solve": "draw samples given a linear measurement of them",
            "likelihood": "say how probable a model finds data",
        },
        "judge a model": {
            "evaluate": "compare samples with data that the model has not seen",
            "calibrate": "test draws given a condition against data that have it",
            "audit": "say at which noise level a model is wrong",
        },
        "further": {
            "ema": "make a model of another average of a run's weights",
            "push": "share a model on the Hugging Face Hub",
            "bench samplers": "measure samplers where the exact answer is known",
            "completion": "print what lets a shell complete commands: bash or zsh",
            "help": "print this list, or what `COMMAND --help` says",
        },
    }
)
"""The commands by what they are for, in the order in which people need them."""
MORE = ("completion", "help")
"""Those that are words about the others."""


def overview() -> str:
    """Return what `scoresde --help` prints."""
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
    """Return the sentence about words that are no command, with the one that may be meant."""
    word = words[0]
    if word.lower() == "-v":
        return f"{word!r} is no command; did you mean `scoresde --version`?"
    if word.startswith("-"):
        return f"{word[:100]!r} is no command; options come after one, as in `scoresde demo --n 16`"
    spelt = {part: name for name in (*commands, *MORE) for part in (name, *name.split())}
    spelt["version"] = "--version"
    near = difflib.get_close_matches(word[:100].lower(), spelt, n=1)
    hints = [f"did you mean `scoresde {spelt[name]}`?" for name in near]
    listed = "`scoresde help` lists the commands"
    return f"there is no command {word[:100]!r}; {' '.join([*hints, listed])}"

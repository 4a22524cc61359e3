"""Write a script that lets bash or zsh complete the commands and options of `scoresde`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scoresde.checks import check_name
from scoresde.cli.parsing import options_of
from scoresde.errors import InvalidValueError

__all__ = ["completion"]

_SHELLS = {"bash": "", "zsh": "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"}
_SCRIPT = """{begin}_scoresde() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}"
  local command="${{COMP_WORDS[1]}}" words=""
  if [ "$COMP_CWORD" = 1 ]; then
    words="{commands}"
  else
    case "$command $prev" in
{values}
    esac
    if [ -z "$words" ]; then
      case "$cur" in
        -*)
          case "$command" in
{options}
          esac ;;
      esac
    fi
  fi
  COMPREPLY=( $(compgen -W "$words" -- "$cur") )
}}
complete -o bashdefault -o default -F _scoresde scoresde"""


def completion(words: Sequence[str], commands: Mapping[str, Any]) -> str:
    """Return a script that lets a shell complete commands, options and the values of options.

    Args:
        words: The name of the shell, "bash" or "zsh".
        commands: The dataclasses of the commands, by name.

    Raises:
        InvalidValueError: No shell is given.
        UnknownNameError: The shell is unknown.
    """
    if len(words) != 1:
        raise InvalidValueError(
            f"give a shell, as in `scoresde completion bash`: {', '.join(_SHELLS)}"
        )
    check_name("shell", words[0], _SHELLS)
    options, values = {}, {}
    for name, kind in commands.items():
        first, _, second = name.partition(" ")
        if second:
            values[f"{first} {first}"] = [second]
        found = options_of(kind)
        options[first] = [*found]
        values |= {f"{first} {option}": names for option, names in found.items() if names}
    firsts = [*options, "completion", "help"]
    values |= {"help help": [*options], "completion completion": [*_SHELLS]}
    return _SCRIPT.format(
        begin=_SHELLS[words[0]],
        commands=" ".join(firsts),
        values=_cases(values, 6),
        options=_cases(options, 12),
    )


def _cases(table: Mapping[str, Sequence[str]], indent: int) -> str:
    pad = " " * indent
    return "\n".join(f'{pad}"{key}") words="{" ".join(words)}" ;;' for key, words in table.items())

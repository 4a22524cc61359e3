"""Words of others in Markdown and in YAML, where they stay words."""

from __future__ import annotations

import json
import re

__all__ = ["block", "code", "licence_of", "plain", "quoted"]

_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+_-]{0,99}")
_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|!~$&:])")


def code(value: object) -> str:
    """Return a value in one line, as code, also within a table."""
    text = _line(value, 2_000).replace("|", "¦")  # no escape of a cell's end holds in all cases
    fence = _fence(text, 1)
    pad = " " if text[:1] == "`" or text[-1:] == "`" or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def plain(value: object) -> str:
    """Return a value in one line, without any marks but its own letters."""
    return _SIGNS.sub(r"\\\1", _line(value, 200))


def block(language: str, text: str) -> str:
    """Lines of code that no line of theirs can end."""
    fence = _fence(text, 3)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def quoted(text: str) -> str:
    """Return a word as YAML has it, of which none means anything else there."""
    return json.dumps(_line(text, 200), ensure_ascii=False)


def licence_of(value: object) -> str | None:
    """Return the name of a licence, or None where it can be none."""
    return value if isinstance(value, str) and _LICENCE.fullmatch(value) else None


def _line(value: object, most: int) -> str:
    text = " ".join(str(value).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= most else f"{text[:most]}..."


def _fence(text: str, least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)

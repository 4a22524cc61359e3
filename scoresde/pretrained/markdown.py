"""Escape untrusted text for Markdown and YAML."""

from __future__ import annotations

import json
import re

__all__ = ["block", "code", "licence_of", "plain", "quoted"]

_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+_-]{0,99}")
_SIGNS = re.compile(r"([\\`*_{}\[\]<>#|!~$&:])")


def code(value: object) -> str:
    """Return a value as inline code, which may stand in a table."""
    text = _line(value, 2_000).replace("|", "¦")  # in some Markdown tables | cannot be escaped
    fence = _fence(text, 1)
    pad = " " if text[:1] == "`" or text[-1:] == "`" or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def plain(value: object) -> str:
    """Return a value in one line, with all special characters of Markdown escaped."""
    return _SIGNS.sub(r"\\\1", _line(value, 200))


def block(language: str, text: str) -> str:
    """Return a code block with a fence that is longer than any fence in the text."""
    fence = _fence(text, 3)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def quoted(text: str) -> str:
    """Return a text as a quoted YAML string."""
    return json.dumps(_line(text, 200), ensure_ascii=False)


def licence_of(value: object) -> str | None:
    """Return the value if it can be the name of a licence, else None."""
    return value if isinstance(value, str) and _LICENCE.fullmatch(value) else None


def _line(value: object, most: int) -> str:
    text = " ".join(str(value).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= most else f"{text[:most]}..."


def _fence(text: str, least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)

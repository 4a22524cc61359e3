"""Give the options of a command their docstrings as help, each as one line."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import textwrap
import typing
from typing import Annotated, Any

import tyro

__all__ = ["docstrings", "explained"]


@functools.cache
def explained(kind: Any) -> None:
    """Annotate the fields of a dataclass, and of dataclasses in it, with their docstrings.

    Each docstring becomes one line, since tyro would keep its line breaks, and the lines of the
    help would have different lengths.
    """
    for one in kind.__mro__:
        if not dataclasses.is_dataclass(one):
            continue
        own = one.__annotations__  # the dictionary itself, which is changed
        hints = typing.get_type_hints(one, include_extras=True)
        for name, text in docstrings(one).items():
            if name in own:
                own[name] = Annotated[hints[name], tyro.conf.arg(help=text)]
    for hint in typing.get_type_hints(kind).values():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            explained(hint)


def docstrings(kind: Any) -> dict[str, str]:
    """Return the docstrings below the fields of a class, each as one line."""
    try:
        source = inspect.getsource(kind)
    except (OSError, TypeError):  # a class that was made at run time
        return {}
    (tree,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found

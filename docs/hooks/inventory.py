"""mkdocs hook: a build fails when a public name of scoresde is on no page."""

import importlib
import inspect
import pkgutil
import zlib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

import scoresde


def public_names() -> set[str]:
    """The dotted name of everything that scoresde and its modules export."""
    modules = [scoresde]
    for info in pkgutil.iter_modules(scoresde.__path__, "scoresde."):
        if not info.name.endswith("__main__"):
            modules.append(importlib.import_module(info.name))
    return {
        f"{module.__name__}.{name}"
        for module in modules
        for name in getattr(module, "__all__", [])
        if not inspect.ismodule(getattr(module, name))  # a module is a page
    }


def on_post_build(config: MkDocsConfig) -> None:
    """Look every public name up in the inventory of what mkdocstrings wrote."""
    inventory = (Path(config.site_dir) / "objects.inv").read_bytes()
    lines = zlib.decompress(inventory.split(b"\n", 4)[4]).decode().splitlines()
    missing = public_names() - {line.split()[0] for line in lines}
    if missing:
        raise PluginError(f"public names on no page: {', '.join(sorted(missing))}")

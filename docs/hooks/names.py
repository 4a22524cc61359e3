"""mkdocs hook: write the lists of public names on the API pages.

Four lines of a page are replaced, `MODULE` being a package such as `scoresde.samplers`:

- `::: table MODULE NAME NAME ...` by a table of the module's names that the page documents, or of
  all of them where it documents none, these first, with the first line of each docstring;
- `::: index MODULE NAME NAME ...` by a table of just these names, for a package that has several
  pages, with the strings that `SAMPLERS` has for each;
- `::: each MODULE NAME NAME ...` by the documentation of these names, in this order;
- `::: rest MODULE` by that of the public names that no `each` of the page has, under "More".

A name that `each` or `index` misspells, or that stands twice, fails the build, as does a public
name that `index` lacks.
"""

import re
from functools import cache
from importlib import import_module
from types import ModuleType

import griffe
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from scoresde.sampling import SAMPLERS

LINE = re.compile(r"^::: (table|index|each|rest) (\S+) ?(.*)$", re.MULTILINE)


@cache
def package() -> griffe.Module:
    """Read the package without importing it."""
    loader = griffe.GriffeLoader(search_paths=["."], docstring_parser="google")
    module = loader.load("scoresde")
    loader.resolve_aliases(implicit=False, external=False)
    return module


def summary(module: str, name: str) -> str:
    """Return the first paragraph of a name's docstring, as one line."""
    docstring = package()[f"{module}.{name}".removeprefix("scoresde.")].docstring
    if docstring is None:
        raise PluginError(f"{module}.{name} has no docstring")
    return " ".join(docstring.value.split("\n\n")[0].split()).replace("|", "&#124;")


def entry(module: str, name: str) -> str:
    """Write the directive of mkdocstrings that documents a name."""
    lines = [f"::: {module}.{name}", "    options:", "      heading_level: 3"]
    return "\n".join([*lines, "      show_root_heading: true", "      show_root_toc_entry: true"])


class Names:
    """The public names of a module, and those that a page puts into an order."""

    def __init__(self, module: str, lines: list[tuple[str, str, str]]):
        own = [(kind, words.split()) for kind, of, words in lines if of == module]
        self.module = module
        self.public: list[str] = list(import_module(module).__all__)
        self.chosen = [name for kind, names in own if kind == "each" for name in names]
        self.listed = [name for kind, names in own if kind == "index" for name in names]
        self.others = [name for name in self.public if name not in self.chosen]
        self.all_shown = not self.chosen or any(kind == "rest" for kind, _ in own)

    def check(self, page: str) -> None:
        """Raise an error for a name that is not public, that is missing, or that stands twice."""
        for names in (self.chosen, self.listed):
            twice = {name for name in names if names.count(name) > 1}
            missing = set(self.public) - set(names) if names is self.listed and names else set()
            if wrong := twice | missing | set(names) - set(self.public):
                raise PluginError(f"{page}: {self.module} {', '.join(sorted(wrong))}")

    def link(self, name: str) -> str:
        """Write a link to the documentation of a name, or to the page of a module."""
        thing = getattr(import_module(self.module), name)
        return f"({name}.md)" if isinstance(thing, ModuleType) else f"[{self.module}.{name}]"

    def table(self, first: list[str]) -> str:
        """Write a row for each name."""
        if wrong := set(first) - set(self.public):
            raise PluginError(f"{self.module}: no public name {', '.join(sorted(wrong))}")
        names = self.chosen + (self.others if self.all_shown else [])
        names = [*first, *(name for name in names if name not in first)]
        rows = [f"| [`{name}`]{self.link(name)} | {summary(self.module, name)} |" for name in names]
        return "\n".join(["| Name | |", "| --- | --- |", *rows])

    def index(self, names: list[str]) -> str:
        """Write a row for each name, with the strings that mean a sampler of this class."""
        rows = ["| Class, strings | |", "| --- | --- |"]
        for name in names:
            strings = [f'`"{key}"`' for key, s in SAMPLERS.items() if type(s).__name__ == name]
            cell = f"[`{name}`]{self.link(name)}{'<br>' if strings else ''}{', '.join(strings)}"
            rows.append(f"| {cell} | {summary(self.module, name)} |")
        return "\n".join(rows)

    def rest(self) -> str:
        """Write the documentation of the names that have no place of their own."""
        heading = ["## More"] if self.chosen and self.others else []
        return "\n\n".join([*heading, *(entry(self.module, name) for name in self.others)])


def on_page_markdown(markdown: str, page: Page, config: object, files: Files) -> str:
    """Replace the four lines."""
    lines = LINE.findall(markdown)
    named = {module: Names(module, lines) for _, module, _ in lines}
    for names in named.values():
        names.check(page.file.src_path)

    def written(match: re.Match[str]) -> str:
        kind, module, words = match.groups()
        if kind == "each":
            return "\n\n".join(entry(module, name) for name in words.split())
        if kind == "rest":
            return named[module].rest()
        of = named[module]
        return (of.table if kind == "table" else of.index)(words.split())

    return LINE.sub(written, markdown)

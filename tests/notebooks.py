"""Run the notebooks of the examples and write them as pages, with the output of their cells.

`python tests/notebooks.py` writes `docs/notebooks/NAME.md`, its pictures, and the notebook itself,
which a reader may download. The tests compare the code of page and notebook, and run the notebook.
"""

from __future__ import annotations

import base64
import html
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BOOKS = sorted((ROOT / "examples/notebooks").glob("*.ipynb"))
PAGES, ASSETS = ROOT / "docs/notebooks", ROOT / "docs/assets/notebooks"
IMAGE = re.compile(r'<img[^>]*src="data:image/png;base64,([^"]+)"[^>]*>')


def cell_source(cell: Any) -> str:
    """Return the source of a cell as it stands in the page."""
    source: str = cell.source.rstrip()
    return f"```python\n{source}\n```" if cell.cell_type == "code" else source


class Page:
    """Write the cells of a notebook that was run as Markdown, and their pictures as files."""

    def __init__(self, name: str) -> None:
        self.name, self.count, self.about = name, 0, ""

    def parts(self, cells: list[Any]) -> Iterator[str]:
        """Yield the blocks of the page."""
        for i, cell in enumerate(cells):
            yield cell_source(cell)
            if cell.cell_type == "markdown":
                self.about = re.sub(r"[#*$\\]", "", cell.source).strip().split("\n\n")[-1]
            if i == 0:
                yield (
                    f"This page is a notebook as it was run: [download it](../assets/notebooks/"
                    f"{self.name}.ipynb), or take `examples/notebooks/{self.name}.ipynb`."
                )
            for output in cell.get("outputs", []):
                yield from self.shown(output)

    def shown(self, output: Any) -> Iterator[str]:
        """Yield what an output shows; bars of progress are left out."""
        if output.output_type == "stream":
            if output.name == "stdout":
                yield _fenced(output.text)
            return
        if output.output_type == "error":
            raise RuntimeError(f"a cell of {self.name} fails: {output.evalue}")
        data = output.data
        if "image/png" in data:
            yield self.picture(data["image/png"])
        elif "text/html" in data:
            page = data["text/html"]
            for text in re.findall(r"<pre[^>]*>(.*?)</pre>", page, re.DOTALL):
                yield _fenced(html.unescape(re.sub("<[^>]+>", "", text)))
            if "<table" in page:
                yield "\n".join(filter(str.strip, IMAGE.sub("", page).splitlines()))
            for picture in IMAGE.findall(page):
                yield self.picture(picture)
        else:
            yield _fenced(data["text/plain"])

    def picture(self, encoded: str) -> str:
        """Write a picture, and return the line that shows it."""
        self.count += 1
        path = ASSETS / f"{self.name}-{self.count}.png"
        path.write_bytes(base64.b64decode(encoded))
        about = beginning(self.about)
        return f"![What the cell above shows. {about}](../assets/notebooks/{path.name})"


def beginning(text: str, most: int = 200) -> str:
    """Return the first sentences of a text, at most so many characters, but one whole sentence."""
    first, *others = re.split(r"(?<=[.?!]) (?=[A-Z`])", " ".join(text.split()))
    for sentence in others:
        if len(first) + 1 + len(sentence) > most:
            break
        first = f"{first} {sentence}"
    return first.rstrip(".")


def _fenced(text: str) -> str:
    return f"```output\n{text.rstrip()}\n```"


def main(names: list[str]) -> None:
    """Run these notebooks, or all, and write their pages."""
    import nbclient
    import nbformat

    ASSETS.mkdir(parents=True, exist_ok=True)
    PAGES.mkdir(parents=True, exist_ok=True)
    for book in [book for book in BOOKS if not names or book.stem in names]:
        notebook = nbformat.read(book, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            nbclient.NotebookClient(
                notebook, timeout=600, resources={"metadata": {"path": folder}}
            ).execute()
        for old in ASSETS.glob(f"{book.stem}-*.png"):
            old.unlink()
        parts = Page(book.stem).parts(notebook.cells)
        (PAGES / f"{book.stem}.md").write_text("\n\n".join(parts) + "\n")
        shutil.copy(book, ASSETS / book.name)


if __name__ == "__main__":
    main(sys.argv[1:])

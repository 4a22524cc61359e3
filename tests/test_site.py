"""Test the notebooks and the menu of versions on the site."""

import importlib.util
import json
import subprocess
import sys

import nbformat
import pytest
from notebooks import ASSETS, BOOKS, PAGES, ROOT, Page, beginning, cell_source


@pytest.mark.parametrize("book", BOOKS, ids=lambda path: path.stem)
def test_the_page_of_a_notebook_has_its_cells_in_order_and_offers_the_same_file(book):
    page = (PAGES / f"{book.stem}.md").read_text()
    assert f"notebooks/{book.stem}.md" in (ROOT / "mkdocs.yml").read_text()
    at = 0
    for cell in nbformat.read(book, as_version=4).cells:
        at = page.index(cell_source(cell), at)  # an error if it is not below the one before
    assert (ASSETS / book.name).read_bytes() == book.read_bytes()
    pictures = {path.name for path in ASSETS.glob(f"{book.stem}-*.png")}
    assert all(f"assets/notebooks/{name})" in page for name in pictures)
    assert page.count(".png)") == len(pictures) > 2


def test_the_description_of_a_picture_ends_with_a_sentence():
    assert (
        beginning("Is it 1.2 m?\nThe ball lands. It rolls.", most=28)
        == "Is it 1.2 m? The ball lands"
    )
    assert beginning("A long sentence. Another.", most=5) == "A long sentence"


def test_a_page_shows_what_a_cell_printed_and_drew_and_no_bars(tmp_path, monkeypatch):
    monkeypatch.setattr("notebooks.ASSETS", tmp_path)
    cell = nbformat.v4.new_code_cell("x")
    show, image = nbformat.v4.new_output, '<img src="data:image/png;base64,aGk=">'
    cell.outputs = [
        show("stream", name="stderr", text="50 %"),
        show("stream", name="stdout", text="a < b\n"),
        show("display_data", {"text/html": f"<pre>1 &lt; 2</pre>{image}"}),
        show("execute_result", {"text/plain": "3"}),
    ]  # fmt: skip
    text = "\n\n".join(Page("it").parts([nbformat.v4.new_markdown_cell("# A $title$"), cell]))
    fences = ["```python\nx\n```", *(f"```output\n{what}\n```" for what in ("a < b", "1 < 2"))]
    assert all(fence in text for fence in fences)
    assert "![What the cell above shows. A title](../assets/notebooks/it-1.png)" in text
    assert text.endswith("```output\n3\n```")
    assert "50 %" not in text
    assert (tmp_path / "it-1.png").read_bytes() == b"hi"
    cell.outputs = [show("error", ename="E", evalue="broken", traceback=[])]
    with pytest.raises(RuntimeError, match="broken"):
        list(Page("it").parts([cell]))


def test_the_menu_of_versions_begins_with_the_newest_release(tmp_path):
    for name in ("v0.9", "v0.10.1", "latest", "assets"):
        (tmp_path / name).mkdir()
    subprocess.run([sys.executable, ROOT / ".ci/versions.py", tmp_path], check=True)
    found = json.loads((tmp_path / "versions.json").read_text())
    assert [one["version"] for one in found] == ["v0.10.1", "v0.9", "latest"]
    assert "url=v0.10.1/" in (tmp_path / "index.html").read_text()


def test_code_in_a_cell_breaks_after_its_signs_and_nowhere_else():
    pytest.importorskip("mkdocs")  # of the extra docs
    spec = importlib.util.spec_from_file_location("breaks", ROOT / "docs/hooks/breaks.py")
    breaks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(breaks)
    cell = "<td><code>one.two_three(x=1)</code> a_b <code>_x</code></td>"
    page = f"<code>a_b</code><table>{cell}</table>"
    want = page.replace("one.two_three(x=1)", "one.<wbr>two_<wbr>three(<wbr>x=<wbr>1)")
    assert breaks.on_page_content(page, None, None, None) == want

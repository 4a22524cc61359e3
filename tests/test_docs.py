"""Every Python block of the README and the documentation runs, so none of them can grow stale."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if "```python" in path.read_text()
)


def run_blocks(path: Path) -> int:
    """Run the Python blocks of a page in one namespace; return how many there were."""
    text = path.read_text()
    namespace: dict[str, object] = {"__name__": "__main__"}
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        above = text[: block.start(1)].count("\n")
        # The blank lines make a traceback name the line of the page.
        exec(compile("\n" * above + block[1], str(path), "exec"), namespace)
    return len(blocks)


@pytest.mark.global_rng  # pages sample without a seed, as their readers do
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_python_blocks_of_a_page_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_blocks(path) == path.read_text().count("```python")


def test_a_broken_block_is_noticed_at_its_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as failure:
        run_blocks(page)
    assert failure.traceback[-1].lineno + 1 == 8


def test_the_readme_holds_the_commands_that_ci_runs():
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    assert blocks[0].strip() == "pip install -e . && scoresde demo"
    assert blocks[1].strip() == "pip install -e '.[test]' && pytest"


CHAPTERS = sorted(path.stem for path in (ROOT / "examples/chapters").glob("[0-9]*.py"))


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_has_a_page_with_its_script_its_figure_and_what_it_printed(name):
    page = (ROOT / f"docs/chapters/{name}.md").read_text()
    assets = ROOT / "docs/assets/chapters"
    for part in (f"docs/assets/chapters/{name}.txt", f"examples/chapters/{name}.py"):
        assert f'--8<-- "{part}"' in page
    for figure in re.findall(r"\.\./assets/chapters/(\S+?)\)", page):
        assert figure.startswith(name)
        assert 0 < (assets / figure).stat().st_size < 600_000
    assert f"({name}.md)" in (ROOT / "docs/chapters/index.md").read_text()
    printed = (assets / f"{name}.txt").read_text()
    assert "wrote" in printed
    assert "Traceback" not in printed


def test_the_chapters_are_numbered_without_a_gap():
    assert [int(name[:2]) for name in CHAPTERS] == list(range(1, len(CHAPTERS) + 1))


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_reads_like_a_page(name):
    lines = (ROOT / f"examples/chapters/{name}.py").read_text().splitlines()
    assert 30 <= len(lines) <= 90


@pytest.mark.parametrize("name", ["common", "panels"])
def test_what_the_chapters_share_stays_short(name):
    assert len((ROOT / f"examples/chapters/{name}.py").read_text().splitlines()) <= 200

"""Test that every block of code in the README and the documentation runs."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from printed import same

import scoresde.cli

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(
    r"^```(python|bash)\n(.*?)^```$(?:\n\n```output\n(.*?)^```$)?", re.MULTILINE | re.DOTALL
)
# The README's commands are those of the whole check, and the chapters' loop takes minutes.
ELSEWHERE = {"README.md", "docs/chapters/index.md"}


def shell_runs_here(path: Path) -> bool:
    return path.is_relative_to(ROOT) and path.relative_to(ROOT).as_posix() not in ELSEWHERE


PAGES = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    if "```python" in path.read_text() or ("```bash" in path.read_text() and shell_runs_here(path))
    if path.parent.name != "notebooks"  # test_notebook.py runs these
)


def run_blocks(path: Path) -> list[tuple[re.Match[str], str]]:
    """Run the blocks of a page, Python in one namespace; return them with what they printed."""
    text = path.read_text()
    namespace: dict[str, object] = {"__name__": "__main__"}
    found = []
    for block in BLOCK.finditer(text):
        above = text[: block.start(2)].count("\n")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            if block[1] == "python":
                # The blank lines make a traceback name the line of the page.
                exec(compile("\n" * above + block[2], str(path), "exec"), namespace)
            elif shell_runs_here(path):
                run_commands(block[2])
        found.append((block, printed.getvalue()))
    return found


def run_commands(block: str) -> None:
    """Run the commands of a block, those of `scoresde` here, where all is imported already."""
    if "<<" in block:
        return shell(block)
    for line in block.replace("\\\n", " ").splitlines():
        program, *words = shlex.split(line)
        if program != "scoresde":
            shell(line)
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            assert scoresde.cli.main(words) == 0, line
    return None


def shell(commands: str) -> None:
    """Run commands as a reader does whose environment is this one."""
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        env={**os.environ, "PATH": here},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, f"{commands}\n{run.stdout}\n{run.stderr}"


@pytest.mark.long
@pytest.mark.global_rng  # pages sample without a seed
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = path.read_text()
    found = run_blocks(path)
    assert len(found) == text.count("```python") + text.count("```bash")
    assert text.count("```output") == sum(block[3] is not None for block, _ in found)
    for block, printed in found:
        assert block[3] is None or same(block[3], printed), f"{block[2]}printed\n{printed}"


def test_a_broken_block_is_noticed_at_its_line(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as failure:
        run_blocks(page)
    assert failure.traceback[-1].lineno + 1 == 8


@pytest.mark.parametrize(
    ("told", "printed", "wanted"),
    [
        ("mean 0.50 of 3", "mean  0.52 of 3\n", True),
        ("mean 0.50 of 3", "mean 0.50 of 4", False),
        ("mean 0.50", "mean 0.60", False),
        ("30 % less", "31 % less", True),
        ("mean 0.50", "spread 0.50", False),
        ("-1.8e-08", "2.0e-08", True),
    ],
)
def test_what_a_page_says_is_compared_with_what_its_code_prints(told, printed, wanted):
    assert same(told, printed) is wanted


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
    numbers = [int(name[:2]) for name in CHAPTERS if name[2] == "_"]  # 07b comes between
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_reads_like_a_page(name):
    lines = (ROOT / f"examples/chapters/{name}.py").read_text().splitlines()
    assert 30 <= len(lines) <= 90


@pytest.mark.parametrize("name", ["common", "panels"])
def test_what_the_chapters_share_stays_short(name):
    assert len((ROOT / f"examples/chapters/{name}.py").read_text().splitlines()) <= 200

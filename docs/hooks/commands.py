"""mkdocs hook: write all options of a command below its section of the page of the command line."""

import contextlib
import io
import os
import re
import textwrap

from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from scoresde.cli import COMMANDS, main


def helped(command: str) -> str:
    """Return what `scoresde COMMAND --help` prints, at 88 columns, its description folded too."""
    os.environ["COLUMNS"] = "88"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*command.split(), "--help"])
    lines = printed.getvalue().rstrip().splitlines()
    return "\n".join(line if len(line) <= 90 else textwrap.fill(line, 88) for line in lines)


def on_page_markdown(markdown: str, page: Page, config: object, files: Files) -> str:
    """Put the options at the end of each section whose heading is a command."""
    if page.file.src_path != "api/cli.md":
        return markdown
    head, *sections = re.split(r"^(?=## )", markdown, flags=re.MULTILINE)
    for i, section in enumerate(sections):
        command = section.split("\n", 1)[0].removeprefix("## ")
        if command in COMMANDS:
            text = "\n".join(f"    {line}".rstrip() for line in helped(command).splitlines())
            block = f'??? note "All options"\n\n    ```text\n{text}\n    ```\n\n'
            sections[i] = section.rstrip() + "\n\n" + block
    return head + "".join(sections)

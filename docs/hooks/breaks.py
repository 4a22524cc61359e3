"""mkdocs hook: let code in tables break after its signs, and not within a word."""

import re

from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

CODE = re.compile(r"(<td\b[^>]*>)(.*?)(</td>)", re.DOTALL)
WORDS = re.compile(r"(<code>)([^<]*)(</code>)")
SIGN = re.compile(r"(?<=\w[_.=/\[(])(?=\w)")


def on_page_content(content: str, page: Page, config: object, files: Files) -> str:
    """Put a place to break after the signs within the code of each cell."""

    def code(found: re.Match[str]) -> str:
        return found[1] + SIGN.sub("<wbr>", found[2]) + found[3]

    return CODE.sub(lambda cell: cell[1] + WORDS.sub(code, cell[2]) + cell[3], content)

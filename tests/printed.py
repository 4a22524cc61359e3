"""Compare what the blocks of a page print with the output that the page shows.

A fence ```output below a block holds what it prints. `python tests/printed.py docs/quickstart.md`
runs the page and fills these fences; the tests compare them.
"""

import contextlib
import re
import sys
import tempfile
from pathlib import Path

NUMBER = re.compile(r"(?<![\w.])[-−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?")


def values(text: str) -> list[tuple[float, float]]:
    """Return the numbers of a text, each with how far another run may be from it."""
    found = []
    for match in NUMBER.finditer(text):
        word = match[0].replace("−", "-").replace(",", "")
        mantissa, _, exponent = word.partition("e")
        digits = len(mantissa.partition(".")[2])
        value, unit = float(word), 10.0 ** (int(exponent or 0) - digits)
        share = re.match(r" ?%", text[match.end() :])
        slack = (1.0 if share else 0.0) if unit == 1 else 0.1 * abs(value) + 2 * unit + 1e-5
        found.append((value, slack))
    return found


def same(told: str, printed: str) -> bool:
    """Whether two outputs have the same words, and numbers that differ by little.

    Networks that are trained for a moment differ in the last digits from one processor to another:
    a number with a fraction may be off by a tenth, two units of its last digit and 1e-5, a share
    in whole percent by 1, and other whole numbers not at all.
    """
    words = [" ".join(NUMBER.sub("#", text).split()) for text in (told, printed)]
    if words[0] != words[1]:
        return False
    pairs = zip(values(told), values(printed), strict=True)
    return all(abs(a - b) <= slack for (a, slack), (b, _) in pairs)


def main(names: list[str]) -> None:
    """Fill the fences of these pages."""
    from test_docs import run_blocks

    for path in [Path(name).resolve() for name in names]:
        text = path.read_text()
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            found = run_blocks(path)
        for block, printed in reversed(found):
            if block[3] is not None:
                text = text[: block.start(3)] + printed + text[block.end(3) :]
        path.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What the blocks of a page print, beside what the page says that they print.

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
    """Return the numbers of a text, each with the unit of its last digit."""
    found = []
    for word in NUMBER.findall(text):
        word = word.replace("−", "-").replace(",", "")
        mantissa, _, exponent = word.partition("e")
        digits = len(mantissa.partition(".")[2])
        found.append((float(word), 10.0 ** (int(exponent or 0) - digits)))
    return found


def same(told: str, printed: str) -> bool:
    """Whether two outputs have the same words, and numbers that differ by little.

    Networks that are trained for a moment differ in the last digits from one processor to another:
    a tenth of a number, two units of its last digit and 1e-5 are allowed where it has a fraction.
    """
    words = [" ".join(NUMBER.sub("#", text).split()) for text in (told, printed)]
    if words[0] != words[1]:
        return False
    for (a, unit), (b, _) in zip(values(told), values(printed), strict=True):
        if abs(a - b) > (0.0 if unit == 1 else 0.1 * max(abs(a), abs(b)) + 2 * unit + 1e-5):
            return False
    return True


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

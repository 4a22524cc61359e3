"""Test that each law of docs/laws.md names its tests, and the tests name the law."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest
import wrong

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/laws.md"


def promised() -> dict[int, set[str]]:
    """Return the tests that the page names for each law."""
    rows = re.findall(r"^\| L(\d+) \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    numbers = [int(number) for number, _ in rows]
    assert numbers == sorted(set(numbers))
    return {
        int(number): {f"{file}:{name}" for file, name in re.findall(r"`(\w+)`: `(\w+)`", row)}
        for number, row in rows
    }


def held() -> dict[int, set[str]]:
    """Return the tests that carry the number of a law."""
    found = defaultdict(set)
    for path in TESTS.glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            for mark in getattr(node, "decorator_list", []):
                if ast.unparse(mark).startswith("pytest.mark.law("):
                    name = f"{path.stem}:{node.name}".replace("test_", "")
                    for number in mark.args:
                        found[number.value].add(name)
    return dict(found)


@pytest.mark.slow
def test_every_law_names_the_tests_that_carry_its_number():
    assert promised() == held()
    assert all(held().values())


def test_every_wrong_factor_of_the_page_has_its_fault():
    shown = re.findall(r"^\| L(\d+) \|.*× `1 \+ \S+` \|$", PAGE.read_text(), re.MULTILINE)
    assert {int(number) for number in shown} == wrong.WRONG.keys()
    for law in wrong.WRONG:
        assert 0 < wrong.promised(law) <= 1

"""Test that charts of the documentation are drawn from its tables, by docs/hooks/charts.py."""

import importlib.util
import re
from pathlib import Path

import pytest

exceptions = pytest.importorskip("mkdocs.exceptions")  # of the extra `docs`

spec = importlib.util.spec_from_file_location(
    "charts", Path(__file__).parent.parent / "docs/hooks/charts.py"
)
charts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(charts)

TABLE = """| name | n | value | other |
| --- | --- | --- | --- |
| `"a"` | 1 | **.5** [.25, 1.0] | 2 |
| | 2 | 1.5 | |
"""
LINES = """| name | 10 | 1,000 | text |
| --- | --- | --- | --- |
| "a" | 1e-2 [1e-3, .1] | −1 | x |
| b | .5 | 1 | y |
"""


def places(drawn, kind):
    return [
        (float(x), float(y)) for x, y in re.findall(rf'class="{kind}" cx="(.*?)" cy="(.*?)"', drawn)
    ]


def test_an_empty_first_cell_repeats_the_one_above():
    assert charts.read(TABLE)[1:] == [["a", "1", ".5 [.25, 1.0]", "2"], ["a", "2", "1.5", ""]]


@pytest.mark.parametrize(
    ("cell", "low", "wanted"),
    [
        ("1,200 [−3, 2e4]", "", (1200, -3, 2e4)),
        ("12 %", "", (12, 12, 12)),
        (".5", ".25", (0.5, 0.25, 0.5)),
        (".5", "[.25, 1]", (0.5, 0.25, 1)),
    ],
)
def test_a_cell_is_a_number_with_its_interval(cell, low, wanted):
    mark = charts.mark(0, cell, low)
    assert (mark.value, mark.low, mark.high) == wanted


def test_marks_stand_at_their_numbers():
    drawn = charts.chart('dots columns="value;other" names="name;n" title="t" from=0 to=2', TABLE)
    marks = places(drawn, "s0")[1:]  # the first is that of the legend
    left, right = (x for x, _ in marks)
    ((end, _),) = places(drawn, "s1")[
        1:
    ]  # 2 is the end of the axis, and the empty cell has no mark
    assert right - left == pytest.approx((end - left) * 1.0 / 1.5, abs=0.2)
    assert "a, 1" in drawn
    assert "a, 2" in drawn


def test_curves_run_over_the_columns_that_are_numbers():
    drawn = charts.chart('lines title="t" rows="b;a"', LINES)
    assert len(places(drawn, "s0")) == 3  # the legend and two columns
    assert "1,000" in drawn


@pytest.mark.parametrize("words", ['dots columns="none" title="t"', 'lines rows="c" title="t"'])
def test_what_the_table_has_not_fails_the_build(words):
    with pytest.raises(exceptions.PluginError):
        charts.chart(words, LINES)

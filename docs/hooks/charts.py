"""mkdocs hook: draw tables, so that a figure and its numbers cannot differ.

A line of a page such as

    ::: chart dots columns="published; pc" ref=0 title="..." by="python ..." at="4e1c2d3"

draws the next table of the page in its place, as an SVG in the page's own colours. `dots` gives
each row a line and each named column a mark; `lines` gives each row (or those of `rows`) a curve
over the columns whose headings are numbers. A cell is a number, with an interval where it goes on
with `[low, high]`. Options of `dots`: `low` is a column of intervals or of their lower ends,
`names` the columns that name a row (rows of one name share a line), `from` and `to` cut the axis,
and `log` makes it logarithmic, as it does for `lines`. `by` is the command that made the numbers,
and `at` the commit that brought them.
"""

import html
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

LINE = re.compile(r"^::: chart (.+)$", re.MULTILINE)
TABLE = re.compile(r"(?:^ *\|.*\|\n)+", re.MULTILINE)
NUMBER = r"[-−]?(?:\d[\d,]*)?\.?\d+(?:e[-+]?\d+)?"
CELL = re.compile(rf"({NUMBER})(?: ?%)?(?: \[({NUMBER}), ({NUMBER})\])?")
WIDTH, ROW, LETTER = 500, 21, 6.7


@dataclass(frozen=True)
class Mark:
    """A number with its interval, and where it stands on the other axis."""

    place: float
    value: float
    low: float
    high: float


def plain(text: str) -> str:
    """Return the text of a cell without the signs of Markdown."""
    return re.sub(r"[`*\"]", "", text).strip()


def number(text: str) -> float:
    """Return a number as the tables write it."""
    return float(text.replace("−", "-").replace(",", ""))


def read(table: str) -> list[list[str]]:
    """Return the rows of a table, headings first; an empty first cell repeats the one above."""
    rows = [[plain(cell) for cell in line.strip()[1:-1].split("|")] for line in table.splitlines()]
    rows = [row for row in rows if not all(set(cell) <= set("-: ") and cell for cell in row)]
    for above, row in pairwise(rows[1:]):
        row[0] = row[0] or above[0]
    return rows


def mark(place: float, cell: str, low: str = "") -> Mark | None:
    """Return the mark of a cell, or None for one without a number."""
    found = CELL.match(cell)
    if not found:
        return None
    value, interval = number(found[1]), CELL.match(f"0 {low}") if low.startswith("[") else found
    first, last = (interval or found).groups()[1:]
    ends = (number(end) if end else value for end in (first or low, last))
    return Mark(place, value, *ends)


@dataclass(frozen=True)
class Axis:
    """From numbers to places on the page."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the place of a number, at the end of the axis where it is beyond."""
        low, high, v = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, v = math.log(low), math.log(high), math.log(v)
        return self.start + (v - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round numbers along the axis, about five."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(decades) < 4 else (1,)
            found = [s * 10.0**d for d in decades for s in steps]
        else:
            raw = (self.high - self.low) / 5
            unit = 10.0 ** math.floor(math.log10(raw))
            step = unit * min((1, 2, 5, 10), key=lambda s: abs(s * unit - raw))
            first = math.ceil(self.low / step - 1e-9)
            found = [step * i for i in range(first, first + 12)]
        return [x for x in found if self.low * 0.999 <= x + 1e-12 and x <= self.high * 1.001]


def span(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Return the ends of an axis that holds all values."""
    if log:
        values = [v for v in values if v > 0]
        return min(values) / 1.15, max(values) * 1.15
    room = 0.04 * (max(values) - min(values)) or 1.0
    return min(values) - room, max(values) + room


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """Return a text of the picture."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def short(value: float) -> str:
    """Return a number as briefly as can be."""
    return f"{value:g}" if value == 0 or abs(value) >= 0.01 else f"{value:.0e}".replace("e-0", "e-")


def legend(names: Sequence[str], x: float) -> str:
    """Return the names of the series, one below the other, above the picture."""
    return "".join(
        f'<circle class="s{i}" cx="{x:.1f}" cy="{10 + 17 * i}" r="4"/>'
        + text(x + 9, 14 + 17 * i, n)
        for i, n in enumerate(names)
    )


def dots(rows: list[list[str]], options: dict[str, str]) -> str:
    """Draw each row as a line with a mark for each chosen column."""
    head, *body = rows
    chosen = [plain(name) for name in options["columns"].split(";")]
    lower = options.get("low", "")
    for name in (*chosen, lower):
        if name and name not in head:
            raise PluginError(f"no column {name!r} among {head}")
    names = [i for i, name in enumerate(head) if name in options.get("names", head[0]).split(";")]
    labels = [", ".join(row[i] for i in names if row[i]) for row in body]
    marks = [
        [mark(i, row[head.index(name)], row[head.index(lower)] if lower else "") for row in body]
        for i, name in enumerate(chosen)
    ]
    places = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    seen = [m for series in marks for m in series if m]
    values = [v for m in seen for v in (m.value, m.low, m.high)]
    values += [number(options["ref"])] if "ref" in options else []
    log = "log" in options
    left = 10 + LETTER * max(map(len, labels))
    top = 17 * len(chosen) + 4 if len(chosen) > 1 else 6
    bottom = top + ROW * len(places)
    low, high = span(values, log)
    low, high = (number(options.get(*end)) for end in (("from", str(low)), ("to", str(high))))
    axis = Axis(low, high, left, WIDTH - 14, log)
    parts = [legend(chosen, left)] if len(chosen) > 1 else []
    parts += [
        rule(axis(t), top, bottom) + text(axis(t), bottom + 15, short(t), "middle")
        for t in axis.ticks()
    ]
    if "ref" in options:
        parts.append(rule(axis(number(options["ref"])), top, bottom, "ref"))
    parts += [text(left - 8, top + ROW * (k + 0.5) + 4, name, "end") for name, k in places.items()]
    for i, series in enumerate(marks):
        for label, m in zip(labels, series, strict=True):
            if m:
                y = top + ROW * (places[label] + 0.5) + (i - (len(chosen) - 1) / 2) * 6
                parts.append(
                    f'<path class="s{i}" d="M{axis(m.low):.1f} {y:.1f}H{axis(m.high):.1f}"/>'
                    f'<circle class="s{i}" cx="{axis(m.value):.1f}" cy="{y:.1f}" r="3.5"/>'
                )
    return svg(parts, bottom + 22, options["title"])


def lines(rows: list[list[str]], options: dict[str, str]) -> str:
    """Draw each row as a curve over the columns whose headings are numbers."""
    head, *body = rows
    columns = [i for i, name in enumerate(head) if re.fullmatch(NUMBER, name)]
    wanted = [plain(name) for name in options["rows"].split(";")] if "rows" in options else None
    body = [row for row in body if wanted is None or row[0] in wanted]
    if not body or len(columns) < 2 or (wanted and len(body) != len(wanted)):
        raise PluginError(f"no rows {wanted} over numbers among {[row[0] for row in rows]}")
    marks = [[mark(number(head[i]), row[i]) for i in columns] for row in body]
    values = [v for series in marks for m in series if m for v in (m.value, m.low, m.high)]
    values += [number(options["ref"])] if "ref" in options else []
    top, height = 17 * len(body) + 8, 190
    places = [number(head[i]) for i in columns]
    across = Axis(places[0], places[-1], 52, WIDTH - 20, log=True)
    up = Axis(*span(values, "log" in options), top + height, top, "log" in options)
    parts = [legend([row[0] for row in body], 52)]
    for t in up.ticks():
        parts.append(
            f'<path class="grid" d="M44 {up(t):.1f}H{WIDTH - 12}"/>'
            + text(38, up(t) + 4, short(t), "end")
        )
    for place in places:
        parts.append(text(across(place), top + height + 18, f"{place:,g}", "middle"))
    if "ref" in options:
        y = up(number(options["ref"]))
        parts.append(f'<path class="ref" d="M44 {y:.1f}H{WIDTH - 12}"/>')
    for i, series in enumerate(marks):
        seen = [m for m in series if m]
        shift = 3 * (i - (len(marks) - 1) / 2)
        points = [(across(m.place) + shift, up(m.value)) for m in seen]
        parts.append(
            f'<path class="s{i}" d="M' + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + '"/>'
        )
        for m, (x, y) in zip(seen, points, strict=True):
            parts.append(
                f'<path class="s{i}" d="M{x:.1f} {up(m.low):.1f}V{up(m.high):.1f}"/>'
                f'<circle class="s{i}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
            )
    parts.append(text((52 + WIDTH) / 2, top + height + 36, options.get("x", ""), "middle"))
    return svg(parts, top + height + 42, options["title"])


def rule(x: float, top: float, bottom: float, kind: str = "grid") -> str:
    """Return a line from the top of the picture to its bottom."""
    return f'<path class="{kind}" d="M{x:.1f} {top}V{bottom}"/>'


def svg(parts: Sequence[str], height: float, title: str) -> str:
    """Return the picture."""
    label = html.escape(title, quote=True)
    size = f'viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{label}"'
    return f"<svg {size}>{''.join(parts)}</svg>"


def chart(words: str, table: str) -> str:
    """Return the figure that a line of the page asks for."""
    kind, *given = shlex.split(words)
    options = dict(word.split("=", 1) if "=" in word else (word, "") for word in given)
    drawn = {"dots": dots, "lines": lines}[kind](read(table), options)
    caption = f"<strong>{html.escape(options['title'])}</strong>"
    if "by" in options:
        caption += f"<br><code>{html.escape(options['by'])}</code>"
    if "at" in options:
        caption += f", {html.escape(options['at'])}"
    return f'<figure class="chart">{drawn}<figcaption>{caption}</figcaption></figure>'


def on_page_markdown(markdown: str, page: Page, config: object, files: Files) -> str:
    """Draw the table that follows each line that asks for it."""

    def drawn(found: re.Match[str]) -> str:
        table = TABLE.search(markdown, found.end())
        if table is None:
            raise PluginError(f"{page.file.src_path}: no table below {found[0]!r}")
        return chart(found[1], table[0])

    return LINE.sub(drawn, markdown)

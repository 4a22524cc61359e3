"""Read numbers with decimal commas, and numbers whose thousands are separated."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["grouped", "has_comma", "with_points"]

_POWER = r"([eE][+-]?\d+)?"
# "1.234,5", "0,708", "1,5e3": a decimal comma, and points between thousands
_DECIMAL = re.compile(rf"[+-]?([1-9]\d{{0,2}}(\.\d{{3}})+|\d*)(,\d+)?{_POWER}")
# "1.234", "12.500"
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
# "1,234.5", "12,500": a decimal point, and commas between thousands
_THOUSANDS = re.compile(rf"[+-]?([1-9]\d{{0,2}}(,\d{{3}})+|\d*)(\.\d+)?{_POWER}")


def with_points(cells: Sequence[str], *, decimal: bool = False) -> Sequence[str]:
    """Return the cells of a column with decimal points and no commas, or unchanged if in doubt.

    Commas are read as decimal commas if some of them cannot separate thousands ("1,5", "0,708",
    "1.234,5"). They are read as separators of thousands if some of them cannot be decimal commas
    ("1,234.5", "1,234,567").

    Args:
        cells: The cells of a column.
        decimal: Read commas that may be of both kinds, as in "1,234", as decimal commas.

    Examples:
        >>> with_points(["1.234,5", "2,25"]), with_points(["1,234.5", "12"])
        (['1234.5', '2.25'], ['1234.5', '12'])
        >>> with_points(["1,234", "2"]), with_points(["1,234", "2"], decimal=True)
        (['1,234', '2'], ['1.234', '2'])
    """
    if not any("," in cell for cell in cells):
        return cells
    signed = [cell for cell in cells if "," in cell or "." in cell]
    both = any("," in cell and "." in cell for cell in signed)
    if not both and any("." in cell for cell in signed):
        return cells
    as_decimal = all(map(_DECIMAL.fullmatch, signed))
    as_thousands = all(map(_THOUSANDS.fullmatch, signed))
    if as_decimal and (decimal or not as_thousands):
        return [cell.replace(".", "").replace(",", ".") for cell in cells]
    if as_thousands and not as_decimal:
        return [cell.replace(",", "") for cell in cells]
    return cells


def grouped(cells: Sequence[str]) -> str | None:
    """Return a cell such as "1.234" if all points of a column may separate thousands, else None."""
    pointed = [cell for cell in cells if "." in cell]
    return pointed[0] if pointed and all(map(_GROUPED.fullmatch, pointed)) else None


def has_comma(cell: str) -> bool:
    """Return True if a cell is a number with a comma in it, decimal or between thousands."""
    return "," in cell and any(form.fullmatch(cell) for form in (_DECIMAL, _THOUSANDS))

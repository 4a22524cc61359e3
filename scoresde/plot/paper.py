"""Make figures, check the numbers drawn in them, and write them to files atomically.

A new figure is white with dark text. Its colours are set explicitly, so a style of matplotlib or
the background of a page does not change them. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import io
import itertools
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from scoresde import checkpoint
from scoresde.checks import as_numbers, check_batch, door, quoted
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError, ShapeError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # so that annotations are read without importing matplotlib
    Axes = Figure = Any

__all__ = [
    "BLUE", "COLOURS", "DPI", "GREY", "INK", "OTHERS", "RED", "SHADE", "Axes", "Figure",
    "check_suffix", "decades", "dress", "encoded", "figure", "finite", "headline", "ink",
    "interval", "legend", "plain", "save", "sheet", "span", "tones", "vector", "write",
]  # fmt: skip

# A power of two, so that a picture of pixels is exact.
DPI = 128
INK, PAPER, GREY = "#222222", "#ffffff", "#7d8797"
BLUE, RED, SHADE = "#30638e", "#d1495b", "#4292c6"
COLOURS = (
    BLUE, RED, "#c08a1e", "#2a8a6f", "#7a4e9f", "#1f9bb5", "#8a5a44", "#c05a9d", "#6b8e23", GREY
)  # fmt: skip
OTHERS = (*COLOURS[2:], *COLOURS[:2])
"""The colours of other things than data and samples, such as classes."""
_OWN = {"data": BLUE, "floor": BLUE, "samples": RED}
SUFFIXES = (".png", ".jpg", ".jpeg", ".pdf", ".svg")

# With larger numbers the width of an axis may overflow in matplotlib.
_LARGEST = 1e150


# Numbers


def vector(name: str, values: Tensor | Sequence[float]) -> Tensor:
    """Check that numbers are a vector, finite and not empty, and return it as float64."""
    tensor = as_numbers(name, values, dtype=torch.float64)
    if tensor.ndim != 1 or len(tensor) == 0:
        raise ShapeError(f"{name} must be a vector of numbers, got shape {tuple(tensor.shape)}")
    return finite(name, tensor)


def finite(name: str, x: Tensor) -> Tensor:
    """Check that a batch is finite, and return it as float64 on the CPU, detached.

    Raises:
        NonFiniteError: A number is NaN or infinite.
        InvalidValueError: A number is too large for an axis.
        ShapeError: The batch is empty.
    """
    if isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex()):
        x = x.double()
    check_batch(name, x)
    if x.numel() == 0:
        raise ShapeError(f"{name} must hold at least one number, got shape {tuple(x.shape)}")
    numbers = x.detach().cpu().double()
    if float(numbers.abs().max()) > _LARGEST:
        raise InvalidValueError(
            f"{name} reaches {float(numbers.abs().max()):.1e}, too large for an axis; scale it down"
        )
    return numbers


def interval(name: str, ends: tuple[float, float]) -> tuple[float, float]:
    """Return the two ends of an interval as floats.

    Raises:
        InvalidValueError: The ends are not finite, or do not increase.
    """
    if not -_LARGEST <= ends[0] < ends[1] <= _LARGEST:
        raise InvalidValueError(f"{name} must increase and be finite, got {tuple(ends)}")
    return float(ends[0]), float(ends[1])


def span(numbers: Tensor, share: float = 0.01) -> tuple[float, float]:
    """Return an interval that contains all numbers but a share of outliers.

    Its width is positive even if all numbers are equal.
    """
    low, high = np.quantile(numbers.numpy(), [share / 2, 1 - share / 2]).tolist()
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        reach = 0.1 * max(abs(low), abs(high)) or 1.0
        low, high = low - reach, high + reach
    return low, high


def tones(labels: Iterable[str], *, data: bool = False) -> dict[str, str]:
    """Return the colours of sets by their labels: blue for data and floor, red for samples.

    Other labels get other colours, in turn.

    Args:
        labels: The labels; the label of a single set is empty.
        data: True if a single set is data, and not samples.

    Examples:
        >>> tones(["data", "samples"]) == {"data": BLUE, "samples": RED}
        True
        >>> set(tones(["oak", "elm"]).values()) & {BLUE, RED}
        set()
    """
    others = itertools.cycle(OTHERS)
    known = {**_OWN, "": BLUE if data else RED}
    return {label: known[label] if label in known else next(others) for label in labels}


def plain(text: object, most: int = 40) -> str:
    r"""Return a name from data as one short line, with `$` escaped.

    Characters that cannot be drawn, such as half a surrogate pair, become question marks.
    """
    line = "".join(c if c.isprintable() else "?" for c in " ".join(str(text).split()))
    return (line if len(line) <= most else f"{line[: most - 1]}…").replace("$", r"\$")


# Figures


def figure(
    size: tuple[float, float], *, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Return an empty figure; the caller makes its panels, and `dress` sets their colours.

    Args:
        size: Width and height in inches.
        layout: The layout engine of matplotlib.
    """
    from scoresde.plot.sheet import Sheet

    return Sheet(figsize=size, dpi=DPI, layout=layout, facecolor=PAPER, edgecolor=PAPER)


def dress(panels: Iterable[Axes]) -> None:
    """Set the colours of panels to dark on white, in any style."""
    for axes in panels:
        axes.set_facecolor(PAPER)
        axes.tick_params(which="both", colors=INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
        for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
            text.set_color(INK)
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_offset_text().set_color(INK)


def sheet(
    ax: Axes | None, size: tuple[float, float], rows: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels, row by row; in a given Axes the panels are insets.

    Args:
        ax: The Axes to draw into, or None for a new figure.
        size: The size of a new figure, in inches.
        rows: The number of rows of panels.
        columns: The number of columns of panels.

    Raises:
        InvalidTypeError: `ax` is not an Axes of matplotlib.
        InvalidValueError: `ax` is polar or three-dimensional.
    """
    if ax is None:
        drawn = figure(size)
        panels = list(drawn.subplots(rows, columns, squeeze=False).flat)
        dress(panels)
        return drawn, panels
    from matplotlib.axes import Axes as Real

    if not isinstance(ax, Real):
        raise InvalidTypeError(f"ax must be an Axes of matplotlib, got {quoted(ax)}")
    if ax.name != "rectilinear":
        raise InvalidValueError(
            f"ax must have two straight axes, got {ax.name} axes; leave their projection out"
        )
    # twice, since ax.figure may be a subfigure
    drawn = ax.figure.figure
    if rows * columns == 1:
        return drawn, [ax]
    ax.set_axis_off()
    share = 0.74  # the rest of the area is for the labels of the axes
    panels = [
        ax.inset_axes(
            ((c + 1 - share) / columns, 1 - (r + share) / rows, share / columns, share / rows)
        )
        for r in range(rows)
        for c in range(columns)
    ]  # fmt: skip
    return drawn, panels


def headline(drawn: Figure, title: str | None, ax: Axes | None) -> None:
    """Write a title, if there is one, above an Axes, or above the whole figure for None."""
    if title is not None and ax is None:
        drawn.suptitle(title, fontsize="medium", color=INK)
    elif title is not None and ax is not None:
        ax.set_title(title, fontsize="medium")


def ink(ax: Axes) -> Any:
    """Return the colour of the text of an Axes."""
    return ax.xaxis.label.get_color()


def legend(ax: Axes, **options: Any) -> None:
    """Write the legend beside the panel, if there are labels."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        drawn = ax.legend(
            handles, labels, fontsize="small", labelcolor=ink(ax), frameon=False,
            **{"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0, **options},
        )  # fmt: skip
        for handle in drawn.legend_handles:
            if handle is not None and hasattr(
                handle, "set_sizes"
            ):  # dots may be too small for their colours to be told apart
                handle.set(sizes=[25.0], alpha=0.9)


def decades(axis: Any) -> None:
    """Label a logarithmic axis of less than three decades with plain numbers."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    low, high = sorted(axis.get_view_interval())
    if axis.get_scale() != "log" or not 0 < low < high:
        return
    axis.set_minor_formatter(NullFormatter())
    if high < 1e3 * low:
        few = MaxNLocator(5, steps=(1, 2, 5, 10))
        axis.set_major_locator(few if high < 8 * low else LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))


# Files


def encoded(drawn: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a file of this kind.

    Raises:
        InvalidValueError: matplotlib cannot draw it, for example because of a formula in a title.
    """
    buffer = io.BytesIO()
    dates: dict[str, dict[str, None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    options: dict[str, Any] = {"metadata": dates[kind]} if kind in dates else {}
    if kind == "jpeg":
        options["pil_kwargs"] = {"quality": 92}
    with warnings.catch_warnings():
        # letters that the font lacks are drawn as boxes
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        try:
            drawn.savefig(
                buffer, format=kind, dpi=drawn.dpi, facecolor=drawn.get_facecolor(), **options
            )
        except (ValueError, TypeError) as error:  # TypeError for half a surrogate pair
            reason = str(error).strip().splitlines()[-1]
            raise InvalidValueError(
                f"matplotlib cannot draw the picture: {reason}; text between two $ is read as a "
                r"formula: write \$ for a dollar"
            ) from error
    return buffer.getvalue()


def check_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """Raise InvalidValueError unless a file has one of these suffixes."""
    if path.suffix.lower() not in suffixes:
        raise InvalidValueError(f"a picture ends in {', '.join(suffixes)}; got {str(path)!r}")


@door
def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure to a file atomically.

    Args:
        figure: The result of a function of this module, or any matplotlib figure.
        path: The file, with the suffix .png, .jpg, .jpeg, .pdf or .svg; its folder is created.

    Returns:
        The path.

    Raises:
        InvalidValueError: The file cannot be written, or has another suffix; or matplotlib cannot
            draw the figure.

    Examples:
        >>> import tempfile
        >>> from scoresde import plot
        >>> picture = plot.images(torch.zeros(4, 1, 8, 8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot.save(picture, f"{folder}/grey.png").name
        'grey.png'
    """
    path = Path(path)
    check_suffix(path, SUFFIXES)
    kind = path.suffix.lower()[1:]
    return write(path, encoded(figure, "jpeg" if kind == "jpg" else kind))


def write(path: Path, content: bytes) -> Path:
    """Write the content of a picture to a file atomically, and return the path."""
    try:
        checkpoint.write_bytes(path, content)
    except CheckpointError as error:
        raise InvalidValueError(f"{error}; choose another file") from error
    return path

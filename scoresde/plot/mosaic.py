"""Draw images side by side, pixel by pixel, and the central slices of volumes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scoresde.checks import check_integer, door
from scoresde.errors import ShapeError
from scoresde.plot import paper
from scoresde.plot.kinds import kind
from scoresde.plot.paper import Axes, Figure
from scoresde.plot.sets import Given, Labels, Sets, given, words_of
from scoresde.units import Transform

__all__ = ["images", "volumes"]

Pixels = npt.NDArray[np.uint8]
Limits = tuple[float, float]

# In pixels: the gap between images, the gap between sets, the least length of the longest side of a
# picture, its largest side, the height of a line of text, and the width of a colour scale. _GREY is
# the colour of gaps.
_GAP, _APART, _GREY, _LEAST, _MOST, _LINE, _BAR = 2, 24, 128, 600, 4096, 22, 96
_CHANNELS = 8


@door
def images(
    x: Sets,
    *,
    transform: Transform | None = None,
    columns: int | None = None,
    scale: int | None = None,
    limits: tuple[float, float] | None = None,
    labels: Labels = (),
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw images side by side, row by row; a .png that `save` writes has exactly their pixels.

    Args:
        x: `(N, 1, H, W)` grey or `(N, 3, H, W)` colour; `(N, H, W)` is grey too. If
            there are other numbers of channels, the first eight are drawn side by side, in grey.
            Several sets, given by name, are drawn side by side; they may differ in size.
        transform: The transform of the data; images are drawn in the units of the data.
        columns: The number of images in a row of a set; by default the set is about a square.
        scale: The factor by which each image is enlarged, without blur; by default the longest side
            of the picture has at least 600 pixels. A set is at most about 4,096 pixels wide and
            high: `scale` is lowered until one image fits, and then `columns` until one row fits.
            Images that still find no room, and pixels of larger images, are left out, with a note.
        limits: The values of black and white. By default the limits of the transform, if it has
            any, or 0 and 255 for bytes. Otherwise it depends on the interval [a, b] that holds the
            middle 99 % of the values: -1 and 1 if the larger of |a| and |b| is between 0.5 and 1.5,
            and a and b if not. With a and b grey images are drawn in colours with a colour scale;
            for colour images a and b are written below them.
        labels: A label of each image, `(N,)`, strings or integers, written above the image unless
            the label is empty. The same labels are used for every set.
        title: The title.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        ShapeError: `x` does not have the shape of images, or there is not one label for each image.
        InvalidTypeError: `x` is not made of samples.
        NonFiniteError: A number is NaN or infinite.
        InvalidValueError: `columns` or `scale` is below one, or the limits are not an interval.

    Examples:
        >>> from scoresde import plot
        >>> picture = plot.images(torch.zeros(16, 1, 37, 53))
        >>> (picture.get_size_inches() * picture.dpi).tolist()
        [646.0, 454.0]
    """
    what = given("images", x, transform, sizes=True)
    event = tuple(what.first.shape[1:])
    if len(event) == 2 and kind(event) == "signals":
        raise ShapeError(
            f"samples of shape {event} are signals of {event[0]} channels; use plot.signals, or "
            "x[:, None] if they are grey images"
        )
    note = ""
    if len(event) == 3 and event[0] > _CHANNELS:
        note = f"the first {_CHANNELS} of {event[0]} channels"
    elif len(event) > 1 and event[-1] <= 8 <= event[-2] / event[-1]:
        size = f"{event[-2]} x {event[-1]} pixels"
        note = f"drawn as images of {size}; if they are signals, give (N, channels, steps)"
    sets = {label: _flat(part) for label, part in what.sets.items()}
    return _drawn(sets, what, columns, scale, limits, labels, note, title, ax)


@door
def volumes(
    x: Sets,
    *,
    transform: Transform | None = None,
    columns: int | None = None,
    scale: int | None = None,
    limits: tuple[float, float] | None = None,
    labels: Labels = (),
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw volumes by their three central slices, side by side: across depth, height and width.

    Args:
        x: `(N, C, D, H, W)`; or several sets by name. Axes between the channels and the last three
            are cut in their middle. One channel is drawn in grey, three channels in colour, and
            other numbers of channels side by side.
        transform: The transform of the data, as for `images`.
        columns: The number of volumes in a row.
        scale: The factor by which each slice is enlarged.
        limits: The values of black and white, as for `images`.
        labels: A label of each volume, `(N,)`.
        title: The title.
        ax: The Axes to draw into; by default a new figure.

    Returns:
        The figure.

    Raises:
        ShapeError: `x` has fewer than five axes, or there is not one label for each volume.
        InvalidTypeError: `x` is not made of samples.
        NonFiniteError: A number is NaN or infinite.
        InvalidValueError: A number is out of range.
    """
    what = given("volumes", x, transform)
    sets = {label: _flat(_slices(part)) for label, part in what.sets.items()}
    channels = what.first.shape[1]
    note = "each by its slices across depth, height and width"
    if channels > _CHANNELS:
        note += f"; the first {_CHANNELS} of {channels} channels"
    return _drawn(sets, what, columns, scale, limits, labels, note, title, ax)


def _drawn(
    sets: dict[str, Tensor], what: Given, columns: int | None, scale: int | None,
    limits: Limits | None, labels: Labels, note: str, title: str | None, ax: Axes | None,
) -> Figure:  # fmt: skip
    """Return a figure of images `(N, 1 or 3, h, w)`, in which NaN stays white."""
    words = words_of(labels, sets)
    known = what.limits if limits is None else paper.interval("limits", limits)
    ends = paper.span(torch.cat([part.flatten() for part in what.sets.values()]))
    if known is None and 0.5 <= max(map(abs, ends)) <= 1.5:
        known = (-1.0, 1.0)
    grey = all(part.shape[1] == 1 for part in sets.values())
    lut = _palette() if known is None and grey else None
    if known is None and not grey:
        black, white = (f"{end:.3g}" for end in ends)
        note = "; ".join(filter(None, (note, f"from {black} to {white}")))
    parts = {
        label: _mosaic(part, columns, scale, known or ends, words, lut)
        for label, part in sets.items()
    }
    return _sheet(parts, title, ends if lut is not None else None, note, ax)


def _slices(x: Tensor) -> Tensor:
    """Return the three central slices of volumes as one image each, `(N, C, h, w)`."""
    if x.ndim < 5:
        raise ShapeError(f"volumes must be of shape (N, C, D, H, W), got {tuple(x.shape)}")
    while x.ndim > 5:
        x = x[:, :, x.shape[2] // 2]
    d, h, w = x.shape[2:]
    return _beside([x[:, :, d // 2], x[:, :, :, h // 2], x[..., w // 2]])


def _beside(parts: Sequence[Tensor]) -> Tensor:
    """Return images `(N, C, *, *)` side by side, with NaN between and below them."""
    high = max(part.shape[2] for part in parts)
    wide = [
        torch.nn.functional.pad(
            part, (0, i < len(parts) - 1, 0, high - part.shape[2]), value=math.nan
        )
        for i, part in enumerate(parts)
    ]
    return torch.cat(wide, 3)


def _flat(x: Tensor) -> Tensor:
    """Return images `(N, 1 or 3, h, w)`; other numbers of channels are placed in a row."""
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4:
        raise ShapeError(f"images must be of shape (N, C, H, W) or (N, H, W), got {tuple(x.shape)}")
    if x.shape[1] in (1, 3):
        return x
    return _beside([x[:, i : i + 1] for i in range(min(_CHANNELS, x.shape[1]))])


@dataclass(frozen=True)
class _Mosaic:
    """Hold images side by side, with the places of the labels above them and a note."""

    pixels: Pixels
    words: list[tuple[int, int, str]]
    note: str


def _mosaic(
    x: Tensor, columns: int | None, scale: int | None, limits: Limits, labels: list[str],
    lut: Pixels | None,
) -> _Mosaic:  # fmt: skip
    """Return one set of images side by side, with the places of its labels and a note."""
    step = math.ceil(max(x.shape[2:]) / _MOST)
    x = x[..., ::step, ::step]
    n, _, height, width = x.shape
    usual = _columns(n, height / width)
    columns = usual if columns is None else check_integer("columns", columns, 1)
    columns = max(1, min(columns, n, _MOST // (width + _GAP)))
    rows = math.ceil(n / columns)
    side = max(columns * width, rows * height)
    scale = max(1, math.ceil(_LEAST / side)) if scale is None else check_integer("scale", scale, 1)
    scale = max(1, min(scale, _MOST // max(height, width)))
    columns = max(1, min(columns, _MOST // (width * scale + _GAP)))
    rows = min(math.ceil(n / columns), max(1, _MOST // (height * scale + _GAP)))
    left_out = f"the first {rows * columns} of {n}" if rows * columns < n else ""
    thinned = f"1 pixel in {step} along each side" if step > 1 else ""
    note = "; ".join(filter(None, (left_out, thinned)))
    x, labels = x[: rows * columns], labels[: rows * columns]

    low, high = limits
    empty = x.isnan().any(1).repeat_interleave(scale, 1).repeat_interleave(scale, 2).numpy()
    share = ((x - low) / (high - low)).nan_to_num(1.0).clamp(0, 1)
    shades = (share * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    colours = np.repeat(shades, 3, -1) if shades.shape[-1] == 1 else shades
    if lut is not None:
        colours = lut[shades[..., 0]]
    big = colours.repeat(scale, 1).repeat(scale, 2)
    big[empty] = 255
    high_, wide = height * scale, width * scale
    # rows of images with labels have room for them
    heads = [_LINE if any(labels[r * columns : (r + 1) * columns]) else 0 for r in range(rows)]
    total = sum(heads) + rows * (high_ + _GAP) + _GAP
    sheet = np.full((total, columns * (wide + _GAP) + _GAP, 3), 255, np.uint8)
    words, top = [], 0
    for r, head in enumerate(heads):
        for c in range(columns):
            if (i := r * columns + c) >= len(big):
                break
            left, above = _GAP + c * (wide + _GAP), top + head + _GAP
            sheet[above - _GAP : above + high_ + _GAP, left - _GAP : left + wide + _GAP] = _GREY
            sheet[above : above + high_, left : left + wide] = big[i]
            if head and labels[i]:
                words.append(
                    (left + wide // 2, above - _GAP - 5, paper.plain(labels[i], max(2, wide // 9)))
                )
        top += head + high_ + _GAP
    return _Mosaic(sheet, words, note)


def _columns(n: int, ratio: float) -> int:
    """Return the number of columns that places n images in about a square.

    If possible, all rows are full.

    Args:
        n: The number of images.
        ratio: Height over width of an image.
    """
    wish = math.sqrt(n * ratio)
    near = [k for k in range(1, n + 1) if n % k == 0 and 0.7 * wish <= k <= 1.45 * wish]
    return min(near, key=lambda k: abs(math.log(k / wish)), default=math.ceil(wish))


def _palette() -> Pixels:
    from matplotlib import colormaps

    return np.round(colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(np.uint8)


def _sheet(
    parts: dict[str, _Mosaic], title: str | None, bar: Limits | None, note: str, ax: Axes | None
) -> Figure:
    """Return a figure with sets of images side by side, without resampling their pixels."""
    notes = "; ".join(filter(None, dict.fromkeys([*(part.note for part in parts.values()), note])))
    # a given Axes shrinks the sheet, but not text, so the notes are written below the Axes, in
    # short lines
    below, notes = (textwrap.fill(notes, 34), "") if ax is not None else ("", notes)
    heading = title if ax is None else None  # the title of a given Axes is set by ax.set_title
    top = (_LINE if any(parts) else 0) + (_LINE + 8 if heading else 0)
    inner = max(part.pixels.shape[0] for part in parts.values())
    height = top + inner + (_LINE if notes else 0)
    wide = sum(part.pixels.shape[1] for part in parts.values()) + _APART * (len(parts) - 1)
    # wide enough for all texts
    least = max(len(heading or "") * 10, len(notes) * 9, 160 if any(parts) else 0)
    left = max(0, (least - wide) // 2)
    width = wide + 2 * left
    sheet = np.full((height, width, 3), 255, np.uint8)
    words = [(width // 2, height - 6, notes)] if notes else []
    for label, part in parts.items():
        h, w, _ = part.pixels.shape
        sheet[top : top + h, left : left + w] = part.pixels
        words += [(left + at, top + y, text) for at, y, text in part.words]
        if label:
            words.append((left + w // 2, top - 6, paper.plain(label, max(4, w // 9))))
        left += w + _APART

    if ax is None:
        whole = width + (_BAR if bar is not None else 0)
        drawn = paper.figure((whole / paper.DPI, height / paper.DPI), layout=None)
        ax = drawn.add_axes((0, 0, width / whole, 1))
        paper.dress([ax])
    else:
        drawn, _ = paper.sheet(ax, size=(1, 1))
        if title:
            ax.set_title(title, fontsize="medium")
        ax.annotate(
            below, (0.5, 0), (0, -4), "axes fraction", "offset points", ha="center", va="top",
            fontsize=8, color=paper.ink(ax),
        )  # fmt: skip
    ax.set_axis_off()
    ax.imshow(sheet, interpolation="nearest", extent=(0, width, height, 0))
    for at, y, text in words:  # in dark colour, since the background is white
        ax.text(at, y, text, ha="center", va="baseline", fontsize=8, color=paper.INK)
    if heading:
        ax.text(
            width // 2, _LINE, heading, ha="center", va="baseline", fontsize=10, color=paper.INK
        )
    if bar is not None:
        free = min(8, inner // 8)  # room for half a tick label at either end
        end = 1 - (top + inner - _GAP - free) / height
        place = (1 + 12 / width, end, 16 / width, (inner - 2 * (_GAP + free)) / height)
        _scale(ax, ax.inset_axes(place), bar)
    return drawn


def _scale(ax: Axes, scale: Axes, ends: Limits) -> None:
    """Draw the colour scale, in the text colour of the images' Axes."""
    values = np.linspace(ends[1], ends[0], 256)[:, None]
    scale.imshow(values, cmap="viridis", aspect="auto", extent=(0, 1, *ends))
    scale.set_facecolor("none")
    tone = paper.ink(ax)
    scale.tick_params(labelsize=7, colors=tone)
    scale.yaxis.get_offset_text().set(color=tone, fontsize=7)
    for spine in scale.spines.values():
        spine.set_color(tone)
    scale.set_xticks([])
    scale.yaxis.tick_right()
    scale.locator_params(axis="y", nbins=5)

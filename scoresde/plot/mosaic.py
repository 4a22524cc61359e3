"""Images side by side, pixel by pixel, and the central slices of volumes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from scoresde.checks import check_integer, door
from scoresde.errors import ShapeError
from scoresde.plot import paper
from scoresde.plot.paper import Axes, Figure, Sets

__all__ = ["images", "volumes"]

Pixels = npt.NDArray[np.uint8]
Limits = tuple[float, float]

# Pixels between images and between sets, their grey, the side that a picture reaches at least, the
# one that it reaches at most, the height of a line of text, and the width of a scale.
_GAP, _APART, _GREY, _LEAST, _MOST, _LINE, _BAR = 2, 24, 128, 600, 4096, 22, 96
_CHANNELS = 8


@door
def images(
    x: Sets,
    *,
    columns: int | None = None,
    scale: int | None = None,
    limits: tuple[float, float] | None = (-1.0, 1.0),
    labels: Sequence[str] = (),
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw images side by side, row by row; `save` writes exactly their pixels.

    Args:
        x: `(N, 1, H, W)` grey or `(N, 3, H, W)` colour; `(N, H, W)` is grey too, and of other
            numbers of channels the first eight stand side by side, in grey. Or several sets by
            name, one beside the other.
        columns: images per row of a set; about a square without it.
        scale: how many pixels a side of one pixel gets, without blur; without it enough for a
            picture of 600 pixels. What would be beyond 4,096 is left out, and it is said.
        limits: what is black and white, beyond which all is the same; of bytes 0 and 255. None
            takes 99 % of the values, and shows grey images in colours with a scale beside them.
        labels: what each image is, `(N,)`, written above it; an empty one is not.
        title: written above.
        ax: where to draw; a new figure without it.

    Returns:
        The figure.

    Raises:
        ShapeError: `x` has another shape.
        NonFiniteError: a number is NaN or infinite.
        InvalidValueError: `columns` or `scale` is below one, or the limits are no interval.

    Examples:
        >>> from scoresde import plot
        >>> picture = plot.images(torch.zeros(16, 1, 37, 53))
        >>> (picture.get_size_inches() * picture.dpi).tolist()
        [646.0, 454.0]
    """
    if isinstance(x, Tensor) and x.dtype == torch.uint8 and limits == (-1.0, 1.0):
        limits = (0.0, 255.0)
    sets = {label: _flat(part) for label, part in paper.sets_of("images", x).items()}
    limits = None if limits is None else paper.interval("limits", limits)
    ends = paper.span(torch.cat([p.flatten() for p in sets.values()])) if limits is None else limits
    grey = next(iter(sets.values())).shape[1] == 1
    lut = _palette() if limits is None and grey else None
    parts = {
        label: _mosaic(part, columns, scale, ends, list(labels) if len(sets) == 1 else [], lut)
        for label, part in sets.items()
    }
    return _sheet(parts, title, ends if lut is not None else None, ax)


@door
def volumes(
    x: Sets,
    *,
    columns: int | None = None,
    scale: int | None = None,
    limits: tuple[float, float] | None = None,
    labels: Sequence[str] = (),
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Draw volumes by their three central slices, side by side: across depth, height and width.

    Args:
        x: `(N, C, D, H, W)`; or several sets by name. Axes between the channels and the last three
            are cut in their middle. One or three channels are grey or colour, others side by side.
        columns: volumes per row.
        scale: as of `images`, as are the following.
        limits: what is black and white; None takes 99 % of the values, with a scale.
        labels: what each is, `(N,)`.
        title: written above.
        ax: where to draw; a new figure without it.

    Returns:
        The figure.

    Raises:
        ShapeError: `x` has less than five axes.
        NonFiniteError: a number is NaN or infinite.
        InvalidValueError: a number is out of range.
    """
    given = x if isinstance(x, Mapping) else {"": x}
    sets = {label: _slices(part) for label, part in paper.sets_of("volumes", given).items()}
    shown = sets if isinstance(x, Mapping) else sets[""]
    return images(
        shown, columns=columns, scale=scale, limits=limits, labels=labels, title=title, ax=ax
    )


def _slices(x: Tensor) -> Tensor:
    """Return the three central slices of volumes as one image each, `(N, C, h, w)`."""
    if x.ndim < 5:
        raise ShapeError(f"volumes must be of shape (N, C, D, H, W), got {tuple(x.shape)}")
    while x.ndim > 5:
        x = x[:, :, x.shape[2] // 2]
    d, h, w = x.shape[2:]
    cuts = [x[:, :, d // 2], x[:, :, :, h // 2], x[..., w // 2]]
    high = max(cut.shape[2] for cut in cuts)
    low = float(x.min())
    return torch.cat(
        [torch.nn.functional.pad(c, (0, 0, 0, high - c.shape[2]), value=low) for c in cuts], 3
    )


def _flat(x: Tensor) -> Tensor:
    """Return images `(N, 1 or 3, h, w)`: of other numbers of channels the first ones in a row."""
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4:
        raise ShapeError(f"images must be of shape (N, C, H, W) or (N, H, W), got {tuple(x.shape)}")
    if x.shape[1] not in (1, 3):
        x = torch.cat([x[:, i : i + 1] for i in range(min(_CHANNELS, x.shape[1]))], 3)
    step = math.ceil(max(x.shape[2:]) / _MOST)
    return x[..., ::step, ::step]


@dataclass(frozen=True)
class _Mosaic:
    """Images side by side, and where what is written above them begins."""

    pixels: Pixels
    words: list[tuple[int, int, str]]
    note: str


def _mosaic(
    x: Tensor, columns: int | None, scale: int | None, limits: Limits, labels: list[str],
    lut: Pixels | None,
) -> _Mosaic:  # fmt: skip
    """Return one set as pixels `(h, w, 3)`."""
    n, _, height, width = x.shape
    usual = math.ceil(math.sqrt(n * height / width))
    columns = usual if columns is None else check_integer("columns", columns, 1)
    columns = max(1, min(columns, n, _MOST // (width + _GAP)))
    rows = math.ceil(n / columns)
    side = max(columns * width, rows * height)
    scale = max(1, math.ceil(_LEAST / side)) if scale is None else check_integer("scale", scale, 1)
    scale = max(1, min(scale, _MOST // max(height, width)))
    columns = max(1, min(columns, _MOST // (width * scale + _GAP)))
    rows = min(math.ceil(n / columns), max(1, _MOST // (height * scale + _GAP)))
    note = f"the first {rows * columns} of {n}" if rows * columns < n else ""
    x, labels = x[: rows * columns], labels[: rows * columns]

    low, high = limits
    levels = (((x - low) / (high - low)).clamp(0, 1) * 255).round().to(torch.uint8)
    shades = levels.movedim(1, -1).numpy()
    colours = np.repeat(shades, 3, -1) if shades.shape[-1] == 1 else shades
    if lut is not None:
        colours = lut[shades[..., 0]]
    big = colours.repeat(scale, 1).repeat(scale, 2)
    high_, wide = height * scale, width * scale
    # a row of images with something written above has the place for it
    heads = [
        _LINE if any(labels[r * columns : (r + 1) * columns]) else 0 for r in range(rows)
    ]  # fmt: skip
    total = sum(heads) + rows * (high_ + _GAP) + _GAP
    sheet = np.full((total, columns * (wide + _GAP) + _GAP, 3), 255, np.uint8)
    words, top = [], 0
    for r, head in enumerate(heads):
        sheet[top : top + head] = 255
        for c in range(columns):
            if (i := r * columns + c) >= len(big):
                break
            left, above = _GAP + c * (wide + _GAP), top + head + _GAP
            sheet[above - _GAP : above + high_ + _GAP, left - _GAP : left + wide + _GAP] = _GREY
            sheet[above : above + high_, left : left + wide] = big[i]
            if head and i < len(labels) and labels[i]:
                words.append(
                    (left + wide // 2, above - _GAP - 5, paper.plain(labels[i], max(2, wide // 9)))
                )
        top += head + high_ + _GAP
    return _Mosaic(sheet, words, note)


def _palette() -> Pixels:
    from matplotlib import colormaps

    return np.round(colormaps["viridis"](np.arange(256))[:, :3] * 255).astype(np.uint8)


def _sheet(
    parts: dict[str, _Mosaic], title: str | None, bar: Limits | None, ax: Axes | None
) -> Figure:
    """Draw sets of images beside each other, a pixel of theirs on each of the picture's."""
    notes = "; ".join(part.note for part in parts.values() if part.note)
    own = title if ax is None else None  # an Axes that is given has a place for it
    top = (_LINE if any(parts) else 0) + (_LINE + 8 if own else 0)
    inner = max(part.pixels.shape[0] for part in parts.values())
    height = top + inner + (_LINE if notes else 0)
    wide = sum(part.pixels.shape[1] for part in parts.values()) + _APART * (len(parts) - 1)
    # of what is written nothing may be cut off
    least = max(len(own or "") * 10, len(notes) * 9, 160 if any(parts) else 0)
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
    ax.set_axis_off()
    ax.imshow(sheet, interpolation="nearest", extent=(0, width, height, 0))
    for at, y, text in words:  # dark, as the sheet is white
        ax.text(at, y, text, ha="center", va="baseline", fontsize=8, color=paper.INK)
    if own:
        ax.text(width // 2, _LINE, own, ha="center", va="baseline", fontsize=10, color=paper.INK)
    if bar is not None:
        below = 1 - (top + inner - _GAP) / height
        place = (1 + 12 / width, below, 16 / width, (inner - 2 * _GAP) / height)
        _scale(ax, ax.inset_axes(place), bar)
    return drawn


def _scale(ax: Axes, scale: Axes, ends: Limits) -> None:
    """Draw what the colours mean, in the ink of the images' Axes."""
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

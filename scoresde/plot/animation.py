"""Write animations of a run: a GIF, or a self-contained HTML page with a slider."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scoresde.checks import check_integer, check_range, door
from scoresde.plot import paper
from scoresde.plot.kinds import MOST, USUAL, kind
from scoresde.plot.lines import signals
from scoresde.plot.scatter import Frame, below, points, squared
from scoresde.plot.sets import Labels, Words, words_of
from scoresde.plot.shapes import samples
from scoresde.plot.states import StateLike, checked_states, single, words
from scoresde.plot.stretch import is_far, stretch
from scoresde.units import Transform

if TYPE_CHECKING:
    from PIL.Image import Image

    from scoresde.plot.paper import Figure

__all__ = ["animate"]


@door
def animate(
    states: Iterable[StateLike],
    path: str | os.PathLike[str],
    *,
    transform: Transform | None = None,
    names: Sequence[str] = (),
    frames: int = 48,
    seconds: float = 5.0,
    n: int | None = None,
    columns: int | None = None,
    scale: int | None = None,
    labels: Labels = (),
) -> Path:
    """Write an animation of a run from noise to data, with a pause at the samples at its end.

    The axes are the same in all frames. If the noise is far wider than the data, the axes of
    signals and of points in the plane are logarithmic outside the range of the data, and the axes
    of other points span twice the range of the samples. The limits of images and volumes are
    chosen for each frame. States are read one by one. At most 2 * `frames` + 1 states are kept in
    memory, each with the shown samples only.

    Args:
        states: The states that `scoresde.trajectory` yields.
        path: The file: .gif, or .html for a page with a slider and all frames inside.
        transform: The transform of the data, such as `model.transform`; points and signals are
            drawn in the units of the data.
        names: The names of the entries of points, or of the channels of signals; by default the
            names that the model of the run knows.
        frames: The largest number of frames, at least 2, evenly spaced among the states.
        seconds: The duration without the pause at the end, at most 600; a frame lasts at least
            0.02 s.
        n: The number of samples shown; by default 1,000 points, 16 images, 12 signals, 4 volumes.
        columns: The number of images per row.
        scale: The magnification of an image's pixels; by default enough for 600 pixels.
        labels: A label of each sample of the run, strings or integers. Labels are shown as colours
            of points and signals, and as words above images.

    Returns:
        The path. A notebook shows a GIF by `IPython.display.Image(path)`, and a page by
        `IPython.display.IFrame(path, 640, 640)`.

    Raises:
        InvalidTypeError: `states` holds something else.
        InvalidValueError: There is no state (a run can be read only once), an option or a state is
            out of range, or the file has another suffix or cannot be written.
        NonFiniteError: A state is not finite.
        ShapeError: The states have different shapes.

    Examples:
        >>> import tempfile
        >>> import scoresde
        >>> from scoresde import plot
        >>> score = scoresde.targets.TwoMoons().at(scoresde.VPSDE())
        >>> run = scoresde.trajectory(score, sampler="heun", n=99, steps=3, seed=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot.animate(run, f"{folder}/moons.gif").name
        'moons.gif'
    """
    path = Path(path)
    paper.check_suffix(path, (".gif", ".html"))
    check_integer("frames", frames, 2)
    check_range("seconds", seconds, "(0, 600]")
    shots = list(_evenly_chosen(states, frames, None if n is None else check_integer("n", n, 1)))
    shown = shots[0].x
    given = words_of(labels, {})
    marks = words_of(Words(given[: len(shown)], given.classes), {"": shown})
    view = _View(transform, names or shots[0].columns, columns, scale, marks)
    pictures = map(view.picture, shots, view.frames([shot.x for shot in shots]))
    pause = max(20, round(1000 * seconds / len(shots)))
    write = _gif if path.suffix.lower() == ".gif" else _page
    return paper.write(path, write(pictures, pause, [shot.word for shot in shots]))


@dataclass(frozen=True, eq=False)
class _Shot:
    """Hold the part of a state that is shown, its label, and the names of its entries."""

    word: str
    x: Tensor
    columns: tuple[str, ...]


@dataclass(frozen=True)
class _View:
    """Hold the options for drawing the states of one run."""

    transform: Transform | None
    names: Sequence[str]
    columns: int | None
    scale: int | None
    words: list[str]

    def frames(self, states: list[Tensor]) -> list[_Axes]:
        """Return the axes of each state: equal ones, except for images and volumes."""
        ends = [self._ends(x) for x in states]
        what, whole = kind(states[0].shape[1:]), [*map(_around, zip(*ends, strict=True))]
        if what in ("images", "volumes"):
            return [_Axes(frame) for frame in ends]
        last = ends[-1]
        if not any(is_far(a, b) for a, b in zip(last, whole, strict=True)):
            return [_Axes(squared(whole))] * len(states)
        if what == "signals" or len(whole) == 2:
            return [_Axes(squared(whole), squared(last))] * len(states)
        wide = [((3 * a - b) / 2, (3 * b - a) / 2) for a, b in last]
        return [_Axes(wide)] * len(states)

    def _in_units(self, x: Tensor) -> Tensor:
        """Return points or signals in the units of the data."""
        return (x if self.transform is None else self.transform.inverse(x.double())).double()

    def _ends(self, x: Tensor) -> Frame:
        """Return the limits of the axes of one state, by entry, by channel, or for all pixels."""
        what = kind(x.shape[1:])
        if what in ("images", "volumes"):
            # with the limits of the data, all pixels of noise would be black or white
            reach = max(1.0, float(np.quantile(x.abs().numpy(), 0.99)))
            return [(-reach, reach)]
        x = self._in_units(x)
        if what == "points":
            rows = x.reshape(len(x), -1).T[:MOST]
        else:
            rows = x.reshape(len(x), -1, x.shape[-1]).transpose(0, 1).flatten(1)
        low, high = rows.amin(1), rows.amax(1)
        edge = (0.05 * (high - low)).clamp(min=1e-3 * (1 + float(rows.abs().max())))
        return list(zip((low - edge).tolist(), (high + edge).tolist(), strict=True))

    def picture(self, shot: _Shot, axes: _Axes) -> Image:
        """Return one frame of the animation."""
        from PIL import Image

        what, frame = kind(shot.x.shape[1:]), axes.frame
        if what == "points":
            flat = self._in_units(shot.x).reshape(len(shot.x), -1)
            drawn = points(flat, names=self.names, frame=frame, title=shot.word, labels=self.words)
        elif what == "signals":
            drawn = signals(
                shot.x, transform=self.transform, names=self.names, title=shot.word,
                labels=self.words,
            )  # fmt: skip
            for panel, (low, high) in zip(drawn.axes, frame, strict=False):
                panel.set_ylim(low, high)
        else:
            drawn = samples(
                shot.x, limits=frame[0], title=shot.word, columns=self.columns, scale=self.scale,
                labels=self.words,
            )  # fmt: skip
        if axes.inner is not None:
            below(drawn.axes[-1], "; ".join(axes.stretch(drawn)))
        if what in ("points", "signals"):
            # a fixed layout, since panels would otherwise move with the width of the tick labels
            drawn.set_layout_engine("none")
            across = len(frame) if what == "points" and len(frame) > 2 else 1
            down = len(drawn.axes) // across
            # with room for a legend beside signals, and beside points of several classes
            wide = 0.66 if what == "signals" else 4.0 / drawn.get_figwidth() if across == 1 else 0.8
            under = max(0.14, 0.62 / drawn.get_figheight())  # two lines
            for i, panel in enumerate(drawn.axes):
                row, column = divmod(i, across)
                high = 0.92 - under
                size = (wide / across, 0.95 * high / down)
                left, low = 0.15 + 0.83 * column / across, under + high * (down - 1 - row) / down
                panel.set_position((left, low, *size))
        with Image.open(io.BytesIO(paper.encoded(drawn, "png"))) as opened:
            return opened.convert("RGB")


@dataclass(frozen=True, eq=False)
class _Axes:
    """Hold the axes of a frame.

    Attributes:
        frame: The two ends of every axis.
        inner: The interval of every axis outside which the axis is logarithmic, or None for linear
            axes.
    """

    frame: Frame
    inner: Frame | None = None

    def stretch(self, drawn: Figure) -> list[str]:
        """Make the axes of points in the plane, or of signals, logarithmic; return a note."""
        assert self.inner is not None
        panels = drawn.axes
        axes: list[Any] = [panel.yaxis for panel in panels]
        if len(panels) == 1 and len(self.frame) == 2:
            panels[0].set(aspect="auto")
            panels[0].set_box_aspect(1)
            axes = [panels[0].xaxis, panels[0].yaxis]
        parts = zip(axes, self.inner, self.frame, strict=False)
        return [note for part in parts for note in stretch(*part)][:1]


def _around(ends: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Return the smallest interval that contains all intervals `ends`."""
    lows, highs = zip(*ends, strict=True)
    return min(lows), max(highs)


def _evenly_chosen(states: Iterable[StateLike], frames: int, n: int | None) -> Iterator[_Shot]:
    """Yield at most `frames` states, about evenly spaced, including the first and the last."""
    kept: list[_Shot] = []
    times: list[float] = []
    last, stride = None, 1
    for i, (t, x, columns) in enumerate(checked_states(states)):
        times = [*times[-1:], t]
        shown = x[: n or USUAL[kind(x.shape[1:])]]
        last = _Shot(words(times)[-1], single(shown), columns)
        if i % stride == 0:
            kept.append(last)
        if len(kept) == 2 * frames:
            kept, stride = kept[::2], 2 * stride
    if last is not None and kept[-1] is not last:
        kept.append(last)
    chosen = torch.linspace(0, len(kept) - 1, min(frames, len(kept))).round().long()
    yield from (kept[i] for i in chosen.tolist())


def _gif(pictures: Iterator[Image], pause: int, words: list[str]) -> bytes:
    """Return a GIF; frames are made one at a time, to bound memory."""
    from PIL import Image

    def reduced(picture: Image.Image) -> Image.Image:
        return picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)

    buffer = io.BytesIO()
    pauses = [pause] * (len(words) - 1) + [max(pause, 1500)]
    first = reduced(next(pictures))
    first.save(
        buffer, format="GIF", save_all=True, append_images=map(reduced, pictures), loop=0,
        duration=pauses if len(pauses) > 1 else pauses[0],
    )  # fmt: skip
    return buffer.getvalue()


def _page(pictures: Iterator[Image], pause: int, words: list[str]) -> bytes:
    """Return an HTML page that plays the frames, with a slider."""
    listed = []
    for picture in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        listed.append(base64.b64encode(buffer.getvalue()).decode())
    frames = ",\n".join(f'"{text}"' for text in listed)
    hold = round(1500 / pause)
    title = html.escape(f"{words[0]} to {words[-1]}")
    return f"""<!doctype html>
<meta charset="utf-8"><title>{title}</title>
<style>body {{ font-family: sans-serif; background: #fff; color: #222; margin: 1em }}
img {{ max-width: 100%; image-rendering: pixelated }} input {{ width: 20em }}</style>
<img id="picture" alt="{title}"><br>
<button id="play">pause</button>
<input id="at" type="range" min="0" max="{len(listed) - 1}" value="0">
<script>
const frames = [{frames}];
const [picture, at, play] = ["picture", "at", "play"].map(id => document.getElementById(id));
let running = true, i = 0;
const show = k => {{ picture.src = "data:image/png;base64," + frames[k]; at.value = k; }};
at.oninput = () => {{ running = false; play.textContent = "play"; i = +at.value; show(i); }};
play.onclick = () => {{ running = !running; play.textContent = running ? "pause" : "play"; }};
setInterval(() => {{
  if (running) {{ show(Math.min(i, frames.length - 1)); i = (i + 1) % (frames.length + {hold}); }}
}}, {pause});
show(0);
</script>
""".encode()

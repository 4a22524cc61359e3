"""Write the films of the chapters: clouds of points that move over a density."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from common import Options
from matplotlib.backends.backend_agg import FigureCanvasAgg
from panels import RED, panels, shade, warn
from PIL import Image
from torch import Tensor


def film(
    options: Options, name: str, density: Tensor, reach: float, frames: Sequence[Tensor], *,
    fps: int, titles: Sequence[str], hold: int = 0, top: float = 0.25,
) -> None:  # fmt: skip
    """Write clouds that move over a density as a GIF in 32 colours; the last frame stays longer."""
    figure, (axes,) = panels(1, size=(5.4, 5.7))
    canvas, images = FigureCanvasAgg(figure), []
    shade(axes, density, reach, vmax=top)
    points = axes.scatter(*frames[0].T, s=8, c=RED, linewidths=0)
    warn(figure, options)
    for frame, title in zip(frames, titles, strict=True):
        points.set_offsets(frame)
        axes.set_title(title)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        first = images[0] if images else image.quantize(32)
        images.append(image.quantize(palette=first, dither=Image.Dither.NONE))
    times = [1000 // fps] * (len(images) - 1) + [1000 * (1 + hold) // fps]
    path = options.out / name
    images[0].save(path, save_all=True, append_images=images[1:], duration=times, loop=0)
    print(f"wrote {path}")

"""Turn sketches into digits by SDEdit with the packaged model.

A sketch is perturbed to an intermediate time, and sampling starts there (Meng et al. 2022,
arXiv:2108.01073). With much noise the results are likely digits, with little noise they are close
to the sketch. The script prints the distance to the sketch for each of five noise levels, which are
the rows of the picture below the sketches.

    python examples/editing.py --out figures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw

import scoresde
from scoresde import Noise, plot
from scoresde.guidance import classifier_free

# The corners of one line for each digit from 0 to 9, in a square of 28 pixels.
LINES = [
    [(8, 5), (20, 5), (20, 23), (8, 23), (8, 5)],
    [(14, 4), (14, 24)],
    [(7, 5), (20, 5), (20, 13), (8, 23), (21, 23)],
    [(7, 5), (20, 5), (12, 13), (20, 15), (20, 23), (7, 23)],
    [(9, 4), (7, 14), (21, 14), (19, 14), (19, 5), (19, 24)],
    [(20, 5), (8, 5), (8, 13), (20, 13), (20, 23), (7, 23)],
    [(16, 4), (8, 14), (8, 23), (20, 23), (20, 14), (8, 14)],
    [(7, 5), (21, 5), (12, 24)],
    [(8, 4), (20, 4), (8, 23), (20, 23), (8, 4)],
    [(20, 13), (8, 13), (8, 5), (20, 5), (20, 24)],
]


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    short: bool = False
    """One noise level and two steps, too few to be good."""


def sketches() -> torch.Tensor:
    """Return one drawing of lines for each digit, `(10, 1, 28, 28)` in [-1, 1]."""
    drawn = []
    for line in LINES:
        image = Image.new("L", (28, 28))
        ImageDraw.Draw(image).line(line, fill=255, width=3)
        drawn.append(np.array(image))
    return torch.from_numpy(np.stack(drawn)[:, None]).float() / 127.5 - 1


def main(options: Options) -> None:
    model = scoresde.load("mnist")
    x, label = sketches(), torch.arange(10)
    guided = classifier_free(model, 2.0, interval=(0.3, 3.0))
    noise = Noise.of(0, len(x)).normal(x, 0.0)
    rows = [x]
    print("sigma / alpha   distance to the sketch, per pixel")
    for ratio in (0.7,) if options.short else (0.2, 0.5, 1.0, 2.0, 4.0):
        level = torch.tensor(-2 * np.log(ratio), dtype=torch.float64)
        first = model.sde.time(level)
        times = torch.linspace(float(first), model.sde.eps, 3 if options.short else 41)
        noisy = model.sde.perturb(x, times[0], noise)
        edited = scoresde.sample(
            guided, sampler="pc", x=noisy, times=times, seed=0, condition={"label": label}
        )
        rows.append(edited)
        print(f"{ratio:13.1f}   {float((edited - x).square().mean().sqrt()):.3f}")
    picture = plot.images(torch.cat(rows), columns=10, limits=(-1, 1))
    print(f"wrote {plot.save(picture, options.out / 'editing.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))

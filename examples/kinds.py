"""Train a model of your own data, from a file to a picture: points, signals, images, volumes.

The data are points in a .csv file, signals in a torch Dataset, grey images of 37x53 pixels in a
folder, and volumes in a .npy file. The same four lines train a model of each and draw samples.

    python examples/kinds.py --out figures
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

import scoresde
from scoresde import plot
from scoresde.data import load


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    short: bool = False
    """A run of seconds, too short to be good."""


class Ringing(Dataset[Tensor]):
    """Hold signals of one channel and 100 steps: sines with a random pitch and decay."""

    def __len__(self) -> int:
        return 1_000

    def __getitem__(self, i: int) -> Tensor:
        start, pitch, fading = np.random.default_rng(i).uniform((0, 3, 1), (1, 8, 4))
        t = torch.linspace(0, 1, 100)
        return (torch.exp(-fading * t) * torch.sin(6.2832 * (pitch * t + start)))[None]


def make(folder: Path) -> dict[str, str | Dataset[Tensor]]:
    """Write the files; return the source of each kind of data."""
    rng = np.random.default_rng(0)
    turn = 3 * np.pi * rng.uniform(0.1, 1, 2_000) ** 0.5
    spiral = turn[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    spiral = 100 + 5 * (spiral + 0.3 * rng.normal(size=spiral.shape))
    np.savetxt(folder / "points.csv", spiral, delimiter=",", header="length,width", comments="")

    (folder / "photos").mkdir()
    y, x = np.mgrid[:37, :53]
    for i in range(800):  # a bright ellipse somewhere
        cy, cx, a, b = rng.uniform((12, 14, 5, 5), (25, 39, 11, 11))
        inside = 1 / (1 + np.exp(8 * (((y - cy) / a) ** 2 + ((x - cx) / b) ** 2 - 1)))
        Image.fromarray((255 * inside).astype(np.uint8)).save(folder / f"photos/{i:03}.png")

    grid = np.stack(np.meshgrid(*[np.arange(12)] * 3, indexing="ij"))
    centres = rng.uniform(3, 8, size=(400, 3, 1, 1, 1))
    volumes = np.exp(-((grid - centres) ** 2).sum(1, keepdims=True) / 8)
    np.save(folder / "volumes.npy", volumes.astype(np.float32))
    return {
        "points, a .csv": str(folder / "points.csv"),
        "signals, a torch Dataset": Ringing(),
        "images of 37x53, a folder": str(folder / "photos"),
        "volumes, a .npy": str(folder / "volumes.npy"),
    }


def main(options: Options) -> None:
    sheet = plot.figure((12, 6.4))
    panels = sheet.subplots(2, 4)
    with tempfile.TemporaryDirectory() as folder:
        for (name, source), above, below in zip(make(Path(folder)).items(), *panels, strict=True):
            data = load(source, standardize=name.startswith("points"))
            found = scoresde.suggest(data)
            steps = 10 if options.short else 4_000 if found.net.type == "mlp" else 800
            model = found.trainer(steps=steps).train(progress=False)
            n = 500 if len(data.event_shape) == 1 else 6
            x = scoresde.sample(model, sampler="dpmpp_2m", n=n, steps=20, seed=0, units=True)
            print(f"{name:26s} {data.event_shape!s:16s} {found.net.type}, {steps} steps")
            plot.samples(data[:n], ax=above, title=name)
            plot.samples(x, ax=below, title="drawn by the model")
    print(f"wrote {plot.save(sheet, options.out / 'kinds.png')}")


if __name__ == "__main__":
    main(tyro.cli(Options))

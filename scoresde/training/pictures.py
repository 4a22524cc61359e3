"""Pictures of a run: the loss, and the same samples at every checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from scoresde import plot
from scoresde.checks import check_integer
from scoresde.errors import MissingExtraError
from scoresde.sampling import sample
from scoresde.score import ScoreModel
from scoresde.training.callbacks import Callback
from scoresde.training.log import rows

__all__ = ["Pictures"]

_STEPS = 20


class Pictures(Callback):
    """Draws `loss.png`, `samples.png` and `pictures/step-*.png` at every checkpoint.

    The samples are a grid of images or points in the plane, by DPM-Solver++ in 20 steps: always of
    the same seed, so that one sees the same ones get better. Points are in the units of the data,
    and events of any other shape have no picture. The averaged model draws, and the run itself is
    not touched.

    Args:
        folder: That of the run.
        n: How many samples; by default 16 images, which cost as much as two or three updates with
            128 of them, or 1,000 points.

    Raises:
        InvalidValueError: `n` is no integer of at least 1.
        MissingExtraError: matplotlib is not installed.
    """

    def __init__(self, folder: str | Path, n: int | None = None) -> None:
        self.folder = Path(folder)
        if n is not None:
            check_integer("n", n, 1)
        self.n = n
        try:
            import matplotlib  # noqa: F401, told before the work
        except ImportError as error:
            raise MissingExtraError.of("matplotlib", "plot", "a picture of the loss") from error

    def on_checkpoint(self, step: int, model: ScoreModel) -> None:
        """Draw."""
        self._draw_loss()
        shape = model.event_shape
        is_image = plot.is_image(shape)
        if not is_image and shape != (2,):
            return
        path = self.folder / "pictures" / f"step-{step:08d}.png"
        n = self.n or (16 if is_image else 1000)
        levels = model.sde.levels
        classes = model.classes
        x = sample(
            model,
            model.sde,
            "dpmpp_2m",
            n=n,
            steps=_STEPS if levels is None else min(_STEPS, levels - 1),
            seed=0,
            condition=None if classes is None else {"label": torch.arange(n) % classes},
        )
        if is_image:
            plot.grid(x, path)
        else:
            plot.scatter(model.to_units(x), path, title=f"step {step:,}")
        shutil.copy(path, self.folder / "samples.png")

    def _draw_loss(self) -> None:
        known = [row for row in rows(self.folder / "log.jsonl") if "loss" in row]
        steps, losses = ([row[name] for row in known] for name in ("step", "loss"))
        if steps:
            plot.curve(losses, self.folder / "loss.png", steps=steps)

"""Pictures of a run: the loss, and the same samples at every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from scoresde import checkpoint, plot
from scoresde.checks import check_integer
from scoresde.data import Data
from scoresde.errors import MissingExtraError
from scoresde.sampling import sample
from scoresde.sde import Classes, Field, facts
from scoresde.training.callbacks import Callback
from scoresde.training.log import rows

__all__ = ["Pictures"]

_STEPS = 20


class Pictures(Callback):
    """Draws `loss.png`, `samples.png` and `pictures/step-*.png` at every checkpoint.

    The samples are a grid of images or points in the plane, by DPM-Solver++ in 20 steps: always of
    the same seed, so that one sees the same ones get better. They are of all classes in turn, or,
    of a model of vectors or fields, have the conditions of the first data, held-out ones where
    there are any. Points are in the units of the data,
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
        self._data: Data | None = None
        if n is not None:
            check_integer("n", n, 1)
        self.n = n
        try:
            import matplotlib  # noqa: F401, told before the work
        except ImportError as error:
            raise MissingExtraError.of("matplotlib", "plot", "a picture of the loss") from error

    def on_data(self, data: Data) -> None:
        """Keep the data, of which the samples have the conditions."""
        self._data = data

    def on_checkpoint(self, step: int, model: nn.Module) -> None:
        """Draw."""
        self._draw_loss()
        known = facts(model)
        shape = known.event_shape
        if shape is None or known.sde is None or not (plot.is_image(shape) or shape == (2,)):
            return
        is_image = plot.is_image(shape)
        path = self.folder / "pictures" / f"step-{step:08d}.png"
        n = self.n or (16 if is_image else 1000)
        levels = known.sde.levels
        x = sample(
            model,
            known.sde,
            "dpmpp_2m",
            n=n,
            steps=_STEPS if levels is None else min(_STEPS, levels - 1),
            seed=0,
            condition=self._condition(known.conditions or {}, n),
        )
        if is_image:
            plot.grid(x, path)
        else:
            plot.scatter(
                x if known.transform is None else known.transform.inverse(x),
                path,
                title=f"step {step:,}",
            )
        checkpoint.write_bytes(self.folder / "samples.png", path.read_bytes())

    def _condition(self, kinds: Mapping[str, Classes | Field], n: int) -> Mapping[str, Tensor]:
        """Return those of the first data where one is a tensor, and else all classes in turn."""
        if self._data is not None and any(isinstance(kind, Field) for kind in kinds.values()):
            return self._data.condition(torch.arange(n) % len(self._data)) or {}
        turns = {k: kind.n for k, kind in kinds.items() if isinstance(kind, Classes)}
        return {name: torch.arange(n) % classes for name, classes in turns.items()}

    def _draw_loss(self) -> None:
        known = [row for row in rows(self.folder / "log.jsonl") if "loss" in row]
        steps, losses = ([row[name] for row in known] for name in ("step", "loss"))
        if steps:
            plot.curve(losses, self.folder / "loss.png", steps=steps)

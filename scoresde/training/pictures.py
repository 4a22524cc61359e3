"""Draw pictures of a run: the loss, samples beside data, and the loss at several noise scales."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from scoresde import plot
from scoresde.checks import check_integer
from scoresde.data import Data
from scoresde.noise import Noise
from scoresde.objectives import dsm_loss
from scoresde.plot.shapes import USUAL
from scoresde.sampling import sample
from scoresde.score import device_of, evaluating
from scoresde.sde import SDE, Classes, Facts, Field, facts
from scoresde.training.callbacks import Callback
from scoresde.training.log import rows
from scoresde.training.notebook import losses

__all__ = ["Pictures"]

_STEPS = 20
# For `levels.png`: the number of samples is chosen so that they have about _NUMBERS entries (but 16
# to 256 samples). _SCALES is the number of noise scales.
_NUMBERS, _SCALES = 512, 12


class Pictures(Callback):
    """Draw the loss, and samples in the units of the data, at every checkpoint.

    - `loss.png`: the loss, and the held-out loss if there is one;
    - `samples.png`: samples only, which `scoresde push` uploads;
    - `pictures/step-*.png`: the same samples beside data (held-out data if there are any);
    - `levels.png`: the loss on these data at twelve noise scales, or at up to 23 levels of a
      ladder. If the model has moments, a second line shows the loss of the best linear denoiser of
      single entries; the loss of a trained model should be below it.

    The averaged model draws the samples by DPM-Solver++ in 20 steps. The seed is always the same,
    so one sees the same samples improve from picture to picture. The samples have all classes in
    turn. If the model takes vectors or fields, the samples have the conditions of the data that are
    drawn beside them.

    Args:
        folder: The folder of the run.
        n: The number of samples; by default 16 images, 1,000 points, 12 signals or 4 volumes. To
            draw 16 images takes as long as two or three training steps with a batch of 128.

    Raises:
        InvalidValueError: `n` is not an integer of at least 1.
    """

    def __init__(self, folder: str | Path, n: int | None = None) -> None:
        self.folder = Path(folder)
        self._data: Data | None = None
        if n is not None:
            check_integer("n", n, 1)
        self.n = n

    def on_data(self, data: Data) -> None:
        """Store the data, which are drawn beside the samples and provide their conditions."""
        self._data = data

    def on_checkpoint(self, step: int, model: nn.Module) -> None:
        """Draw all pictures."""
        self._draw_loss()
        known = facts(model)
        if known.event_shape is None or known.sde is None:
            return
        n = self.n or USUAL[plot.kind(known.event_shape)]
        levels = known.sde.levels
        x = sample(
            model,
            known.sde,
            "dpmpp_2m",
            n=n,
            steps=_STEPS if levels is None else min(_STEPS, levels - 1),
            seed=0,
            condition=self._condition(known.conditions or {}, n),
            progress=False,
        ).cpu()
        draw = partial(plot.samples, transform=known.transform, names=known.columns or ())
        plot.save(draw(x), self.folder / "samples.png")
        title = f"step {step:,}"
        if self._data is None:
            beside = draw(x, title=title)
        else:
            data = self._data.batch(torch.arange(n) % len(self._data)).to(x)
            sets = {"data": data[: len(self._data)], "samples": x}
            beside = draw(sets, title=title)
            self._draw_levels(model, known, known.sde)
        plot.save(beside, self.folder / "pictures" / f"step-{step:08d}.png")

    def _condition(self, kinds: Mapping[str, Classes | Field], n: int) -> Mapping[str, Tensor]:
        """Return the conditions of n data if some are vectors, else all classes in turn."""
        if self._data is not None and any(isinstance(kind, Field) for kind in kinds.values()):
            return self._data.condition(torch.arange(n) % len(self._data)) or {}
        turns = {k: kind.n for k, kind in kinds.items() if isinstance(kind, Classes)}
        return {name: torch.arange(n) % classes for name, classes in turns.items()}

    def _draw_loss(self) -> None:
        drawn = losses(list(rows(self.folder / "log.jsonl")))
        if drawn is not None:
            plot.save(drawn, self.folder / "loss.png")

    @torch.no_grad()
    def _draw_levels(self, model: nn.Module, known: Facts, sde: SDE) -> None:
        """Draw the loss over the noise scale sigma / alpha, with 95 % intervals."""
        assert self._data is not None
        rows_of = min(256, max(16, _NUMBERS // max(1, math.prod(self._data.event_shape))))
        where, index = device_of(model), torch.arange(min(rows_of, len(self._data)))
        x = self._data.batch(index).to(where, torch.float32)
        given = self._data.condition(index)
        taken = {k: v.to(where) for k, v in (given or {}).items() if k in (known.conditions or {})}
        n, size = len(x), x[0].numel()
        curve, linear = [], []
        var = None if known.moments is None else known.moments.var
        var = None if var is None else torch.as_tensor(var, dtype=torch.float64)
        # take every `stride`-th level of a ladder
        stride = 1 if sde.levels is None else max(1, sde.levels // _SCALES)
        for time in sde.times(_SCALES - 1 if sde.levels is None else None)[::stride]:
            if (sigma := float(sde.sigma(time))) == 0:
                continue
            with evaluating(model):
                loss = dsm_loss(
                    model, sde, x, t=float(time), noise=Noise.of(0, n), condition=taken or None
                ).double()
            value, error = float(loss.mean()) / size, float(loss.std()) / size / n**0.5
            ratio = sigma / float(sde.alpha(time))
            curve.append((ratio, value, value - 1.96 * error, value + 1.96 * error))
            if var is not None:
                best = float((var / (var + ratio**2)).mean())
                linear.append((ratio, best, best, best))
        curves = {"the model": curve} | ({"a linear denoiser": linear} if linear else {})
        drawn = plot.loss_by_noise(curves, name="squared error of the predicted noise, per entry")
        plot.save(drawn, self.folder / "levels.png")

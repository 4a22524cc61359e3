r"""Define `scoresde edit`: move data towards the distribution of a model.

SDEdit (Meng et al. 2022, arXiv:2108.01073): the data are perturbed to an intermediate time and
sampled down from there. With much noise the result is likely under the model, with little noise it
is close to the data.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from scoresde import checkpoint, distributed
from scoresde.checks import check_integer, check_range, outside
from scoresde.cli.drawing import Drawn, cost, shown, write
from scoresde.cli.given import Conditions, Given, Guidance, Interval, OneClass
from scoresde.cli.held_out import Question, asked
from scoresde.cli.options import BatchSize, Checkpoint, SamplerName, Seed, Steps
from scoresde.cli.outputs import check_out, check_replaced
from scoresde.cli.sample_picture import PICTURES
from scoresde.cli.standing import model_of
from scoresde.cli.terminal import tell, then
from scoresde.data.images import pixels
from scoresde.errors import DataError, InvalidValueError
from scoresde.noise import Noise
from scoresde.sampling import Run
from scoresde.score import ScoreModel
from scoresde.sde import SDE
from scoresde.sde.coordinates import ratio
from scoresde.units import Identity

__all__ = ["IMAGES", "Edit", "image"]

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass(frozen=True)
class Edit:
    """Move data towards a model's distribution: noise is added, and removed by the model."""

    checkpoint: Checkpoint
    out: Path
    """The file to write: a picture (.png, .jpg, .pdf or .svg) or numbers (.npy, .npz or
    .safetensors)."""
    data: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="SOURCE",
            help_behavior_hint="(default: the held-out data of the model's run)",
        ),
    ] = None
    """The data to edit: an image file, a .npy or .npz file, a folder of images, or the name of a
    data set. Images are cropped and resized to the model's size. Light and dark must be as in the
    training data: digits are light on dark."""
    strength: float = 0.5
    """The amount of noise that is added, above 0 and at most 1. Towards 0 it is the smallest noise
    of the model, and 1 is the largest, which leaves hardly anything of the data. Between them,
    log(sigma / alpha) is linear in the strength."""
    n: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: one of each sample)")
    ] = None
    """The number of edits, at least 1. If it is larger than the number of samples in the data,
    samples are edited several times, each time with other noise."""
    sampler: SamplerName = "fast"
    steps: Steps = None
    """The number of steps, at least 1, of a whole run that starts at the largest noise. An edit
    starts later, and makes only the last steps of such a run."""
    seed: Seed = 0
    class_: OneClass = None
    condition: Conditions = ()
    guidance: Guidance = None
    interval: Interval = None
    batch_size: BatchSize = 64

    def run(self) -> None:
        """Edit and write."""
        kinds = (*PICTURES, ".npy", ".npz", ".safetensors")
        check_out(self.out, kinds, read=(self.data or "", *self.condition), of=self.checkpoint)
        check_replaced(self.out)
        check_range("strength", self.strength, "(0, 1]")
        model = model_of(self.checkpoint).to(distributed.device())
        x = self._data(model)
        n = len(x) if self.n is None else check_integer("n", self.n, 1)
        x = x[torch.arange(n) % len(x)].to(distributed.device())
        given = Given.of(model, n, self.condition, self.class_, self.guidance, self.interval)
        options: dict[str, Any] = dict(
            sampler=self.sampler, n=n, seed=self.seed, condition=given.rows(range(n))
        )
        whole = Run.of(given.guided(model), steps=self.steps, **options)
        times = _from(model.sde, whole.times, self.strength)
        noise = Noise.of(self.seed, n).normal(x, math.inf)
        noisy = model.sde.perturb(x, times[0], noise)
        start = time.perf_counter()
        found = Run.of(given.guided(model), times=times, x=noisy, **options).draw(self.batch_size)
        seconds = time.perf_counter() - start
        drawn = Drawn(found.x.cpu(), None, found.nfe, found.passes, seconds)
        if not distributed.is_main():
            return
        write(self.out, {"x": shown(self.out, drawn.x, model)}, model)
        level = float(ratio(model.sde, times[0]))
        tell(
            f"{n} edit{'' if n == 1 else 's'} from the noise sigma / alpha = {level:.3g} in "
            f"{seconds:.1f} s, "
            f"{cost(drawn)}: {self.out}"
        )
        data = [] if self.data is None else ["--data", self.data]
        strength = f"{min(1, 1.5 * self.strength):.3g}"
        words = [self.checkpoint, *data, "--strength", strength, "--out", self.out]
        words += [] if self.class_ is None else ["--class", self.class_]
        words += [word for one in self.condition for word in ("--condition", one)]
        if strength != f"{self.strength:.3g}":
            then("leave less of the data", "edit", *words)

    def _data(self, model: ScoreModel) -> Tensor:
        """Return the data `(n, *)`, in model units."""
        path = Path(self.data or "")
        if path.suffix.lower() in IMAGES:
            return image(path, model)
        data = asked(Question(self.checkpoint, self.data), model).data
        rows = slice(0, len(data) if self.n is None else self.n)
        return data.batch(rows).float()


def _from(sde: SDE, times: Tensor, strength: float) -> Tensor:
    """Return the time of a strength, followed by the smaller times of a grid."""
    high, low = sde.log_snr(torch.tensor([sde.eps, sde.T], dtype=torch.float64))
    first = sde.time(high + strength * (low - high)).clamp(sde.eps, sde.T)
    if sde.levels is not None:
        first = sde.times().flip(0)[sde.index(first)]
    return torch.cat([first[None], times[times < first - 1e-9 * sde.T]])


def image(path: Path, model: ScoreModel) -> Tensor:
    """Return an image file `(1, C, H, W)` in [-1, 1], cropped and resized to the model's shape.

    A warning says how the image was changed if it has another size.
    """
    from PIL import Image

    if len(model.event_shape) != 3 or model.event_shape[0] not in (1, 3):
        raise InvalidValueError(
            f"one image is not a sample of a model of shape {model.event_shape}; give a .npy file"
        )
    if model.transform != Identity() and model.transform.levels is None:
        raise InvalidValueError(
            f"the training data of the model were not images (their transform is "
            f"{model.transform}); give a .npy file in the units of these data"
        )
    channels, height, width = model.event_shape
    try:
        with checkpoint.open_file(path) as file, Image.open(file) as opened:
            mode = "L" if channels == 1 else "RGB"
            whole, found = (pixels(opened, size, mode) for size in (None, (height, width)))
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except Exception as error:  # Pillow raises many kinds of errors for a damaged file
        raise DataError(f"cannot read the image {path}: {error}") from error
    high, wide = whole.shape[1:]
    if (high, wide) != (height, width):
        cropped = "" if high * width == wide * height else "cropped about its centre and "
        warnings.warn(
            f"{path} has {wide} x {high} pixels; it was {cropped}resized to the {width} x {height} "
            "pixels of the model",
            UserWarning,
            stacklevel=outside(),
        )
    return torch.from_numpy(found.copy())[None].float() / 127.5 - 1

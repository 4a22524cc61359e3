"""Define `scoresde inpaint`: draw the missing part of data given the known part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from scoresde import distributed
from scoresde.checks import check_integer
from scoresde.cli.csv_text import check_vectors
from scoresde.cli.edit import IMAGES, image
from scoresde.cli.given import Conditions, Given, array
from scoresde.cli.options import BatchSize, Checkpoint, SamplerName, Seed, Steps
from scoresde.cli.outputs import ARRAYS, check_out, check_replaced
from scoresde.cli.remarks import tell_costs
from scoresde.cli.sample import Drawn, cost, shown, write
from scoresde.cli.sample_picture import PICTURES, PictureOptions, rounded
from scoresde.cli.standing import model_of
from scoresde.cli.terminal import tell, then
from scoresde.errors import ShapeError
from scoresde.samplers import Impute
from scoresde.sampling import SAMPLERS, Run
from scoresde.score import ScoreModel

__all__ = ["SUFFIXES", "Inpaint", "finished", "given_again", "with_channel"]

SUFFIXES = (*PICTURES, *ARRAYS)
"""The suffixes of the output of `inpaint` and `solve`."""


@dataclass(frozen=True)
class Inpaint:
    """Draw the missing part of an image or an array, and keep the known part."""

    checkpoint: Checkpoint
    out: Path
    """The file to write: a picture (.png, .jpg, .pdf or .svg) or numbers (.npy, .npz,
    .safetensors, or for vectors .csv)."""
    image: Path
    """The known part: an image, cropped and resized to the model's size, or a .npy file in the
    units of the training data."""
    mask: Path
    """The mask of the known part: an image, light where it is known, or a .npy file of 1 and 0."""
    n: int = 16
    """The number of samples, at least 1."""
    resample: int = 5
    """The number of times that each step is repeated, at least 1. With more repetitions the drawn
    part agrees better with the known part.
    """
    sampler: SamplerName = "ancestral"
    steps: Steps = None
    seed: Seed = 0
    class_: Annotated[
        str | None, tyro.conf.arg(name="class", metavar="NAME", help_behavior_hint="(default: any)")
    ] = None
    """The name of the class, or its number counted from 0; for models trained with labels."""
    condition: Conditions = ()
    batch_size: BatchSize = 64

    def run(self) -> None:
        """Draw the samples and write them to `out`."""
        read: tuple[str | Path, ...] = (self.image, self.mask, *self.condition)
        check_out(self.out, SUFFIXES, read=read, of=self.checkpoint)
        check_replaced(self.out)
        check_integer("n", self.n, 1)
        model = model_of(self.checkpoint).to(distributed.device())
        check_vectors(self.out, model)
        known = _read(self.image, model)
        mask = _read(self.mask, model, known=True)
        given = Given.of(model, self.n, self.condition, self.class_)
        method = SAMPLERS.get(self.sampler, self.sampler)
        run = Run.of(
            model, sampler=method if isinstance(method, str) else Impute(method, self.resample),
            n=self.n, steps=self.steps, seed=self.seed,
            condition={**given.rows(range(self.n)), "known": known, "mask": mask},
        )  # fmt: skip
        part = model.transform.inverse(known[None])[0].where(mask > 0, torch.nan)
        options = PictureOptions(known=part, given=given.values)
        finished(run, model, self.out, self.batch_size, "inpainted sample", options)
        if not distributed.is_main():
            return
        words = given_again(self.condition, self.steps)
        words += [] if self.class_ is None else ["--class", self.class_]
        then(
            "make the drawn part agree better with the known part", "inpaint", self.checkpoint,
            "--image", self.image, "--mask", self.mask, *words, "--n", self.n,
            "--resample", 2 * self.resample, "--out", self.out,
        )  # fmt: skip


def finished(
    run: Run,
    model: ScoreModel,
    out: Path,
    batch_size: int,
    what: str,
    options: PictureOptions | None = None,
) -> None:
    """Draw the samples of a run, write them, and print what they cost."""
    start = time.perf_counter()
    found = run.draw(batch_size)
    drawn = Drawn(found.x.cpu(), None, found.nfe, found.passes, time.perf_counter() - start)
    if not distributed.is_main():
        return
    x = drawn.x if run.transform is not None else shown(out, drawn.x, model)
    write(out, {"x": x if out.suffix in PICTURES else rounded(x, model)}, model, options)
    named = what if len(x) == 1 else f"{what}s"
    tell(f"wrote {len(x)} {named} to {out} ({drawn.seconds:.1f} s, {cost(drawn)})")
    tell_costs(len(x), batch_size, drawn.seconds, model.whole)


def given_again(condition: Sequence[str], steps: int | None) -> list[str]:
    """Return the words that give the next command the same conditions and number of steps."""
    words = [word for one in condition for word in ("--condition", one)]
    return words + ([] if steps is None else ["--steps", str(steps)])


def with_channel(value: Tensor, model: ScoreModel) -> Tensor:
    """Return an event with an axis of one channel in front if the model has it and value has not.

    Models of data that were read with a layout have this axis.
    """
    return value[None] if (1, *value.shape) == model.event_shape else value


def _read(path: Path, model: ScoreModel, known: bool = False) -> Tensor:
    """Return the sample that a file holds, in model units.

    If `known` is True, the file is the mask of the known part, which is not in any units.
    """
    if path.suffix.lower() in IMAGES:
        found = image(path, model)[0]
        return (found > 0).float() if known else found
    value = with_channel(torch.as_tensor(array(path)), model)
    if tuple(value.shape) != model.event_shape:
        raise ShapeError(
            f"{path} holds an array of shape {tuple(value.shape)}, but the model's samples have "
            f"the shape {model.event_shape}"
        )
    return value if known else model.transform.forward(value[None])[0].float()

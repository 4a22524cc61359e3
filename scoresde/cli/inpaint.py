"""Define `scoresde inpaint`: draw the missing part of data given the known part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from torch import Tensor

from scoresde import distributed
from scoresde.checks import check_integer
from scoresde.cli.csv_text import check_vectors
from scoresde.cli.drawing import Drawn, cost, shown, write
from scoresde.cli.given import Conditions, Given, OneClass
from scoresde.cli.known_part import KnownPart
from scoresde.cli.options import Checkpoint, SamplerName, Seed, Steps
from scoresde.cli.outputs import ARRAYS, check_out, check_replaced
from scoresde.cli.remarks import tell_costs
from scoresde.cli.sample_picture import PICTURES, PictureOptions, rounded
from scoresde.cli.standing import model_of
from scoresde.cli.terminal import tell, then
from scoresde.samplers import Impute
from scoresde.sampling import SAMPLERS, Run, Samples
from scoresde.score import ScoreModel

__all__ = ["FEW", "SUFFIXES", "Inpaint", "finished", "given_again"]

FEW = 16
"""The default number of samples of one image or measurement, and of samples per batch."""
_MANY = {True: 256, False: 64}  # samples per batch of several vectors, and of several others

SUFFIXES = (*PICTURES, *ARRAYS)
"""The suffixes of the output of `inpaint` and `solve`."""


@dataclass(frozen=True)
class Inpaint:
    """Draw the missing part of images, arrays or rows of a table, and keep the known part."""

    checkpoint: Checkpoint
    out: Path
    """The file to write: a picture (.png, .jpg, .pdf or .svg) or numbers (.npy, .npz,
    .safetensors, or for vectors .csv)."""
    image: Path
    """The known part: an image, cropped and resized to the model's size; or a .npy file in the
    units of the training data, with one sample or several; or a table with a sample in each row and
    empty cells where numbers are missing."""
    mask: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: what is not NaN and not empty)")
    ] = None
    """The mask of the known part: an image, light where it is known, or a .npy file of 1 and 0. An
    image needs it."""
    n: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="INT", help_behavior_hint="(default: 16 for one, 1 each for several)"
        ),
    ] = None
    """The number of samples of each row or image, at least 1."""
    resample: int = 5
    """The number of times that each step is taken, at least 1. If it is taken more often, the drawn
    part agrees better with the known part.
    """
    sampler: SamplerName = "ancestral"
    steps: Steps = None
    seed: Seed = 0
    class_: OneClass = None
    condition: Conditions = ()
    batch_size: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="INT",
            help_behavior_hint="(default: 16 for one, 64 for several, 256 for several vectors)",
        ),
    ] = None
    """The number of samples that the network evaluates at once, at least 1. A smaller number needs
    less memory; the results may differ in the last digits."""

    def run(self) -> None:
        """Draw the samples and write them to `out`."""
        read: tuple[str | Path, ...] = (self.image, self.mask or "", *self.condition)
        check_out(self.out, SUFFIXES, read=read, of=self.checkpoint)
        check_replaced(self.out)
        if self.n is not None:
            check_integer("n", self.n, 1)
        model = model_of(self.checkpoint).to(distributed.device())
        check_vectors(self.out, model)
        part = KnownPart.read(self.image, self.mask, model, self.checkpoint)
        for name, value in part.condition.items():
            if lacking := int((model.facts.conditions or {})[name].missing(value).sum()):
                tell(
                    f"{name} is a condition, which is not drawn: it stays empty in {lacking} of "
                    f"{len(value)} rows"
                )
        each = self.n or (FEW if len(part.x) == 1 else 1)
        n = each * len(part.x)
        given = Given.of(model, n, self.condition, self.class_)
        condition = {**part.rows(model, each), **given.rows(range(n))}
        method = SAMPLERS.get(self.sampler, self.sampler)
        run = Run.of(
            model, sampler=method if isinstance(method, str) else Impute(method, self.resample),
            n=n, steps=self.steps, seed=self.seed, condition=condition,
        )  # fmt: skip
        kept = part.values(each)
        given_values = {k: v for k, v in condition.items() if k not in Impute.conditions}
        options = PictureOptions(known=kept[0] if len(part.x) == 1 else None, given=given_values)
        usual = FEW if len(part.x) == 1 else _MANY[len(model.event_shape) == 1]
        batch_size = usual if self.batch_size is None else self.batch_size
        open_rows = part.open_rows(each)
        if len(open_rows) < n:
            tell(
                f"{(n - len(open_rows)) // each} of {len(part.x)} rows have no gap, and stay equal"
            )
        partly = _Partly(run.rows(open_rows), condition["known"], open_rows)
        finished(partly, model, self.out, batch_size, "inpainted sample", options, kept)
        if not distributed.is_main():
            return
        words = given_again(self.condition, self.class_, self.steps, self.batch_size)
        then(
            "make the drawn part agree better with the known part", "inpaint", self.checkpoint,
            "--image", self.image, *([] if self.mask is None else ["--mask", self.mask]), *words,
            "--sampler", self.sampler, "--n", each, "--resample", 2 * self.resample,
            "--seed", self.seed, "--out", self.out,
        )  # fmt: skip


@dataclass(frozen=True)
class _Partly:
    """Hold a run of some rows of samples, of which the other rows are known.

    Args:
        run: The run.
        x: All samples `(n, *)`, with any values in the rows of the run.
        rows: The rows of the run.
    """

    run: Run
    x: Tensor
    rows: list[int]
    transform: None = None

    def draw(self, batch_size: int) -> Samples:
        """Return all samples."""
        found = self.run.draw(batch_size)
        x = self.x.to(found.x, copy=True)
        x[self.rows] = found.x
        return replace(found, x=x)


def finished(
    run: Run | _Partly,
    model: ScoreModel,
    out: Path,
    batch_size: int,
    what: str,
    options: PictureOptions,
    kept: Tensor | None = None,
) -> None:
    """Draw the samples of a run, write them, and print what they cost.

    Args:
        run: The run.
        model: The model.
        out: The file to write.
        batch_size: The number of samples per batch.
        what: The name of one sample, for the message.
        options: The options of a picture.
        kept: Values that the written numbers keep to the last digit, NaN elsewhere.
    """
    start = time.perf_counter()
    found = run.draw(batch_size)
    drawn = Drawn(found.x.cpu(), None, found.nfe, found.passes, time.perf_counter() - start)
    if not distributed.is_main():
        return
    x = drawn.x if run.transform is not None else shown(out, drawn.x, model)
    if out.suffix not in PICTURES:
        x = rounded(x, model)
        x = x if kept is None else x.where(kept.isnan(), kept)
    write(out, {"x": x}, model, options)
    named = what if len(x) == 1 else f"{what}s"
    tell(f"wrote {len(x)} {named} to {out} ({drawn.seconds:.1f} s, {cost(drawn)})")
    tell_costs(len(x), batch_size, drawn.seconds, model.whole)


def given_again(
    condition: Sequence[str], label: str | None, steps: int | None, batch_size: int | None
) -> list[str]:
    """Return the words that give the next command the same conditions, steps and batches."""
    words = [word for one in condition for word in ("--condition", one)]
    words += [] if label is None else ["--class", label]
    words += [] if steps is None else ["--steps", str(steps)]
    return words + ([] if batch_size in (None, FEW) else ["--batch-size", str(batch_size)])

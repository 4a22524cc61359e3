"""Define `scoresde sample`: draw from a trained model into a picture or an array file."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from scoresde import distributed, plot
from scoresde.checks import check_integer
from scoresde.cli.csv_text import check_vectors
from scoresde.cli.drawing import cost, draw, fingerprint, in_turn, shown, write
from scoresde.cli.given import (
    ClassName,
    Conditions,
    Given,
    Guidance,
    Interval,
    left_open,
    without_class,
)
from scoresde.cli.held_out import Asked, Question, conditions_of, named, run_of
from scoresde.cli.open import PLAIN
from scoresde.cli.options import Checkpoint, SamplerName, Steps
from scoresde.cli.outputs import FILMS, check_folder, check_out, check_replaced
from scoresde.cli.pilots import announce
from scoresde.cli.remarks import tell_costs
from scoresde.cli.sample_picture import (
    PICTURES,
    PictureOptions,
    data_beside,
    in_words,
    rounded,
)
from scoresde.cli.standing import model_of
from scoresde.cli.terminal import tell, then
from scoresde.data import order
from scoresde.errors import InvalidValueError
from scoresde.plot.shapes import USUAL
from scoresde.sampling import Run, Shards
from scoresde.score import ScoreModel
from scoresde.score.pilot_file import SLOW_PILOT
from scoresde.sde import facts

__all__ = ["Sample"]

# The default number of samples, other than points in a picture or samples in an animation.
_USUAL = 64


@dataclass(frozen=True)
class Sample:
    """Draw samples from a trained model.

    A sample depends only on its number and on the seed, not on --n. Run the command again after an
    interruption to continue. Under torchrun the batches are divided among the processes, and the
    samples stay the same.
    """

    checkpoint: Checkpoint
    out: Path
    """The file to write, in the units of the training data; its suffix says what is written. A
    picture of points, signals, images or volumes: .png, .jpg, .pdf or .svg. The trajectory from
    noise to samples: .gif, or .html with a slider. The numbers: .npy, .npz or .safetensors (as
    bytes if the data were bytes). Vectors with the names of their columns: .csv. More samples than
    fit into memory: a folder, whose name has no suffix, with a .safetensors file for each batch."""
    n: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="INT",
            help_behavior_hint="(default: 64; 1000 points in a picture; in a .gif or .html 1000 "
            "points, 16 images, 12 signals or 4 volumes)",
        ),
    ] = None
    """The number of samples, at least 1 (in Python the default of `sample` is 1)."""
    sampler: SamplerName = "fast"
    steps: Steps = None
    """The number of steps, at least 1. More steps are slower and more accurate."""
    seed: int = 0
    """An integer from 0 to 2**64 - 1; the same seed gives the same samples."""
    class_: ClassName = None
    """Draw this class only, given by its name or its number from 0; for models with labels."""
    condition: Conditions = ()
    guidance: Guidance = None
    interval: Interval = None
    first: int = 0
    """The number of the first sample, counted from 0: --first 64 continues where --n 64 ended."""
    batch_size: int = 64
    """The number of samples that the network evaluates at once, at least 1. Fewer need less memory;
    the samples may differ in the last digits."""
    scale: Annotated[
        int | None,
        tyro.conf.arg(metavar="INT", help_behavior_hint="(default: for a picture of 600 pixels)"),
    ] = None
    """The side of an image's pixel, in pixels of the picture, at least 1."""
    columns: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: about a square)")
    ] = None
    """The number of images side by side in a picture, at least 1."""
    round: Annotated[bool, PLAIN] = True
    """Round the columns that held only integers in the training data."""
    beside: Annotated[
        str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="(default: none)")
    ] = None
    """Data to show beside the samples in a picture, given as for train. If no condition is given,
    and these data have the conditions of the model, the samples are drawn given these. As many data
    as samples are shown, chosen at random, or all data if they are fewer."""
    like: Annotated[
        str | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="(default: none)")
    ] = None
    """Data, given as for train, from which the conditions of the samples are taken, in a random
    order. So each class is drawn as often as it occurs in these data."""

    def run(self) -> None:
        """Draw and write, and print the next command."""
        self.fill()
        if self.out.suffix in PICTURES:
            tell(
                f"{self.out} is a picture of the samples; write {self.out.with_suffix('.npy')} to "
                "use their numbers again"
            )
        if run_of(self.checkpoint) is not None:
            then("compare samples with data", "evaluate", self.checkpoint)

    def fill(self, *, scratch: bool = False) -> None:
        """Draw and write; with `scratch`, replace samples drawn with other options."""
        for name, value in (("n", self.n), ("scale", self.scale), ("columns", self.columns)):
            if value is not None:
                check_integer(name, value, 1)
        in_file = bool(self.out.suffix)
        if in_file:
            read = (*self.condition, self.beside or "", self.like or "")
            check_out(self.out, read=read, of=self.checkpoint)
            check_replaced(self.out)
        else:
            check_folder(self.out)
        model = model_of(self.checkpoint).to(distributed.device())
        check_vectors(self.out, model)
        run = run_of(self.checkpoint)
        like = "DATA" if run is None else run.data.source
        n = self.n or self._usual(model)
        beside = self._beside(model)
        given, source = self._given(model, n, beside)
        lines = left_open(model, self.condition, self.class_, like)
        for line in without_class(model, given, source) if source else lines:
            tell(line)
        if self.sampler == "fast" and model.pilot is None and facts(model).pilot is not None:
            announce(model, self.steps)
        other = None if beside is None else data_beside(beside, model, given.values)[:n]
        if self.out.suffix in FILMS:
            self._film(model, n, given)
            return
        folder = self.out.with_name(f"{self.out.name}.shards") if in_file else self.out
        shards = Shards(folder, n, self.batch_size)
        spent = ""
        start = time.perf_counter()

        def chunk(rows: range) -> dict[str, Tensor]:
            nonlocal spent
            drawn = draw(
                model,
                self.sampler,
                n=len(rows),
                steps=self.steps,
                seed=self.seed,
                given=replace(given, values=given.rows(rows)),
                first=self.first + rows.start,
                batch_size=self.batch_size,
            )
            spent = f", {cost(drawn)}"
            x = shown(self.out, drawn.x, model)
            x = rounded(x, model) if self.round and self.out.suffix not in PICTURES else x
            return {"x": x} if drawn.label is None else {"x": x, "y": drawn.label}

        missing = shards.draw(chunk, self._request(model, given), scratch=in_file or scratch)
        if not distributed.is_main():
            return
        if in_file:
            of = {k: v.cpu() for k, v in given.values.items()}
            options = PictureOptions(self.scale, self.columns, of, beside=other, round=self.round)
            write(self.out, shards.joined(), model, options)
            shards.remove()
        there = len(shards) - missing
        already = f", {there} of {len(shards)} batches were there" if there else ""
        pilot, seconds = model.pilot_seconds, time.perf_counter() - start
        first = f", after {pilot:.1f} s of measuring" if pilot >= SLOW_PILOT else ""
        tell(
            f"{n} samples of shape {model.event_shape} in {seconds - pilot:.1f} s{first}"
            f"{spent}{already}: {self.out}"
        )
        tell_costs(n, self.batch_size, seconds - pilot, model.whole if self.round else ())

    def _beside(self, model: ScoreModel) -> Asked | None:
        """Return the data to show beside the samples, or None if none are named."""
        if self.beside is None:
            return None
        if self.out.suffix not in PICTURES:
            raise InvalidValueError(
                f"--beside needs a picture, {', '.join(PICTURES)}; got {self.out}"
            )
        return self._named(self.beside, model)

    def _named(self, source: str, model: ScoreModel) -> Asked:
        return Asked(named(Question(self.checkpoint, source), source, model), source)

    def _given(self, model: ScoreModel, n: int, beside: Asked | None) -> tuple[Given, str | None]:
        """Return the conditions of n samples and the guidance, and where conditions come from.

        Without `like`, the conditions are those of the data beside the samples, if none is given
        and these data have all that the model takes.
        """
        given = Given.of(model, n, self.condition, self.class_, self.guidance, self.interval)
        declared = facts(model).conditions or {}
        if self.like is not None:
            asked = self._named(self.like, model)
        elif beside is None or given.values or not declared.keys() <= beside.data.kinds.keys():
            return given, None
        else:
            asked = beside
        known = conditions_of(asked.data, asked.source, model)
        if known is None:
            if self.like is None:
                return given, None
            raise InvalidValueError("this model takes no condition; leave out --like")
        rows = torch.arange(self.first, self.first + n) % len(asked.data)
        rows = order(len(asked.data), seed=self.seed, epoch=0)[rows]
        return replace(given, values={**known.rows(rows), **given.values}), asked.source

    def _usual(self, model: ScoreModel) -> int:
        """Return the default number of samples in the output."""
        kind = plot.kind(model.event_shape)
        points = kind == "points" and self.out.suffix in PICTURES
        return USUAL[kind] if points or self.out.suffix in FILMS else _USUAL

    def _film(self, model: ScoreModel, n: int, given: Given) -> None:
        """Write the trajectory from noise to samples as an animation."""
        start = time.perf_counter()
        condition = in_turn(model, given, n, self.first)
        run = Run.of(
            given.guided(model), sampler=self.sampler, n=n, steps=self.steps, seed=self.seed,
            first=self.first, condition=condition,
        )  # fmt: skip
        if not distributed.is_main():
            return
        path = plot.animate(
            run.states(), self.out, transform=model.transform, names=model.columns, n=n,
            scale=self.scale, columns=self.columns, labels=in_words(condition, model, n)[1],
        )  # fmt: skip
        spent = time.perf_counter() - start
        tell(f"the trajectory of {n} samples of shape {model.event_shape} in {spent:.1f} s: {path}")

    def _request(self, model: ScoreModel, given: Given) -> dict[str, Any]:
        """Return all options that the samples depend on, as JSON values."""
        return given.request() | {
            "model": fingerprint(model),
            "sampler": self.sampler,
            "steps": self.steps,
            "seed": self.seed,
            "class": self.class_,
            "first": self.first,
            "batch_size": self.batch_size,
            "round": self.round,
        }

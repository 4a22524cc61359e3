"""Draw samples of a model, and write them in the format of a suffix."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoresde import checkpoint, plot
from scoresde.checks import check_integer
from scoresde.cli.csv_text import as_csv
from scoresde.cli.given import Given
from scoresde.cli.sample_picture import PICTURES, PictureOptions, picture
from scoresde.sampling import Run
from scoresde.score import ScoreModel
from scoresde.score.pilot_file import weights_of
from scoresde.sde import Classes, class_name, facts

__all__ = ["Drawn", "cost", "draw", "fingerprint", "in_turn", "shown", "write"]


class Drawn(NamedTuple):
    """Hold samples and their cost."""

    x: Tensor
    label: Tensor | None
    nfe: int
    passes: int
    seconds: float


def draw(
    model: ScoreModel,
    sampler: str,
    *,
    n: int,
    steps: int | None,
    seed: int,
    given: Given | None = None,
    first: int = 0,
    batch_size: int = 64,
) -> Drawn:
    """Return samples `first ... first + n - 1` of a seed.

    Args:
        model: A score model; if it has labels and none is given, sample i has the class i modulo
            the number of classes.
        sampler: A name of `SAMPLERS`.
        n: The number of samples, at least 1.
        steps: The number of steps of the sampler; None for the default.
        seed: The seed of the samples.
        given: The conditions, one row for each sample or one for all, and the guidance.
        first: The number of the first sample.
        batch_size: The number of samples per batch; the last batch is padded.

    Raises:
        InvalidValueError: `n` is below 1, or the guidance is not possible for this model.
    """
    check_integer("n", n, 1)
    given = Given() if given is None else given
    condition = in_turn(model, given, n, first)
    start = time.perf_counter()
    drawn = Run.of(
        given.guided(model), sampler=sampler, n=n, steps=steps, seed=seed, first=first,
        condition=condition,
    ).draw(batch_size)  # fmt: skip
    seconds = time.perf_counter() - start
    label = condition.get(class_name(facts(model).conditions) or "")
    return Drawn(drawn.x.cpu(), label, drawn.nfe, drawn.passes, seconds)


def in_turn(model: ScoreModel, given: Given, n: int, first: int) -> dict[str, Tensor]:
    """Return the given conditions of the samples, or all classes in turn if none is given."""
    kinds = facts(model).conditions or {}
    condition, name = dict(given.rows(range(n))), class_name(kinds)
    kind = kinds.get(name or "")
    if name is not None and isinstance(kind, Classes) and name not in condition:
        condition[name] = (torch.arange(n) + first % kind.n) % kind.n
    return condition


def cost(drawn: Drawn) -> str:
    """Return the evaluations and network passes of the samples, as text."""
    if drawn.passes == drawn.nfe:
        return f"{drawn.nfe} evaluations of the network each"
    return f"{drawn.nfe} evaluations of the score each, {drawn.passes} passes of the network"


def shown(path: Path, x: Tensor, model: ScoreModel) -> Tensor:
    """Return samples in model units for a picture, else in the units of the training data."""
    return x if path.suffix in PICTURES else model.transform.restore(x)


def fingerprint(model: ScoreModel) -> str:
    """Return a checksum of a model's weights and description."""
    pilot = {} if model.given_pilot is None else model.given_pilot.tensors()
    return checkpoint.digest(
        {name: value.cpu() for name, value in pilot.items()}, weights_of(model), checkpoint.SCHEMA
    )[:16]


def write(
    path: Path, tensors: dict[str, Tensor], model: ScoreModel, options: PictureOptions | None = None
) -> None:
    """Write samples in the format of the suffix, with their labels, except in a .npy file.

    A .csv file also has the conditions that `as_csv` writes.
    """
    if path.suffix in PICTURES:
        plot.save(picture(tensors, model, options or PictureOptions()), path)
        return
    if path.suffix == ".safetensors":
        checkpoint.save_tensors(path, tensors)
        return
    arrays: dict[str, Any] = {name: value.numpy() for name, value in tensors.items()}
    if path.suffix == ".csv":
        given = {} if options is None else options.given
        checkpoint.write_bytes(path, as_csv(arrays, model, given).encode())
        return
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, arrays["x"])
    else:
        np.savez(buffer, **arrays)
    checkpoint.write_bytes(path, buffer.getvalue())

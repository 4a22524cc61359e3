"""Define `scoresde solve`: draw samples of a model that agree with a linear measurement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from scoresde import distributed, plot
from scoresde.checks import check_integer, check_name
from scoresde.cli.csv_text import check_vectors
from scoresde.cli.given import Conditions, Given, OneClass, array
from scoresde.cli.inpaint import FEW, SUFFIXES, finished, given_again
from scoresde.cli.known_part import with_channel
from scoresde.cli.options import BatchSize, Checkpoint, SamplerName, Seed, Steps
from scoresde.cli.outputs import check_out, check_replaced
from scoresde.cli.sample_picture import PictureOptions
from scoresde.cli.standing import model_of
from scoresde.cli.terminal import then
from scoresde.errors import InvalidValueError, ScoreSDEError
from scoresde.guidance import (
    Blur,
    Downsample,
    Fourier,
    Grey,
    Linear,
    Mask,
    Projection,
    posterior,
)
from scoresde.sampling import Run
from scoresde.score import ScoreModel

__all__ = ["Solve"]

# The class of each operator, and the function that reads its argument, by name. Those in _SPATIAL
# act on the last axes of an event.
_OPERATORS: dict[str, tuple[Any, Any]] = {
    "mask": (Mask, lambda text: torch.as_tensor(array(Path(text)))),
    "blur": (Blur, float),
    "downsample": (Downsample, int),
    "grey": (Grey, None),
    "fourier": (Fourier, lambda text: array(Path(text))),
    "projection": (Projection, int),
}
_SPATIAL = frozenset({"blur", "downsample"})


@dataclass(frozen=True)
class Solve:
    """Solve an inverse problem: draw samples that agree with a noisy linear measurement."""

    checkpoint: Checkpoint
    out: Path
    """The file to write: a picture (.png, .jpg, .pdf or .svg) or numbers (.npy, .npz,
    .safetensors, or for vectors .csv)."""
    operator: str
    """The operator of the measurement: mask=FILE.npy (1 where a number is measured, else 0),
    blur=WIDTH, downsample=FACTOR, grey, fourier=FILE.npy (the frequencies that are kept), or
    projection=M. Blur and downsample act on the one axis of signals, the two of images and the
    three of volumes. For other operators use scoresde.guidance.posterior in Python."""
    y: Path
    """The measurement, a .npy file in the units of the training data, NaN where nothing was
    measured. With mask=FILE.npy it may have the shape of a whole sample; the entries where the mask
    is 0 are ignored."""
    std: float
    """The standard deviation of the noise of the measurement, at least 0."""
    n: int = FEW
    """The number of samples, at least 1."""
    iterations: int = 5
    """The number of conjugate-gradient steps for each evaluation of the posterior's score, at least
    1. Each step is a product with the Jacobian of the network and costs two passes.
    """
    sampler: SamplerName = "heun"
    steps: Steps = None
    seed: Seed = 0
    class_: OneClass = None
    condition: Conditions = ()
    batch_size: BatchSize = FEW

    def run(self) -> None:
        """Draw and write."""
        read: tuple[str | Path, ...] = (self.y, self.operator, *self.condition)
        check_out(self.out, SUFFIXES, read=read, of=self.checkpoint)
        check_replaced(self.out)
        check_integer("n", self.n, 1)
        model = model_of(self.checkpoint).to(distributed.device())
        check_vectors(self.out, model)
        operator = _operator(self.operator, model)
        score = posterior(
            model, Linear(operator, self.std), iterations=self.iterations, units=True
        )  # fmt: skip
        given = Given.of(model, self.n, self.condition, self.class_)
        y = torch.as_tensor(array(self.y)).float()
        options = PictureOptions(given=given.values)
        whole = with_channel(y, model)
        if isinstance(operator, Mask) and whole.shape == operator.keep.shape:
            known = whole.where(operator.keep, torch.nan)
            y, options = operator(whole[None])[0], replace(options, known=known)
        run = Run.of(
            score, sampler=self.sampler, n=self.n, steps=self.steps, seed=self.seed,
            condition={**given.rows(range(self.n)), "measurement": y},
        )  # fmt: skip
        finished(run, model, self.out, self.batch_size, "solution", options)
        if distributed.is_main():
            words = given_again(self.condition, self.class_, self.steps, self.batch_size)
            then(
                "draw other solutions", "solve", self.checkpoint, "--operator", self.operator,
                "--y", self.y, "--std", self.std, *words, "--sampler", self.sampler,
                "--iterations", self.iterations, "--n", self.n, "--seed", self.seed + 1,
                "--out", self.out,
            )  # fmt: skip


def _operator(text: str, model: ScoreModel) -> Any:
    """Return the operator of the text `NAME=VALUE`, or `grey`, for events of a model."""
    name, _, value = text.partition("=")
    check_name("operator", name, _OPERATORS)
    kind, read = _OPERATORS[name]
    if (read is None) != (not value):
        way = f"{name} without a value" if read is None else f"{name}=VALUE"
        raise InvalidValueError(f"cannot read the operator {text!r}; write {way}")
    if read is None:
        return kind()
    try:
        argument = read(value)
    except ScoreSDEError:
        raise
    except ValueError as error:
        what = "a whole number" if read is int else "a number"
        raise InvalidValueError(f"the operator {name} takes {what}, got {value!r}") from error
    if name in _SPATIAL:
        return kind(argument, dims=_axes(model.event_shape))
    return kind(with_channel(argument, model) if name == "mask" else argument)


def _axes(event_shape: tuple[int, ...]) -> int:
    """Return the number of axes of an event besides its channels."""
    axes = {"points": 1, "signals": 1, "images": 2, "volumes": len(event_shape) - 1}
    return axes[plot.kind(event_shape)]

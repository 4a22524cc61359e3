"""Read samples of which a part is known: an image, an array, or the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from scoresde.cli.edit import IMAGES, image
from scoresde.cli.given import array
from scoresde.cli.held_out import Question, condition_words, run_of
from scoresde.cli.options import columns_of
from scoresde.data.wanted import TABLES, Wanted
from scoresde.errors import InvalidValueError, ShapeError
from scoresde.score import ScoreModel
from scoresde.sde import facts

__all__ = ["KnownPart", "with_channel"]


@dataclass(frozen=True)
class KnownPart:
    """Hold samples of which a part is known, and their conditions.

    Args:
        x: The samples `(R, *)`, in the units of the data.
        known: `(R, *)`, True where a number is known.
        condition: The known conditions by name, with a row for each sample.
    """

    x: Tensor
    known: Tensor
    condition: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, mask: Path | None, model: ScoreModel, checkpoint: str) -> KnownPart:
        """Read the samples, and what is known of them.

        Args:
            path: An image, a `.npy` file with one sample or several, or a table with the columns
                of the model's data. In a table the columns of conditions may be left out.
            mask: An image, light where the sample is known, or a `.npy` file of 1 and 0; None for
                the numbers that are not NaN, and the cells that are not empty.
            model: The model of the data.
            checkpoint: The name of the model, for the columns of its run.

        Raises:
            InvalidValueError: Nothing is missing, or an image has no mask.
            ShapeError: A file holds samples of another shape than the model's.
            ScoreSDEError: A file cannot be read.
        """
        if path.suffix in TABLES:
            x, condition = _rows(path, model, checkpoint)
        else:
            x, condition = _samples(path, model), {}
        known = ~x.isnan()
        if mask is not None:
            known = known & _light(mask, model)
            x = x.expand_as(known)
        elif path.suffix.lower() in IMAGES:
            raise InvalidValueError("give --mask, an image that is light where the image is known")
        if bool(known.all()):
            raise InvalidValueError(
                f"all numbers of {path} are known, so there is nothing to draw; mark what is "
                "missing by --mask, by NaN, or in a table by empty cells"
            )
        return cls(x, known, condition)

    def rows(self, model: ScoreModel, n: int) -> dict[str, Tensor]:
        """Return the conditions of n samples of each row: those of the model, and of `Impute`."""
        x = model.transform.forward(self.x).float().where(self.known, 0.0)
        given = {**self.condition, "known": x, "mask": self.known.float()}
        return {name: rows.repeat_interleave(n, dim=0) for name, rows in given.items()}

    def open_rows(self, n: int) -> list[int]:
        """Return the positions of rows with a gap among n copies of each row."""
        gaps = ~self.known.flatten(1).all(1)
        return gaps.repeat_interleave(n).nonzero().flatten().tolist()

    def values(self, n: int) -> Tensor:
        """Return n copies of each row in the units of the data, NaN where it is not known."""
        return self.x.where(self.known, torch.nan).repeat_interleave(n, dim=0)


def with_channel(value: Tensor, model: ScoreModel) -> Tensor:
    """Return an event with an axis of one channel in front if the model has it and value has not.

    Models of data that were read with a layout have this axis.
    """
    return value[None] if (1, *value.shape) == model.event_shape else value


def _rows(path: Path, model: ScoreModel, checkpoint: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the samples `(R, D)` in the rows of a table, NaN in empty cells, and conditions."""
    table = TABLES[path.suffix](path)
    words = condition_words(Question(checkpoint, str(path)), run_of(checkpoint), str(path), model)
    named = columns_of(words)
    listed = {k: [v] if isinstance(v, str) else v for k, v in named.items()}
    columns = {k: v for k, v in named.items() if {*listed[k]} <= table.keys()}
    taken = {name for k in columns for name in listed[k]}
    _, x = table.samples(taken, model.columns, missing="keep")
    if tuple(x.shape[1:]) != model.event_shape:
        raise ShapeError(
            f"{path} has {x.shape[1]} columns of numbers, but the model's samples have the shape "
            f"{model.event_shape}"
        )
    kinds = facts(model).conditions or {}
    wanted = Wanted(columns, {name: kinds[name] for name in columns})
    data = wanted.data(torch.zeros(x.shape), table, unasked=()).as_kinds(kinds)
    return x.float(), dict(data.condition(slice(None)) or {})


def _samples(path: Path, model: ScoreModel) -> Tensor:
    """Return the samples `(R, *)` of a file, in the units of the data."""
    if path.suffix.lower() in IMAGES:
        return model.transform.inverse(image(path, model))
    value = with_channel(torch.as_tensor(array(path)), model)
    value = value if value.shape[1:] == model.event_shape else value[None]
    if tuple(value.shape[1:]) != model.event_shape:
        raise ShapeError(
            f"{path} holds an array of shape {tuple(value.shape[1:])}, but the model's samples "
            f"have the shape {model.event_shape}"
        )
    return value.float()


def _light(path: Path, model: ScoreModel) -> Tensor:
    """Return the mask in a file, True where it is light or 1."""
    if path.suffix.lower() in IMAGES:
        return image(path, model) > 0
    return _samples(path, model) > 0

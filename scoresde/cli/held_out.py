"""Load the data with which a command tests a model: given data, or data of the model's run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from scoresde.checks import outside
from scoresde.cli.config import RunConfig
from scoresde.cli.options import columns_of, size_word
from scoresde.cli.source import DataConfig
from scoresde.cli.terminal import tell
from scoresde.data import Data
from scoresde.data.classes import warn_of_order
from scoresde.data.column_order import in_columns
from scoresde.data.layout import laid_as
from scoresde.data.named import is_name
from scoresde.data.wanted import TABLES
from scoresde.errors import InvalidValueError, ScoreSDEError, ShapeError
from scoresde.pretrained.store import locate
from scoresde.score import ScoreModel
from scoresde.sde import Classes, Condition, Field, facts

__all__ = [
    "Asked",
    "Question",
    "asked",
    "condition_words",
    "conditions_of",
    "folder_of",
    "learnt",
    "named",
    "run_of",
    "words_of",
]


class Asks(Protocol):
    """Define the options of a command that tests a model with data."""

    @property
    def checkpoint(self) -> str:
        """Return the name or folder of the model."""

    @property
    def data(self) -> str | None:
        """Return the source of the data, or None for the data of the model's run."""

    @property
    def split(self) -> str | None:
        """Return the part of the data, "train" or "test", or None."""

    @property
    def condition(self) -> tuple[str, ...]:
        """Return the columns or files of the conditions, as NAME=COLUMN."""

    @property
    def size(self) -> int | tuple[int, int] | None:
        """Return the size to which images are resized."""


@dataclass(frozen=True)
class Question:
    """Hold the options of a command that has only the model and the data."""

    checkpoint: str
    data: str | None
    split: str | None = None
    condition: tuple[str, ...] = ()
    size: int | tuple[int, int] | None = None


@dataclass(frozen=True)
class Asked:
    """Hold data in the units of a model, and their name.

    Attributes:
        data: The data.
        source: The name of the data, for messages.
    """

    data: Data
    source: str


def asked(command: Asks, model: ScoreModel) -> Asked:
    """Return the data that a command tests a model with, and print which they are.

    Without --data they are data of the model's run: the part that the run held out; or the part
    `test` of a torchvision data set; or else all data of the training, with a warning.

    Raises:
        InvalidValueError: No data are named, and the model has no run.
        ShapeError: The samples have another shape than the model's.

    Warns:
        RuntimeWarning: The model was trained on these data.
    """
    run = run_of(command.checkpoint)
    if command.data is not None:
        source = command.data
        split = command.split or _usual(source, "test")
        data = _read(command, run, source, split, model)
        part = f"{source}, the part {split}" if split else source
        trained = run is not None and _is_trained_on(run, source, split)
    elif run is None:
        raise InvalidValueError(
            f"give --data: {command.checkpoint} is not a run of `scoresde train`, and so does not "
            "say what it was trained on; data that are in no file are compared in Python, by "
            "scoresde.metrics.evaluate(samples, data)"
        )
    else:
        source = run.data.source
        data, part, trained = _of_run(command, run, model)
    tell(f"data: {part}, {len(data):,} samples")
    if trained:
        share = run is not None and run.config.keeping.held_out
        cure = "leave --data out for the part that its run held out" if share else (
            "take data that were kept apart, or train without --held-out 0"
        )  # fmt: skip
        warnings.warn(
            f"the model was trained on {source}, so a test with these data does not show "
            f"overfitting; {cure}",
            RuntimeWarning,
            stacklevel=outside(),
        )
    return Asked(data, source)


def named(command: Asks, source: str, model: ScoreModel) -> Data:
    """Return all data of a source; of a torchvision data set, the training part."""
    return _read(command, run_of(command.checkpoint), source, _usual(source, "train"), model)


def learnt(command: Asks, source: str, model: ScoreModel) -> Data:
    """Return data that a model was trained on, without the part that its run held out."""
    run, data = run_of(command.checkpoint), named(command, source, model)
    split = _usual(source, "train")
    if run is None or not _is_trained_on(run, source, split) or not run.config.keeping.held_out:
        return data
    return data.split(run.config.keeping.held_out, seed=run.config.seed)[0]


def run_of(checkpoint: str) -> RunConfig | None:
    """Return the options of the run that made a model, or None."""
    folder = folder_of(checkpoint)
    try:
        return None if folder is None else RunConfig.read(folder / "config.toml")
    except ScoreSDEError:  # the run of another version
        return None


def folder_of(checkpoint: str) -> Path | None:
    """Return the folder of the run that made a model, or None."""
    try:
        folder = locate(checkpoint).parent
    except ScoreSDEError:
        return None
    inner = folder.name == "best" or folder.name.startswith("ema")
    folder = folder.parent if inner else folder
    return folder if (folder / "config.toml").is_file() else None


def _of_run(command: Asks, run: RunConfig, model: ScoreModel) -> tuple[Data, str, bool]:
    """Return data of a run, their name, and whether the model was trained on them.

    If possible the data are such that the model was not trained on them.
    """
    source, share = run.data.source, run.config.keeping.held_out
    split = command.split or run.data.split or _usual(source, "train" if share else "test")
    if not Path(source).exists() and not is_name(source) and not source.startswith("hf:"):
        raise InvalidValueError(
            f"the data of the run, {source}, are not here; give --data, or run the command in the "
            "folder in which the model was trained"
        )
    data = _read(command, run, source, split, model)
    part = f"{source}, the part {split}" if split else source
    if not _is_trained_on(run, source, split):
        return data, part, False
    if not share:
        return data, part, True
    return data.split(share, seed=run.config.seed)[1], f"what the run held out of {part}", False


def _read(
    command: Asks, run: RunConfig | None, source: str, split: str | None, model: ScoreModel
) -> Data:
    """Return the data of a source in model units, read with the options of the model's run."""
    config = replace(
        DataConfig(source=source) if run is None else run.data,
        source=source,
        condition=tuple(condition_words(command, run, source, model)),
        sample=_sampled(run, source, model),
        size=_size(command, run, source),
        split=split,
        standardize=False,  # the model has its own transform
    )
    known = facts(model).conditions or {}
    kinds = {k: v for k, v in known.items() if k in columns_of(config.condition)}
    with warnings.catch_warnings():
        # the order of the axes follows from the model's shape
        warnings.filterwarnings("ignore", message="samples of .* are read as")
        data = config.load(kinds)
    data = in_columns(laid_as(data, model.event_shape), model.columns, model.transform)
    warn_of_order(data.names, known, "the model")
    data = data.units_of(model.transform).as_kinds(known)
    if data.event_shape != model.event_shape:
        raise ShapeError(
            f"the samples of {source} have shape {data.event_shape}, "
            f"but the model's have {model.event_shape}; resize them (commands with the option "
            f"--size do this for image files: --size {_wanted(model)})"
        )
    return data


def _wanted(model: ScoreModel) -> str:
    """Return the value of --size for a model's images."""
    shape = model.event_shape
    sides = tuple(shape[-2:]) if len(shape) == 3 else (64, 64)
    return size_word(sides[0] if sides[0] == sides[1] else (sides[0], sides[1]))


def _sampled(run: RunConfig | None, source: str, model: ScoreModel) -> str | None:
    """Return the names of the sampled columns: as in the run, or else as in the model."""
    if run is not None:
        return run.data.sample
    table = Path(source).suffix in TABLES and all("," not in name for name in model.columns)
    return ",".join(model.columns) if table and model.columns else None


def _of_model(model: ScoreModel) -> list[str]:
    """Return the columns of a table that have the names of a model's conditions."""
    words = []
    for name, kind in (facts(model).conditions or {}).items():
        of_field = f"{name}={','.join(kind.names)}" if kind.names else f"number:{name}"
        words.append(of_field if isinstance(kind, Field) else name)
    return words


def condition_words(
    command: Asks, run: RunConfig | None, source: str, model: ScoreModel
) -> Sequence[str]:
    """Return the columns of the conditions: as given, else as in the run, else as in the model."""
    if command.condition:
        return command.condition
    if run is None:
        return _of_model(model) if model.columns and Path(source).suffix in TABLES else ()
    if source == run.data.source:
        return run.data.condition
    if Path(source).suffix not in TABLES:
        return ()
    files = {".npy", *TABLES}
    return [word for word in run.data.condition if Path(word).suffix not in files]


def _size(command: Asks, run: RunConfig | None, source: str) -> int | tuple[int, int] | None:
    """Return the size of images: the given size, or else the size in the run."""
    if command.size is not None or run is None:
        return command.size
    images = Path(source).is_dir() or is_name(source)
    return run.data.size if images or source == run.data.source else None


def _is_trained_on(run: RunConfig, source: str, split: str | None) -> bool:
    """Return True if a run was trained on these data."""
    return run.data.source == source and split == (run.data.split or _usual(source, "train"))


def _usual(source: str, split: str) -> str | None:
    """Return the default split of a data set by name, or None for other data."""
    named = is_name(source) and ":" not in source and source.lower() != "digits"
    return split if named else None


def words_of(command: Asks) -> list[str]:
    """Return the words that give another command the same model and data."""
    conditions = [word for given in command.condition for word in ("--condition", given)]
    size = None if command.size is None else size_word(command.size)
    named = {"--data": command.data, "--split": command.split, "--size": size}
    given = [word for k, v in named.items() if v is not None for word in (k, str(v))]
    return [command.checkpoint, *given, *conditions]


def conditions_of(data: Data, source: str, model: ScoreModel) -> Condition | None:
    """Return the conditions of all samples that the model takes.

    Raises:
        InvalidValueError: A condition of the model is missing in the data, or the numbers of its
            classes may differ between model and data.
        ScoreSDEError: A condition is of another kind.
    """
    declared = facts(model).conditions or {}
    for name, kind in declared.items():
        if name not in data.conditions:
            what = "classes" if name == "label" else f"the condition {name!r}"
            has = "labels" if name == "label" else "such condition"
            raise InvalidValueError(
                f"the model takes {what}, but {source} has no {has}; name its column or its file "
                f"by --condition {name}=..."
            )
        if isinstance(kind, Classes) and len(data.names.get(name, range(kind.n))) != kind.n:
            # names are numbered in sorted order: without one name, later names have other numbers
            raise InvalidValueError(
                f"the model has {kind.n} classes of {name!r}, but {source} has "
                f"{len(data.names[name])}, so their numbers may differ; give data with a sample of "
                "each class, or with the model's numbers in place of names"
            )
    return Condition.of(data.only(declared).condition(slice(None)), len(data), declared)

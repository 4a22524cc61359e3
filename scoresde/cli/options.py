"""Define options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import tyro

from scoresde.errors import InvalidValueError
from scoresde.sampling import SAMPLERS

__all__ = [
    "BatchSize",
    "Checkpoint",
    "Columns",
    "HeldOutSplit",
    "Layout",
    "Missing",
    "OwnColumns",
    "OwnData",
    "Sampled",
    "SamplerName",
    "Seed",
    "Size",
    "Split",
    "Steps",
    "TrainData",
    "columns_of",
    "sampled_of",
    "size_of",
    "size_word",
]

Checkpoint = Annotated[
    tyro.conf.Positional[str],
    tyro.conf.arg(
        metavar="CHECKPOINT",
        help="The folder of a run, for the average of its weights at its end; RUN/best, for that "
        "at its lowest held-out loss; the folder of a model, its model.safetensors, the folder of "
        "a pipeline of diffusers, or a packaged name such as mnist.",
    ),
]
OwnData = Annotated[
    str | None,
    tyro.conf.arg(
        name="data",
        metavar="SOURCE",
        help="Data that the model was not trained on: a name (digits, or a torchvision data set "
        "such as mnist), a .npy, .npz or .csv file, or a folder of images.",
        help_behavior_hint="(default: those of the model's run that it was not trained on)",
    ),
]
TrainData = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="SOURCE",
        help="The training data; the report then counts the samples that copy it. A torchvision "
        "data set stands for its training part.",
    ),
]
Seed = Annotated[
    int,
    tyro.conf.arg(help="An integer from 0 to 2**64 - 1; the same seed gives the same result."),
]
BatchSize = Annotated[
    int,
    tyro.conf.arg(
        help="The number of samples that the network evaluates at once, at least 1. Fewer need "
        "less memory; results may differ in the last digits."
    ),
]
Columns = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        metavar="COLUMN|NAME=COLUMN[,COLUMN ...]|NAME=FILE",
        help="A condition: a column of the data, as species; columns under another name, as "
        "place=lat,lon; integers that are not classes, as number:age; or a .npy or .csv file, as "
        "label=labels.npy. Give it again for another.",
        help_behavior_hint="(default: what a .npz, a .pt or a folder of classes has)",
    ),
    tyro.conf.UseAppendAction,
]
OwnColumns = Annotated[
    Columns,
    tyro.conf.arg(help_behavior_hint="(default: those of the model's run)"),
]
Sampled = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME[,NAME ...]",
        help="The samples, if the source holds more: the name of an array in a .npz or .pt file, "
        "such as theta to learn p(theta | x), or names of columns of a table.",
        help_behavior_hint="(default: x, or all columns that are not a condition)",
    ),
]
Layout = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="LETTERS",
        help="The axes of one sample in their order, if channels do not come first. T: a signal "
        "with one channel; TC: a signal with several; HW: a grey image; HWC: a colour image; DHW: "
        "a volume.",
        help_behavior_hint="(default: channels first)",
    ),
]
Missing = Annotated[
    Literal["raise", "drop"],
    tyro.conf.arg(
        help="Raise an error for samples with a missing number, or drop them. Samples of which "
        "only a condition is missing are kept, and used to learn the distribution without it."
    ),
]
Split = Annotated[
    str | None, tyro.conf.arg(metavar="{train,test}", help_behavior_hint="(default: train)")
]
HeldOutSplit = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="{train,test}",
        help_behavior_hint="(default: test)",
        help="The part of a data set of torchvision; by default the one that the model was not "
        "trained on.",
    ),
]


def size_of(word: str) -> int | tuple[int, int]:
    """Return the size of images in `64`, a square, or in `37x53`, height and width.

    Raises:
        ValueError: The word has another form.

    Examples:
        >>> size_of("64"), size_of("37x53")
        (64, (37, 53))
    """
    sides = word.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ValueError(f"takes a number of pixels, or height and width as 37x53; got {word!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def size_word(size: int | tuple[int, int]) -> str:
    """Return the word that `size_of` reads as a size."""
    return str(size) if isinstance(size, int) else "x".join(map(str, size))


_SIZE = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="INT|HxW",
    instance_from_str=lambda words: size_of(words[0]),
    is_instance=lambda value: value is None or isinstance(value, int | tuple),
    str_from_instance=lambda value: ["none" if value is None else size_word(value)],
)
Size = Annotated[
    int | tuple[int, int] | None,
    _SIZE,
    tyro.conf.arg(
        help="Crop images about their centre and resize them to this many pixels a side, or to "
        "this height and width, as 37x53.",
        help_behavior_hint="(default: as they are)",
    ),
]
SamplerName = Annotated[
    str,
    tyro.conf.arg(
        metavar="{" + ",".join(SAMPLERS) + "}",
        help="The sampler: fast needs few evaluations; pc, ancestral, ddim, heun ... are the "
        "algorithms of the papers.",
    ),
]
Steps = Annotated[
    int | None,
    tyro.conf.arg(
        metavar="INT",
        help="The number of steps from noise to data, at least 1; more are slower and better.",
        help_behavior_hint="(default: the model's or the sampler's)",
    ),
]


_NUMBER = "number:"
_FILES = (".npy", ".csv", ".tsv", ".txt", ".parquet")


def columns_of(words: Sequence[str]) -> dict[str, str | list[str]]:
    """Return the conditions of the words, as `scoresde.data.load` takes them.

    A word is `NAME=COLUMN`, or `COLUMN`, which is then the name too. Columns separated by commas
    are a vector. Integers in a single column are classes, unless `number:` stands before it.

    Raises:
        InvalidValueError: A word has another form, or a name is given twice.

    Examples:
        >>> columns_of(["species", "number:age", "place=lat,lon"])
        {'species': 'species', 'age': ['age'], 'place': ['lat', 'lon']}
    """
    found: dict[str, str | list[str]] = {}
    for word in words:
        name, sign, text = word.partition("=")
        text = text if sign else name  # a single column is the name too
        name = name if sign else name.removeprefix(_NUMBER)
        if text.startswith(_NUMBER):
            text = f"{text.removeprefix(_NUMBER)},"
        if not name or not text or (not sign and ("," in name or name.endswith(_FILES))):
            raise InvalidValueError(
                f"cannot read {word!r}; write a condition as COLUMN, NAME=COLUMN or NAME=FILE"
            )
        if name in found:
            raise InvalidValueError(f"the condition {name} is given twice; give it once")
        found[name] = [part for part in text.split(",") if part] if "," in text else text
    return found


def sampled_of(word: str | None) -> list[str] | None:
    """Return the names in `NAME,NAME`, as `scoresde.data.load` takes them."""
    return None if word is None else [part for part in word.split(",") if part]

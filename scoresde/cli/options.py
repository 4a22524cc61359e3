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
        help="The model: the folder of a run (its averaged weights at the end of training), "
        "RUN/best (the averaged weights with the lowest held-out loss), the folder of a model, a "
        "file model.safetensors, the folder of a diffusers pipeline, or the name of a packaged "
        "model such as mnist.",
    ),
]
OwnData = Annotated[
    str | None,
    tyro.conf.arg(
        name="data",
        metavar="SOURCE",
        help="Data that the model was not trained on: a name (digits, or a torchvision data set "
        "such as mnist), a .npy, .npz or .csv file, or a folder of images.",
        help_behavior_hint="(default: the held-out data of the model's run)",
    ),
]
TrainData = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="SOURCE",
        help="The training data, to measure whether the model has memorised them. Of a torchvision "
        "data set the training part is used.",
    ),
]
Seed = Annotated[
    int,
    tyro.conf.arg(help="An integer from 0 to 2**64 - 1; the same seed gives the same result."),
]
BatchSize = Annotated[
    int,
    tyro.conf.arg(
        help="The number of samples that the network evaluates at once, at least 1. A smaller "
        "number needs less memory; the results may differ in the last digits."
    ),
]
Columns = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        metavar="COLUMN|NAME=COLUMN[,COLUMN ...]|NAME=FILE",
        help="A condition. Write `species` for the column of this name; `place=lat,lon` to combine "
        "columns under a new name; `number:age` for a column of integers that are not classes; "
        "`label=labels.npy` for a .npy or .csv file. Repeat the option for further conditions.",
        help_behavior_hint="(default: the conditions in a .npz, a .pt or a folder of classes)",
    ),
    tyro.conf.UseAppendAction,
]
OwnColumns = Annotated[
    Columns,
    tyro.conf.arg(help_behavior_hint="(default: the conditions of the model's run)"),
]
Sampled = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="NAME[,NAME ...]",
        help="Which part of the source is the samples: the name of an array in a .npz or .pt file, "
        "such as theta to learn p(theta | x), or the names of columns of a table.",
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
        help="What to do with samples in which a number is missing: raise an error, or drop these "
        "samples. A sample in which only a condition is missing is kept, and is used to learn the "
        "distribution without this condition."
    ),
]
HeldOutSplit = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="{train,test}",
        help_behavior_hint="(default: test)",
        help="The part of a torchvision data set to use. The model should not be trained on it.",
    ),
]


def size_of(word: str) -> int | tuple[int, int]:
    """Parse a size of images: `64` is a square, and `37x53` is height and width.

    Raises:
        ValueError: The text has another form.

    Examples:
        >>> size_of("64"), size_of("37x53")
        (64, (37, 53))
    """
    sides = word.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ValueError(f"it takes a number of pixels, or a size such as 37x53; got {word!r}")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def size_word(size: int | tuple[int, int]) -> str:
    """Return the text that `size_of` parses to this size."""
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
        help="Crop images about their centre and resize them: 64 is 64 by 64 pixels, and 37x53 is "
        "height by width.",
        help_behavior_hint="(default: as they are)",
    ),
]
SamplerName = Annotated[
    str,
    tyro.conf.arg(
        metavar="{" + ",".join(SAMPLERS) + "}",
        help="The sampler. The sampler fast needs few evaluations of the network; pc, ancestral, "
        "ddim, heun ... are the algorithms of the papers.",
    ),
]
Steps = Annotated[
    int | None,
    tyro.conf.arg(
        metavar="INT",
        help="The number of steps from noise to data, at least 1. More steps are slower and more "
        "accurate.",
        help_behavior_hint="(default: the number that suits the model or the sampler)",
    ),
]


_NUMBER = "number:"
_FILES = (".npy", ".csv", ".tsv", ".txt", ".parquet")


def columns_of(words: Sequence[str]) -> dict[str, str | list[str]]:
    """Parse the values of `--condition` into the conditions that `scoresde.data.load` takes.

    Each word is `NAME=COLUMN`, or `COLUMN` if the condition has the name of the column. Several
    columns, separated by commas, are a vector. A column of integers holds classes, unless
    `number:` stands before its name.

    Args:
        words: The values, one for each condition.

    Raises:
        InvalidValueError: A value has another form, or a name is given twice.

    Examples:
        >>> columns_of(["species", "number:age", "place=lat,lon"])
        {'species': 'species', 'age': ['age'], 'place': ['lat', 'lon']}
    """
    found: dict[str, str | list[str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        text = text if equals else name  # without a name the condition is called as the column
        name = name if equals else name.removeprefix(_NUMBER)
        if text.startswith(_NUMBER):
            text = f"{text.removeprefix(_NUMBER)},"
        if not name or not text or (not equals and ("," in name or name.endswith(_FILES))):
            raise InvalidValueError(
                f"cannot read {word!r}; write a condition as COLUMN, NAME=COLUMN or NAME=FILE"
            )
        if name in found:
            raise InvalidValueError(f"the condition {name} is given twice; give it once")
        found[name] = [part for part in text.split(",") if part] if "," in text else text
    return found


def sampled_of(word: str | None) -> list[str] | None:
    """Parse `NAME,NAME` into the list of names that `scoresde.data.load` takes."""
    return None if word is None else [part for part in word.split(",") if part]

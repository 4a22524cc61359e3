"""Define the options of the data of a run; they are also a table of its configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import torch
import tyro

from scoresde.cli.open import PLAIN
from scoresde.cli.options import (
    Columns,
    Layout,
    Missing,
    Sampled,
    Size,
    columns_of,
    sampled_of,
    size_word,
)
from scoresde.data import Data, load
from scoresde.sde import Classes, Field
from scoresde.sde.words import event_in_words, kind_in_words

__all__ = ["DataArgument", "DataConfig", "described"]

_ANSWERS = {"auto": None, "yes": True, "no": False}
_LAZY = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="{auto,yes,no}",
    instance_from_str=lambda words: _ANSWERS[words[0]],
    is_instance=lambda value: value is None or isinstance(value, bool),
    str_from_instance=lambda value: [next(k for k, v in _ANSWERS.items() if v is value)],
    choices=("auto", "yes", "no"),
)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Read the data in these ways; paths are relative to the current folder."""

    source: Annotated[str, tyro.conf.arg(name="data")]
    """digits, a data set of torchvision (mnist, cifar10 ...), a .npy, .npz, .pt, .csv or .parquet,
    a folder of images, or hf:NAME, a data set of Hugging Face."""
    split: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: train)")
    ] = None
    """The part of a torchvision data set, train or test, or of a data set of Hugging Face."""
    condition: Columns = ()
    sample: Sampled = None
    size: Size = None
    layout: Layout = None
    missing: Missing = "raise"
    standardize: Annotated[bool, PLAIN] = False
    """Shift and scale floats to mean 0 and variance 1 for the training. Samples are still written
    in the units of the data."""
    lazy: Annotated[bool | None, _LAZY] = None
    """Decode images each time they are needed, in place of keeping all images in memory; auto does
    this if the images need more than 1 GiB."""
    on_bad_image: Literal["raise", "skip"] = "raise"
    """What to do with images that cannot be read: raise an error, or skip them (at most a tenth of
    a folder)."""

    def load(self, kinds: Mapping[str, Classes | Field] | None = None) -> Data:
        """Return the data; `kinds` has kinds of conditions that do not follow from the numbers."""
        return load(self.source, kinds=kinds, lazy=self.lazy, **self.reading())

    def reading(self) -> dict[str, Any]:
        """Return the options of reading, as arguments of `scoresde.data.load` and `check`."""
        return dict(
            condition=columns_of(self.condition),
            sample=sampled_of(self.sample),
            split=self.split,
            size=self.size,
            layout=self.layout,
            missing=self.missing,
            standardize=self.standardize,
            on_bad_image=self.on_bad_image,
        )

    def words(self) -> list[str]:
        """Return the words of the options, without the source, that differ from their defaults."""
        found: list[str] = []
        for field in fields(self):
            value, name = getattr(self, field.name), f"--{field.name.replace('_', '-')}"
            if field.name == "source" or value == field.default:
                continue
            if field.name == "size":
                found += [name, size_word(value)]
            elif isinstance(value, tuple):
                found += [word for one in value for word in (name, one)]
            elif field.name == "lazy":
                found += [name, "yes" if value else "no"]
            elif value is True:
                found.append(name)
            else:
                found += [name, str(value)]
        return found

    def differs(self, before: DataConfig) -> str:
        """Return a text that lists the options which have changed, or an empty string."""
        options = {f.name: f"--{f.name.replace('_', '-')}" for f in fields(self)}
        options = {**options, "source": "--data"}
        parts = [
            f"{option} was {_in_words(old)} and is {_in_words(new)}"
            for name, option in options.items()
            if name != "lazy" and (old := getattr(before, name)) != (new := getattr(self, name))
        ]
        return ", ".join(parts)


def _in_words(value: Any) -> str:
    """Return the value of an option in plain words."""
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "not given"
    return str({None: "not given", True: "on", False: "off"}.get(value, value))


@dataclass(frozen=True, kw_only=True)
class DataArgument(DataConfig):
    """Read the data in these ways; the options are the same as for `train`."""

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """digits, a data set of torchvision (mnist, cifar10 ...), a .npy, .npz, .pt, .csv or .parquet,
    a folder of images, or hf:NAME, a data set of Hugging Face."""


def described(data: Data, source: str) -> str:
    """Return a description of data in a line: the number of samples, their shape and conditions."""
    fields = any(isinstance(kind, Field) for kind in data.kinds.values())
    named = data.called != "x" or (fields and not data.columns)
    of = f" of {data.called}" if named else ""
    each = event_in_words(data.event_shape, data.columns)
    given = "".join(
        f"; given {name}: {kind_in_words(kind)}{_gaps(data, name)}"
        for name, kind in data.kinds.items()
    )
    return f"data: {source}, {len(data):,} samples{of}, each {each}{given}"


def _gaps(data: Data, name: str) -> str:
    """Return a text with the number of samples that have no class, or an empty string."""
    if not isinstance(data.kinds[name], Classes):
        return ""
    n = int((torch.as_tensor(data.conditions[name]) < 0).sum())
    return f", missing in {n:,}, which are kept to learn the distribution without it" if n else ""

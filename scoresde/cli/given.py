"""Read the conditions and the guidance of samples from the options of a command."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from scoresde import checkpoint
from scoresde.checks import check_name
from scoresde.data.array_file import read_array
from scoresde.data.given import as_tensor
from scoresde.errors import DataError, InvalidValueError, ShapeError
from scoresde.guidance import classifier_free
from scoresde.sde import Classes, Field, Score, class_name, facts

__all__ = [
    "ClassName",
    "Conditions",
    "Given",
    "Guidance",
    "Interval",
    "OneClass",
    "array",
    "left_open",
    "without_class",
]

ClassName = Annotated[
    str | None,
    tyro.conf.arg(name="class", metavar="NAME", help_behavior_hint="(default: all in turn)"),
]
OneClass = Annotated[
    str | None,
    tyro.conf.arg(
        name="class",
        metavar="NAME",
        help="The name of the class, or its number counted from 0; for models trained with labels.",
        help_behavior_hint="(default: any)",
    ),
]
Conditions = Annotated[
    tuple[str, ...],
    tyro.conf.arg(
        metavar="NAME=VALUE",
        help="A condition of the model. Write `label=dog` for the name of a class, `y=0.1,0.2` for "
        "numbers, or `y=y.npy` for a .npy file with one row for each sample, or one row for all. "
        "Repeat the option for further conditions.",
        help_behavior_hint="(default: missing)",
    ),
    tyro.conf.UseAppendAction,
]
Guidance = Annotated[
    float | None,
    tyro.conf.arg(
        metavar="FLOAT",
        help="The scale of classifier-free guidance. 0 ignores the condition, and 1 is the model "
        "without guidance. Above 1 the samples fit the condition more clearly and are less varied, "
        "and drawing them takes twice the passes of the network.",
        help_behavior_hint="(default: none)",
    ),
]
Interval = Annotated[
    tuple[float, float] | None,
    tyro.conf.arg(
        metavar="LOW HIGH",
        help="The range of noise scales sigma / alpha in which the guidance acts.",
        help_behavior_hint="(default: all)",
    ),
]


@dataclass(frozen=True)
class Given:
    """Hold the conditions of the samples of a command, checked against a model, and the guidance.

    Args:
        values: The conditions by name, each with one row for each sample, or one row for all.
        guidance: The scale of classifier-free guidance, or None.
        interval: The range of noise scales in which the guidance acts, or None for all.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    guidance: float | None = None
    interval: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        score: Score,
        n: int,
        words: Sequence[str] = (),
        label: str | None = None,
        guidance: float | None = None,
        interval: tuple[float, float] | None = None,
    ) -> Given:
        """Return the conditions and the guidance of these options.

        Args:
            score: The score that takes the conditions.
            n: The number of samples.
            words: The conditions, as `NAME=VALUE`.
            label: The class of all samples by its name or number, the condition `label`.
            guidance: The scale.
            interval: The range of noise scales in which the guidance acts.

        Raises:
            InvalidValueError, UnknownNameError, ShapeError, DataError: The options contradict the
                model or one another.
        """
        declared = facts(score).conditions or {}
        if interval is not None and guidance is None:
            raise InvalidValueError("--interval limits the guidance; give --guidance too")
        values = {} if label is None else _class(label, declared)
        for word in words:
            name, sign, text = word.partition("=")
            if not sign:
                raise InvalidValueError(f"cannot read {word!r}; write a condition as NAME=VALUE")
            if not declared:
                raise InvalidValueError(f"this model takes no condition; leave out {word!r}")
            check_name("condition", name, declared)
            if name in values:
                raise InvalidValueError(f"the condition {name} is given twice; give it once")
            values[name] = _value(name, text, declared[name], n)
        return cls(values, guidance, interval)

    def rows(self, rows: range) -> dict[str, Tensor]:
        """Return the conditions of some of the samples."""
        return {
            name: value.expand(len(rows), *value.shape[1:])
            if len(value) == 1
            else value[rows.start : rows.stop]
            for name, value in self.values.items()
        }

    def guided(self, score: Score) -> Score:
        """Return the guided score, or the score itself without guidance."""
        if self.guidance is None:
            return score
        return classifier_free(score, self.guidance, interval=self.interval)

    def request(self) -> dict[str, Any]:
        """Return the conditions' checksum and the guidance as JSON values; None if not given."""
        tensors = {name: value.contiguous() for name, value in self.values.items()}
        return {
            "condition": checkpoint.digest(tensors, "", 0)[:16] if tensors else None,
            "guidance": self.guidance,
            "interval": None if self.interval is None else [*map(str, self.interval)],
        }


def left_open(
    score: Score, words: Sequence[str], label: str | None, like: str = "DATA"
) -> list[str]:
    """Return sentences on the conditions of a score that are not given.

    Args:
        score: The score that takes the conditions.
        words: The conditions that are given, as `NAME=VALUE`.
        label: The class that is given, or None.
        like: The name of data that have these conditions, for the sentences.
    """
    kinds = facts(score).conditions or {}
    given = {word.partition("=")[0] for word in words}
    said = []
    for name, kind in kinds.items():
        if name in given:
            continue
        if isinstance(kind, Field):
            value = ",".join(["0"] * kind.shape[0]) if len(kind.shape) == 1 else f"{name}.npy"
            said.append(
                f"drawn for any {name}, which is missing; give it as --condition {name}={value}"
            )
        elif name == class_name(kinds) and label is None and kind.n > 1:
            first = kind.names[0] if kind.names else 0
            said.append(
                f"drawn in equal shares of the {kind.n} classes of {name}, whatever their shares "
                f"of the data; --class {shlex.quote(str(first))} draws one alone, --like "
                f"{shlex.quote(like)} draws them in the shares of these data"
            )
        elif class_name(kinds) is None:
            first = kind.names[0] if kind.names else 0
            said.append(
                f"drawn for any {name}, which is missing; give it as --condition {name}={first}"
            )
    return said


def without_class(score: Score, given: Given, source: str) -> list[str]:
    """Return sentences on the samples that have no class, since rows of the source have none.

    Args:
        score: The score that takes the conditions.
        given: The conditions of the samples, taken from rows of the source.
        source: The name of the source.
    """
    kinds = facts(score).conditions or {}
    empty = {
        k: int((v < 0).sum()) for k, v in given.values.items() if isinstance(kinds[k], Classes)
    }
    return [
        f"{count} of {len(given.values[name])} samples are drawn without {name}, as it is missing "
        f'in so many of these rows of {source}; a picture calls them "missing"'
        for name, count in empty.items()
        if count
    ]


def _class(label: str, declared: Mapping[str, Classes | Field]) -> dict[str, Tensor]:
    """Return the class of all samples, as the condition `label` or the only one with classes."""
    kinds = {name: kind for name, kind in declared.items() if isinstance(kind, Classes)}
    if not kinds:
        raise InvalidValueError(f"this model was trained without classes; leave out class {label}")
    name = class_name(declared)
    if name is None:
        raise InvalidValueError(
            "this model has classes of several names; write --condition "
            f"{next(iter(kinds))}={label}"
        )
    number = _label(name, label, kinds[name])
    if not 0 <= number < kinds[name].n:
        raise InvalidValueError(f"class must lie in [0, {kinds[name].n - 1}], got {label}")
    return {name: torch.tensor([number])}


def _label(name: str, word: str, kind: Classes) -> int:
    """Return the number of a class from its name, or from its number if it is no class's name."""
    if word not in kind.names:
        try:
            return int(word)
        except ValueError:
            pass
    number: int = kind.numbers(name, word)
    return number


def _value(name: str, text: str, kind: Classes | Field, n: int) -> Tensor:
    """Parse the text of a condition's value into a tensor with 1 or n rows."""
    if text.endswith(".npy"):
        value = array(Path(text))
    elif isinstance(kind, Classes):
        value = _numbers(name, text, [_label(name, word, kind) for word in _words(text, kind)])
    else:
        value = _numbers(name, text, text.split(","))
        if value.numel() == np.prod(kind.shape, dtype=int):
            value = value.reshape(kind.shape)
    integers = isinstance(kind, Classes)
    value = value.long() if integers and not value.is_floating_point() else value
    value = value.float() if not integers and value.dtype == torch.float64 else value
    if tuple(value.shape) == kind.shape:
        value = value[None]
    if tuple(value.shape[1:]) != kind.shape or len(value) not in (1, n):
        raise ShapeError(
            f"the condition {name} needs the shape {kind.shape}, or {(n, *kind.shape)} with a row "
            f"for each of the {n} samples; got {tuple(value.shape)}"
        )
    kind.check(name, value)
    return value


def _words(text: str, kind: Classes) -> list[str]:
    """Split `cat,dog` into names of classes, unless the whole text is the name of one class."""
    return [text] if text in kind.names else text.split(",")


def _numbers(name: str, text: str, parts: Sequence[str | int]) -> Tensor:
    try:
        return torch.tensor([part if isinstance(part, int) else float(part) for part in parts])
    except (ValueError, RuntimeError) as error:  # RuntimeError: an integer beyond 64 bits
        raise InvalidValueError(
            f"the condition {name} takes numbers separated by commas, or a .npy file; got {text!r}"
        ) from error


def array(path: Path) -> Tensor:
    """Return the numbers of a .npy file."""
    try:
        with checkpoint.open_file(path) as file:  # raises for a pipe; open would wait
            found = as_tensor(
                str(path), read_array(file, str(path), os.fstat(file.fileno()).st_size)
            )
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist{checkpoint.did_you_mean(path)}") from error
    except Exception as error:  # a damaged file, or one of another kind
        raise DataError(f"cannot read {path}: {error}") from error
    if found.is_complex():
        raise DataError(f"{path} holds complex numbers; save their real and imaginary parts")
    return found

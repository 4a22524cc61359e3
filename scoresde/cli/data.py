"""Define `scoresde data check`: find what would break a training run."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
import tyro

from scoresde import plot
from scoresde.cli.config import NetOptions
from scoresde.cli.outputs import check_out
from scoresde.cli.parsing import options_of
from scoresde.cli.sample_picture import PICTURES
from scoresde.cli.sdes import sde_words, words_of
from scoresde.cli.source import DataArgument
from scoresde.cli.terminal import in_options, show, then
from scoresde.data import check
from scoresde.data.data_check import describe_noise, describe_sides
from scoresde.data.report import Report
from scoresde.errors import DataError, InvalidValueError
from scoresde.sde import SDE, class_name
from scoresde.suggestion import suggest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CheckData"]


@dataclass(frozen=True)
class CheckData:
    """Find what would break a training run; the exit code is 1 if training would fail.

    The options are the same as those of `train`, and options that are left out are chosen as
    `train` chooses them.
    """

    bare: ClassVar[str] = "--data"

    data: Annotated[DataArgument, tyro.conf.arg(name="data"), tyro.conf.OmitArgPrefixes]
    sde: Annotated[SDE | None, sde_words(optional=True)] = None
    """The SDE whose noise is compared with the data, written as for train; auto takes the SDE that
    train would choose."""
    net: Annotated[NetOptions, tyro.conf.arg(name="network"), tyro.conf.OmitArgPrefixes] = field(
        default=NetOptions()
    )
    """The network, written as for train."""
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")
    ] = None
    """A picture of up to 64 samples, or 1,000 points, in the data's own units: .png, .jpg, .pdf or
    .svg."""

    def run(self) -> None:
        """Check, print the report, and raise DataError if the training would fail."""
        if self.out is not None:
            check_out(self.out, PICTURES, read=(self.data.source, *self.data.condition))
        report = check(self.data.source, **self.data.reading())
        report.remarks = [text for text in report.remarks if text.topic != "units"]
        if report.data is not None and report.ok:
            self._compare(report)
        options = options_of(CheckData)
        show(in_options(str(report), options))
        if self.out is not None and report.samples is not None:
            show(f"{'picture':14}{plot.save(_picture(report), self.out)}")
        if not report.ok:
            count = len(report.problems)
            cures = [_cure(in_options(text, options)) for text in report.problems]
            if all(cures):
                words = [word for cure in cures for word in cure]
                then("check again", "data", "check", self.data.source, *self.data.words(), *words)
            problems = "1 problem" if count == 1 else f"{count} problems"
            raise DataError(f"training on {self.data.source} would fail because of {problems}")
        words = self.data.words()
        words += ["--standardize"] if any(one.topic == "scales" for one in report.remarks) else []
        words += [] if self.sde is None else ["--sde", *words_of(self.sde)]
        then("train", "train", "--data", self.data.source, *words, "--out", "run")

    def _compare(self, report: Report) -> None:
        """Compare the data with the noise and the network of a training."""
        assert report.data is not None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = suggest(report.data, net=self.net.type)
        for warning in caught:
            report.remark("noise", str(warning.message))
        describe_noise(report, self.sde or found.sde())
        if self.sde is None:
            report.facts["noise"] += "; as train would choose it"
        net = self.net.over(found.net)
        if net.patch < 1 or not net.channels:
            raise InvalidValueError(
                f"patch must be at least 1, and channels one width or more, got {net.patch} and "
                f"{net.channels}"
            )
        if net.type == "unet":
            stride = net.patch * 2 ** (len(net.channels) - 1)
            describe_sides(report, report.data.event_shape, stride)


def _picture(report: Report) -> Figure:
    """Return a picture of some of the usable samples, with their classes if they have any."""
    data, samples = report.data, report.samples
    assert samples is not None
    if data is None:
        return plot.samples(samples, names=report.columns)
    most = 1000 if plot.kind(data.event_shape) == "points" else len(samples)
    some = data[torch.linspace(0, len(data) - 1, min(most, len(data))).round().long()]
    labels: list[str] = []
    name = class_name(data.kinds)
    if name is not None:
        words = data.names.get(name, ())
        given = some.condition(slice(None))
        assert given is not None
        labels = [
            "missing" if k < 0 else words[k] if words else f"{name} {k}"
            for k in given[name].tolist()
        ]
    return plot.samples(some, labels=labels)


def _cure(problem: str) -> list[str]:
    """Return the first option in a sentence, with its value, or an empty list.

    Examples:
        >>> _cure("3 samples have empty cells; leave them out by --missing drop, or fill them in")
        ['--missing', 'drop']
    """
    found = re.search(r"(--[a-z][\w-]*) ([^\s;:]*[^\s;:,.)])", problem)
    return [] if found is None else [found[1], found[2]]

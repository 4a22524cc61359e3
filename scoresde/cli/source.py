"""Where the data of a run come from, as options and as a table of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from scoresde.cli.open import PLAIN
from scoresde.cli.options import Columns, Layout, Missing, Sampled, Size, columns_of, sampled_of
from scoresde.data import Data, load
from scoresde.sde import Classes, Field

__all__ = ["DataConfig"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Describe where the data come from; a relative path is one from where the command is run."""

    source: Annotated[str, tyro.conf.arg(name="data")]
    """digits, a name of torchvision's (mnist, cifar10 ...), a .npy, .npz, .pt, .csv or .parquet, a
    folder of images, or hf:NAME, a data set of Hugging Face's."""
    split: Annotated[
        str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: train)")
    ] = None
    """The part of a data set of torchvision, train or test, or of one of Hugging Face's."""
    condition: Columns = ()
    sample: Sampled = None
    size: Size = None
    layout: Layout = None
    missing: Missing = "raise"
    standardize: Annotated[bool, PLAIN] = False
    """Shift and scale floats to mean 0 and variance 1; samples come in the data's own units."""
    lazy: Annotated[
        bool | None, tyro.conf.arg(help_behavior_hint="(default: where they need more than 1 GiB)")
    ] = None
    """Whether images stay where they are, and are decoded when they are needed."""
    on_bad_image: Literal["raise", "skip"] = "raise"
    """Whether to pass over images that cannot be read, up to a tenth of a folder."""

    def load(self, kinds: Mapping[str, Classes | Field] | None = None) -> Data:
        """Return the data; `kinds` says what conditions are whose numbers do not say it."""
        return load(
            self.source,
            condition=columns_of(self.condition),
            kinds=kinds,
            sample=sampled_of(self.sample),
            split=self.split,
            size=self.size,
            layout=self.layout,
            missing=self.missing,
            standardize=self.standardize,
            lazy=self.lazy,
            on_bad_image=self.on_bad_image,
        )

"""Load the models of the package, and those of folders."""

from __future__ import annotations

import os

from scoresde.checks import door
from scoresde.pretrained.store import packaged
from scoresde.score.model import ScoreModel

__all__ = ["load"]


@door
def load(name: str | os.PathLike[str]) -> ScoreModel:
    """Return a model of the package, as `load("mnist")`, or the one in a folder, as `load("run/")`.

    `ScoreModel.from_pretrained` also takes names of the hub.

    Raises:
        CheckpointError: There is no model of that name, or it is damaged.

    Examples:
        >>> load("mnist").event_shape
        (1, 28, 28)
    """
    if os.path.exists(name):
        return ScoreModel.from_pretrained(os.fspath(name))
    return ScoreModel.from_pretrained(packaged(os.fspath(name)))

"""Load the models that are part of the package."""

from __future__ import annotations

from scoresde.checks import door
from scoresde.pretrained.store import packaged
from scoresde.score.model import ScoreModel

__all__ = ["load"]


@door
def load(name: str) -> ScoreModel:
    """Return a model that is part of the package: `load("mnist")`, 28x28 handwritten digits.

    Raises:
        CheckpointError: There is no model of that name.

    Examples:
        >>> load("mnist").event_shape
        (1, 28, 28)
    """
    return ScoreModel.from_pretrained(packaged(name))

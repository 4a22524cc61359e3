"""Load models that come with the package, or models in folders."""

from __future__ import annotations

import os
from typing import Any

from scoresde.checks import door
from scoresde.pretrained.store import packaged
from scoresde.score.model import ScoreModel

__all__ = ["load"]


@door
def load(name: str | os.PathLike[str], **given: Any) -> ScoreModel:
    """Load a packaged model, as in `load("mnist")`, or the model in a folder, as in `load("run/")`.

    The package has `"mnist"`, handwritten digits of 28x28 pixels given their class, and `"pulse"`,
    windows of 2.5 seconds of the pulse at a finger. `ScoreModel.from_pretrained` also takes the
    names of models on the Hugging Face Hub.

    Args:
        name: The name of a packaged model, a folder that `save_pretrained` wrote, or the folder of
            a diffusers pipeline.
        given: Further arguments of `ScoreModel.from_pretrained`, such as `net=`.

    Raises:
        CheckpointError: No model has that name, or the model is damaged.

    Examples:
        >>> load("mnist").event_shape
        (1, 28, 28)
    """
    if os.path.exists(name):
        return ScoreModel.from_pretrained(os.fspath(name), **given)
    return ScoreModel.from_pretrained(packaged(os.fspath(name)), **given)

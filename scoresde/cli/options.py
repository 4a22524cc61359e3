"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import tyro

from scoresde.sampling import SAMPLERS

__all__ = ["Checkpoint", "HeldOutSplit", "SamplerName", "Size", "Source", "Split", "Steps"]

Checkpoint = Annotated[
    tyro.conf.Positional[str],
    tyro.conf.arg(
        metavar="CHECKPOINT",
        help="The folder of a run or a model, its model.safetensors, or a packaged name such as "
        "mnist.",
    ),
]
Source = Annotated[
    str,
    tyro.conf.arg(
        help="digits, a name of torchvision's (mnist, cifar10 ...), a .npy or .npz, a folder of "
        "images."
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
        help="The part of a data set of torchvision: the one that the model was not trained on.",
    ),
]
Size = Annotated[
    int | None,
    tyro.conf.arg(
        metavar="INT",
        help="Crop images to squares and resize them to this many pixels a side, at least 1.",
        help_behavior_hint="(default: as they are)",
    ),
]
SamplerName = Annotated[str, tyro.conf.arg(metavar="{" + ",".join(SAMPLERS) + "}")]
Steps = Annotated[
    int | None,
    tyro.conf.arg(metavar="INT", help_behavior_hint="(default: the model's or the sampler's)"),
]

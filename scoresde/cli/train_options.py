"""Make the options of a network and of a training from their configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import tyro

from scoresde.cli.open import SHARES, opened
from scoresde.suggestion import NetConfig
from scoresde.training import Averages, Compute, Keeping, Optimiser, TrainConfig

__all__ = ["NetOptions", "TrainOptions"]


if TYPE_CHECKING:  # the classes are made at run time
    NetOptions: TypeAlias = Any
    TrainOptions: TypeAlias = Any
else:
    _INTS = tuple[int, ...]
    NetOptions = opened(
        "NetOptions",
        NetConfig(type="unet", channels=(8,)),
        {
            "type": (str, "auto|{unet,mlp,dit}", tyro.conf.arg(name="net")),
            "channels": (_INTS, "auto|INT [INT ...]"),
            "blocks": (int, "auto|INT"),
            "patch": (int, "auto|INT"),
            "attention": (_INTS, "auto|[INT ...]"),
        },
    )
    """The options of a network; those that are None are chosen for the data."""
    TrainOptions = opened(
        "TrainOptions",
        TrainConfig(keeping=Keeping(held_out=0.1)),
        {
            "steps": (int, "auto|INT"),
            "batch_size": (int, "auto|INT"),
            "condition_dropout": SHARES,
        },
        optimiser=(
            opened(
                "OptimiserOptions",
                Optimiser(),
                {
                    "rule": (str, "auto|{adam,muon}", tyro.conf.arg(name="optimiser")),
                    "lr": (float, "auto|FLOAT"),
                },
            ),
            tyro.conf.arg(prefix_name=False),
        ),
        averages=(opened("AveragesOptions", Averages(), {}), tyro.conf.arg(prefix_name=False)),
        compute=(
            opened("ComputeOptions", Compute(), {"bf16": (bool, "auto|yes|no")}),
            tyro.conf.arg(name="speed", prefix_name=False),
        ),
        keeping=(
            opened(
                "KeepingOptions",
                Keeping(held_out=0.1),
                {"held_out": (float, "auto|FLOAT"), "save_every": (int, "auto|INT")},
            ),
            tyro.conf.arg(prefix_name=False),
        ),
    )
    """The options of a training; those that are None are chosen for the data."""

r"""Read checkpoints of ncsnv2 (https://github.com/ermongroup/ncsnv2).

A checkpoint is a list. Its entries are the tensors of the network (among them the ladder `sigmas`),
the state of the optimiser, the epoch, the step, and, if the run averaged its weights, the averages
by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import CheckpointError, InvalidValueError
from scoresde.interop.checkpoints import (
    check_shape,
    check_tensors,
    configured,
    fill,
    levels_of,
    named_weights,
    other_layout,
    read_checkpoint,
)
from scoresde.interop.score_sde import bytes_of, read_config
from scoresde.nn import NCSNv2
from scoresde.pretrained.rebuild import Limit
from scoresde.score import NetworkScore, from_network
from scoresde.sde import NCSNLadder

__all__ = ["load_ncsnv2"]


@door
def load_ncsnv2(
    path: str | Path, config: Any, *, averaged: bool = True, **known: Any
) -> NetworkScore:
    r"""Return the score in a checkpoint of ncsnv2, for the levels of its ladder.

    Only tensors are read, and no code is run. The score's `transform` converts its samples to
    bytes. The authors sample by `samplers.AnnealedLangevin`; all other samplers work too.

    Args:
        path: A file such as `checkpoint_300000.pth`.
        config: The configuration of the training: a file in `configs/` that was read as a
            dictionary. Its entries `data.image_size`, `data.rescaled` and `data.logit_transform`
            are used.
        averaged: Take the averaged weights; False takes the weights of the last step.
        known: Further arguments of `from_network`.

    Raises:
        CheckpointError: The file is missing or damaged, or is not a checkpoint of ncsnv2.
        InvalidValueError, InvalidTypeError: The configuration is wrong, or describes a model that
            cannot be read.
    """
    path = Path(path)
    if read_config(config, "data", "logit_transform"):
        raise InvalidValueError(
            "models of logit-transformed images (data.logit_transform) are not supported"
        )
    tensors, sigmas = _tensors(path, averaged)
    begin = tensors.get("begin_conv.weight")
    if begin is None or begin.ndim != 4:
        raise CheckpointError(f"{path} is not a checkpoint of ncsnv2: it has no begin_conv.weight")
    width, channels = begin.shape[:2]
    stages = 4 + any(k.startswith("res5.") for k in tensors)
    stages += any(k.startswith("res31.") for k in tensors)
    size, centred = (read_config(config, "data", name) for name in ("image_size", "rescaled"))
    with torch.device("meta"), Limit(tensors), configured():  # without drawing weights
        net = NCSNv2(channels, size, width, stages=stages, centred=centred)
    fill(net, tensors, path)
    check_shape((channels, size, size))
    found: dict[str, Any] = {
        "event_shape": (channels, size, size), "transform": bytes_of(channels, centred),
        "conditions": {},
    }  # fmt: skip
    sde = NCSNLadder(tuple(sorted(sigmas.double().tolist())))
    return from_network(net.eval(), sde, "sigma_score", "sigma", **(found | known))


def _tensors(path: Path, averaged: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Return the weights in a checkpoint by name, and the levels of its ladder."""
    found = read_checkpoint(path, "ncsnv2")
    state = found[0] if isinstance(found, list) and len(found) >= 4 else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CheckpointError(
            f"{path} is not a checkpoint of ncsnv2, a list of a network's tensors, an optimiser's "
            f"state, an epoch and a step, but {other_layout(found)}"
        )
    weights = named_weights(state, path)
    if averaged:
        shadow = found[4] if len(found) > 4 else None
        if not isinstance(shadow, dict) or shadow.keys() != weights.keys():
            raise CheckpointError(
                f"{path} does not have an average for each of its {len(weights)} weights; load it "
                "with averaged=False"
            )
        weights |= shadow
    if (sigmas := levels_of(state)) is None:
        raise CheckpointError(f"{path} has no ladder of noise levels, sigmas")
    return check_tensors(weights, path), sigmas

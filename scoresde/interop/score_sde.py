r"""Read checkpoints of score_sde_pytorch (https://github.com/yang-song/score_sde_pytorch).

A checkpoint is a dictionary. `model` has the network's tensors; `ema` has their averages, whose
`shadow_params` are those of the trained tensors, in the order of the network. The kind of network
is not stored there, but in the configuration, another file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoresde import checkpoint
from scoresde.checks import check_batch, check_integer, check_name, door, quoted
from scoresde.data.torch_file import read_torch
from scoresde.errors import (
    CheckpointError,
    DataError,
    InvalidTypeError,
    InvalidValueError,
    ScoreSDEError,
)
from scoresde.nn import NCSNpp
from scoresde.pretrained.rebuild import Limit
from scoresde.score import NetworkScore, from_network
from scoresde.sde import SDE, VESDE, VPSDE, BetaLadder, SubVPSDE
from scoresde.units import Range, Standardize

__all__ = ["load_score_sde"]

_BUFFERS = ("sigmas",)  # tensors of the file that are not weights of the network


@door
def load_score_sde(
    path: str | Path, config: Any, *, averaged: bool = True, **known: Any
) -> NetworkScore:
    r"""Return the score of NCSN++ or DDPM++ in a checkpoint of score_sde_pytorch.

    Only tensors are read, and no code is run. The score's `transform` converts its samples to
    pixels from 0 to 255.

    Args:
        path: A file such as `checkpoint_26.pth`.
        config: Its configuration, as `get_config()` returns it: an object or a dictionary with
            `model`, `data` and `training`.
        averaged: Take the averaged weights; False takes the weights of the last step.
        known: Further arguments of `from_network`.

    Raises:
        CheckpointError: The file is missing, damaged, or has other tensors than the network of the
            configuration.
        UnknownNameError, InvalidValueError, InvalidTypeError: The configuration is of another
            network or process.
    """
    tensors = _tensors(Path(path), averaged)
    with torch.device("meta"), Limit(tensors):  # no weight is drawn
        net = _network(config)
    fill(net, tensors, path)
    sde, predicts, time = _process(config)
    transform = bytes_of(net.channels, net.centred)
    shape = (net.channels, net.size, net.size)
    found: dict[str, Any] = {"event_shape": shape, "transform": transform, "conditions": {}}
    return from_network(net.eval(), sde, predicts, time, **(found | known))


def bytes_of(channels: int, centred: bool) -> Range | Standardize:
    """Return the map of bytes to [-1, 1] if a network's images are centred, else to [0, 1]."""
    if centred:
        return Range(0, 255, levels=256)
    return Standardize((0.0,) * channels, (255.0,) * channels)


def fill(net: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Give a network made without memory the weights of a checkpoint, by name, in float32.

    Raises:
        CheckpointError: The names or shapes differ, or a weight is not finite.
    """
    expected = net.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    more = sorted(tensors.keys() - expected.keys())
    if missing or more:
        raise CheckpointError(
            f"{path} has {len(tensors)} tensors, and the network of the configuration has "
            f"{len(expected)}: missing {quoted(missing[:3])}, more {quoted(more[:3])}; take the "
            "configuration with which it was trained"
        )
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(value.shape)}, and in the network of the "
                f"configuration {tuple(expected[name].shape)}; take the configuration with which "
                "it was trained"
            )
        if not value.isfinite().all():
            raise CheckpointError(
                f"{path}: {name} holds NaN or infinity; take an earlier checkpoint"
            )
    net.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)


def read_config(config: Any, part: str, name: str) -> Any:
    """Return an entry of a configuration, which is an object or a dictionary."""
    for key in (part, name):
        try:
            config = config[key] if isinstance(config, Mapping) else getattr(config, key)
        except (KeyError, AttributeError) as error:
            raise InvalidTypeError(
                f"the configuration has no {part}.{name}; give the one with which it was trained"
            ) from error
    return config


def _network(config: Any) -> NCSNpp:
    """Return the network of a configuration, before its weights are loaded."""

    def model(name: str) -> Any:
        return read_config(config, "model", name)

    for name, supported in (
        ("name", ["ncsnpp"]), ("resblock_type", ["biggan"]), ("nonlinearity", ["swish"]),
        ("embedding_type", ["fourier", "positional"]), ("progressive", ["none", "output_skip"]),
        ("progressive_combine", ["sum"]),
    ):  # fmt: skip
        check_name(f"model.{name}", str(model(name)).lower(), supported)
    if not model("conditional"):
        raise InvalidValueError(
            "model.conditional is False, and only networks that take the time can be loaded"
        )
    if model("fir") and model("fir_kernel") not in ([1, 3, 3, 1], (1, 3, 3, 1)):
        raise InvalidValueError(f"fir_kernel must be [1, 3, 3, 1], got {model('fir_kernel')}")
    fourier = model("fourier_scale") if model("embedding_type") == "fourier" else None
    channels, size = (read_config(config, "data", name) for name in ("num_channels", "image_size"))
    return NCSNpp(
        channels, size, model("nf"),
        model("ch_mult"), model("num_res_blocks"), model("attn_resolutions"), model("dropout"),
        fourier=fourier, fir=model("fir"), rescale=model("skip_rescale"),
        pyramid_in=model("progressive_input"), pyramid_out=model("progressive") == "output_skip",
        centred=read_config(config, "data", "centered"),
    )  # fmt: skip


def _process(config: Any) -> tuple[SDE, str, str]:
    """Return the SDE of a configuration, the prediction of its network, and the time's input."""
    kind = str(read_config(config, "training", "sde")).lower()
    check_name("training.sde", kind, ["vesde", "vpsde", "subvpsde"])
    continuous = read_config(config, "training", "continuous")
    if kind != "vesde":
        if read_config(config, "model", "scale_by_sigma"):
            raise InvalidValueError("a network divided by sigma belongs to training.sde = 'vesde'")
        low, high = (read_config(config, "model", name) for name in ("beta_min", "beta_max"))
        if kind == "subvpsde":
            return SubVPSDE(low, high), "eps", "999t"
        if continuous:
            return VPSDE(low, high), "eps", "999t"
        n = check_integer("model.num_scales", read_config(config, "model", "num_scales"), 2)
        betas = torch.linspace(low / n, high / n, n, dtype=torch.float64)
        return BetaLadder(tuple(betas.tolist())), "eps", "index"
    low, high = (read_config(config, "model", name) for name in ("sigma_min", "sigma_max"))
    predicts = "sigma_score" if read_config(config, "model", "scale_by_sigma") else "score"
    if continuous:
        return VESDE(low, high), predicts, "log_sigma"
    return (
        VESDE(low, high, levels=read_config(config, "model", "num_scales")),
        predicts,
        "descending",
    )


def _tensors(path: Path, averaged: bool) -> dict[str, Tensor]:
    """Return the weights in a checkpoint by name, averaged or not."""
    found = read_checkpoint(path, "score_sde")
    model = found.get("model") if isinstance(found, dict) else None
    if not isinstance(model, dict) or not all(isinstance(name, str) for name in model):
        raise CheckpointError(
            f"{path} is not a checkpoint of score_sde: it has no tensors under 'model'"
        )
    weights = named_weights(model, path)
    if averaged:
        ema = found.get("ema")
        shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
        # the frequencies of the Fourier features are not trained
        trained = [name for name in weights if name != "all_modules.0.W"]
        if not isinstance(shadow, list) or len(shadow) != len(trained):
            raise CheckpointError(
                f"{path} has no average under 'ema' for some of its {len(trained)} weights; load "
                "it with averaged=False"
            )
        weights |= zip(trained, shadow, strict=True)
    return check_tensors(weights, path)


def read_checkpoint(path: Path, library: str) -> Any:
    """Return what the file of a checkpoint holds: tensors in lists and dictionaries.

    Raises:
        CheckpointError: It is missing, or damaged, or holds other things.
    """
    try:
        return read_torch(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist{checkpoint.did_you_mean(path)}") from error
    except (DataError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a checkpoint of {library}: {error}") from error


def named_weights(model: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the weights of a state dictionary, without the prefix that DataParallel writes."""
    weights = {name.removeprefix("module."): value for name, value in model.items()}
    if len(weights) < len(model):
        raise CheckpointError(f"{path} has weights twice, with and without 'module.' before them")
    return {name: value for name, value in weights.items() if name not in _BUFFERS}


def check_tensors(weights: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return weights; raise CheckpointError unless all are tensors of real numbers."""
    try:
        for name, value in weights.items():
            check_batch(name, value[None] if isinstance(value, Tensor) else value, finite=False)
    except ScoreSDEError as error:
        raise CheckpointError(f"{path} holds no weights of a network: {error}") from error
    return dict(weights)

r"""Read checkpoints of score_sde_pytorch (https://github.com/yang-song/score_sde_pytorch).

A checkpoint is a dictionary. Its entry `model` holds the tensors of the network. Its entry `ema`
holds averages: `shadow_params` has the averages of the trained tensors, in the order of the
network. The kind of network is not in the checkpoint but in a configuration file. `ncsnv2.py` reads
the checkpoints of an earlier project of the same authors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoresde.checks import check_integer, check_name, door, quoted
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError
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
from scoresde.nn import NCSNpp, NCSNv2
from scoresde.pretrained.rebuild import MOST, Limit
from scoresde.score import NetworkScore, from_network
from scoresde.sde import SDE, VESDE, VPSDE, BetaLadder, SubVPSDE
from scoresde.units import Range, Standardize

__all__ = ["load_score_sde"]

# the number of stages of each NCSNv2 network, by name
_STAGES = {"ncsnv2_64": 4, "ncsnv2_128": 5, "ncsnv2_256": 6}


@door
def load_score_sde(
    path: str | Path | None, config: Any, *, averaged: bool = True, **known: Any
) -> NetworkScore:
    r"""Return the score in a checkpoint of score_sde_pytorch: NCSN++, DDPM++ or NCSNv2.

    Only tensors are read, and no code is run. The score's `transform` converts its samples to
    pixels from 0 to 255.

    Args:
        path: A file such as `checkpoint_26.pth`. None returns the network of the configuration with
            initial weights, for training.
        config: The configuration of the training, which `get_config()` returns: an object or a
            dictionary with `model`, `data` and `training`.
        averaged: Take the averaged weights; False takes the weights of the last step.
        known: Further arguments of `from_network`.

    Raises:
        CheckpointError: The file is missing or damaged, or its tensors or noise levels do not agree
            with the configuration.
        UnknownNameError, InvalidValueError, InvalidTypeError: The configuration is wrong, or
            describes a network or process that is not supported.
    """
    if path is None:
        with configured():
            net = _network(config)
    else:
        tensors, sigmas = _tensors(Path(path), averaged)
        with torch.device("meta"), Limit(tensors), configured():  # no weight is drawn
            net = _network(config)
        fill(net.eval(), tensors, path)
    with configured():
        sde, predicts, time = _process(config)
    if path is not None and predicts != "eps":
        _check_levels(sde, sigmas, path)
    transform = bytes_of(net.channels, net.centred)
    shape = (net.channels, net.size, net.size)
    check_shape(shape)
    found: dict[str, Any] = {"event_shape": shape, "transform": transform, "conditions": {}}
    return from_network(net, sde, predicts, time, **(found | known))


def bytes_of(channels: int, centred: bool) -> Range | Standardize:
    """Return the transform of bytes to [-1, 1] if images are centred, else to [0, 1]."""
    if centred:
        return Range(0, 255, levels=256)
    return Standardize((0.0,) * channels, (255.0,) * channels)


def read_config(config: Any, part: str, name: str) -> Any:
    """Return an entry of a configuration, which is an object or a dictionary."""
    for key in (part, name):
        try:
            config = config[key] if isinstance(config, Mapping) else getattr(config, key)
        except (KeyError, AttributeError) as error:
            raise InvalidTypeError(
                f"the configuration has no {part}.{name}; give the configuration of the training"
            ) from error
    return config


def _flag(config: Any, part: str, name: str) -> bool:
    """Return an entry; raise unless it is True or False, since a text would count as True."""
    value = read_config(config, part, name)
    if not isinstance(value, bool):
        raise InvalidTypeError(
            f"{part}.{name} of the configuration must be true or false, got {quoted(value)}"
        )
    return value


def _name(config: Any) -> str:
    """Return the name of the network in a configuration."""
    name = str(read_config(config, "model", "name")).lower()
    check_name("model.name", name, ["ncsnpp", *_STAGES])
    return name


def _check_choices(config: Any, **supported: list[str]) -> None:
    """Raise UnknownNameError unless each entry of the model is supported."""
    for name, choices in supported.items():
        found = str(read_config(config, "model", name))
        check_name(f"model.{name}", found if found in choices else found.lower(), choices)


def _network(config: Any) -> NCSNpp | NCSNv2:
    """Make the network of a configuration, before its weights are loaded."""

    def model(name: str) -> Any:
        return read_config(config, "model", name)

    name = _name(config)
    channels, size, centred = (
        read_config(config, "data", key) for key in ("num_channels", "image_size", "centered")
    )
    if name in _STAGES:
        _check_choices(config, normalization=["InstanceNorm++"], nonlinearity=["elu"])
        return NCSNv2(channels, size, model("nf"), stages=_STAGES[name], centred=centred)
    _check_choices(
        config, resblock_type=["biggan"], nonlinearity=["swish"],
        embedding_type=["fourier", "positional"], progressive=["none", "output_skip"],
        progressive_combine=["sum"],
    )  # fmt: skip
    if not _flag(config, "model", "conditional"):
        raise InvalidValueError(
            "model.conditional is False, but only networks that take the time are supported"
        )
    if model("fir") and model("fir_kernel") not in ([1, 3, 3, 1], (1, 3, 3, 1)):
        raise InvalidValueError(f"fir_kernel must be [1, 3, 3, 1], got {model('fir_kernel')}")
    pyramid: Any = str(model("progressive_input")).lower()
    fourier = model("fourier_scale") if model("embedding_type").lower() == "fourier" else None
    return NCSNpp(
        channels, size, model("nf"),
        model("ch_mult"), model("num_res_blocks"), model("attn_resolutions"), model("dropout"),
        fourier=fourier, fir=model("fir"), rescale=model("skip_rescale"),
        pyramid_in=pyramid,
        pyramid_out=model("progressive").lower() == "output_skip",
        centred=centred,
    )  # fmt: skip


def _process(config: Any) -> tuple[SDE, str, str]:
    """Return the SDE of a configuration, what its network predicts, and the time input."""
    kind = str(read_config(config, "training", "sde")).lower()
    if _name(config) in _STAGES:
        # this network divides by sigma itself, and takes the number of a level even if
        # training.continuous is True
        check_name("training.sde", kind, ["vesde"])
        low, high = (read_config(config, "model", name) for name in ("sigma_min", "sigma_max"))
        return VESDE(low, high, levels=_levels(config)), "sigma_score", "sigma"
    check_name("training.sde", kind, ["vesde", "vpsde", "subvpsde"])
    continuous = _flag(config, "training", "continuous")
    divided = _flag(config, "model", "scale_by_sigma")
    if kind != "vesde":
        if divided:
            raise InvalidValueError(
                "a network whose output is divided by sigma needs training.sde = 'vesde'"
            )
        low, high = (read_config(config, "model", name) for name in ("beta_min", "beta_max"))
        if kind == "subvpsde":
            return SubVPSDE(low, high), "eps", "999t"
        if continuous:
            return VPSDE(low, high), "eps", "999t"
        n = _levels(config)
        betas = torch.linspace(low / n, high / n, n, dtype=torch.float64)
        return BetaLadder(tuple(betas.tolist())), "eps", "index"
    low, high = (read_config(config, "model", name) for name in ("sigma_min", "sigma_max"))
    predicts = "sigma_score" if divided else "score"
    if continuous:
        return VESDE(low, high), predicts, "log_sigma"
    return VESDE(low, high, levels=_levels(config)), predicts, "descending"


def _levels(config: Any) -> int:
    """Return the number of noise levels of a configuration."""
    n = check_integer("model.num_scales", read_config(config, "model", "num_scales"), 2)
    if n > MOST:
        raise InvalidValueError(f"model.num_scales must be at most {MOST:,}, got {n:,}")
    return n


def _check_levels(sde: SDE, sigmas: Tensor | None, path: str | Path) -> None:
    """Raise CheckpointError if the noise levels in a checkpoint differ from the SDE's levels."""
    if sigmas is None or not len(sigmas):
        return
    times = torch.linspace(sde.T, sde.eps, len(sigmas), dtype=torch.float64)
    # a half-precision file has three digits
    same = torch.allclose(sigmas.double(), sde.sigma(times), rtol=2e-3, atol=0)
    if not same or sde.levels not in (None, len(sigmas)):
        count = "" if sde.levels is None else f"{sde.levels:,} "
        low, high = sde.sigma(torch.tensor([sde.eps, sde.T], dtype=torch.float64)).tolist()
        raise CheckpointError(
            f"{path} has {len(sigmas):,} noise levels from {sigmas[-1]:.4g} to {sigmas[0]:.4g}, "
            f"but the configuration has {count}levels from {low:.4g} to {high:.4g}; take the "
            "configuration of the training"
        )


def _tensors(path: Path, averaged: bool) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return the weights, averaged or not, by name, and the noise levels of a checkpoint."""
    found = read_checkpoint(path, "score_sde")
    model = found.get("model") if isinstance(found, dict) else None
    if not isinstance(model, dict):
        raise CheckpointError(f"{path} is not a checkpoint of score_sde, but {other_layout(found)}")
    if not all(isinstance(name, str) for name in model):
        raise CheckpointError(
            f"{path} is not a checkpoint of score_sde: it has no tensors under 'model'"
        )
    weights = named_weights(model, path)
    if averaged:
        ema = found.get("ema")
        shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
        # the frequencies of the Fourier features are not trained, so they have no average
        trained = [name for name in weights if name != "all_modules.0.W"]
        if not isinstance(shadow, list) or len(shadow) != len(trained):
            raise CheckpointError(
                f"{path} has no average under 'ema' for some of its {len(trained)} weights; load "
                "it with averaged=False"
            )
        weights |= zip(trained, shadow, strict=True)
    return check_tensors(weights, path), levels_of(model)

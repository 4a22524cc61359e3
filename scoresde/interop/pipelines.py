"""Read the folders in which diffusers saves pipelines (https://github.com/huggingface/diffusers).

Only safetensors and JSON are read, and nothing is downloaded.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from scoresde import checkpoint
from scoresde.checks import door, quoted
from scoresde.errors import CheckpointError, MissingExtraError
from scoresde.interop.autoencoders import with_vae
from scoresde.interop.diffusers import from_diffusers
from scoresde.noise.global_rng import forked_rng
from scoresde.pretrained.rebuild import DIFFUSERS, LARGEST, MOST, Limit
from scoresde.pretrained.store import PIPELINE
from scoresde.score import Latent, NetworkScore
from scoresde.score.stored import check_weights

__all__ = ["load_diffusers"]

_EXPLODING = "ScoreSdeVeScheduler"
_NETWORKS = ("unet", "transformer")
_AUTOENCODERS = ("vae", "vqvae")
_CODES = frozenset({"AsymmetricAutoencoderKL", "AutoencoderKL", "AutoencoderTiny", "VQModel"})


@door
def load_diffusers(
    folder: str | Path, *, unet: nn.Module | None = None, **known: Any
) -> NetworkScore | Latent:
    """Return the score of a diffusers pipeline in a folder.

    The pipeline consists of a network, a scheduler and optionally an autoencoder, such as a
    `DDPMPipeline`, an `LDMPipeline` or a `DiTPipeline`. With an autoencoder the score is a
    `Latent`. `scoresde.load(folder)` and the commands read pipelines without an autoencoder.

    Args:
        folder: A folder that `pipeline.save_pretrained` of diffusers wrote.
        unet: The network, needed only if this function does not know its class.
        known: Further arguments of `from_network`.

    Raises:
        CheckpointError: The folder does not hold such a pipeline, or the pipeline has further
            parts, such as a text encoder.
        MissingExtraError: diffusers is not installed.
    """
    folder = Path(folder)
    parts = _parts(folder)
    name = next(name for name in _NETWORKS if name in parts)
    code = next((name for name in _AUTOENCODERS if name in parts), None)
    for part, kind, kinds in (
        (name, parts[name], DIFFUSERS),
        (code, parts.get(code or ""), _CODES),
    ):
        if part is not None and kind not in kinds and (part == code or unet is None):
            raise CheckpointError(
                f"{folder} has a {part} of the class {quoted(kind)}, which is not supported; load "
                "the parts with diffusers, and pass them to from_diffusers and with_vae"
            )
    try:
        diffusers: Any = importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtraError.of("diffusers", "peers", "a pipeline of diffusers") from error
    scheduler = _scheduler(folder, diffusers)
    net = _made(folder, name, getattr(diffusers, parts[name])) if unet is None else unet.eval()
    score = from_diffusers(net, scheduler, **known)
    check_weights(score, folder)
    if math.prod(score.event_shape) > LARGEST:
        raise CheckpointError(
            f"{folder} has samples of the shape {score.event_shape}, which is too large"
        )
    if code is None:
        return score
    vae = _made(folder, code, getattr(diffusers, parts[code]))
    check_weights(vae, folder)
    return with_vae(score, vae)


def _scheduler(folder: Path, diffusers: Any) -> Any:
    """Return the scheduler of a pipeline.

    Raises:
        CheckpointError: The scheduler is missing or damaged, or its process is not supported.
    """
    config = checkpoint.read_json(folder / "scheduler" / "scheduler_config.json")
    kind, steps = config.get("_class_name"), config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 2 <= steps <= MOST:
        raise CheckpointError(
            f"{folder} has a scheduler with {quoted(steps)} levels; the number must be from 2 to "
            f"{MOST:,}"
        )
    # every scheduler with betas is loaded as a DDPMScheduler, which has the same settings
    if kind != _EXPLODING:
        if "beta_schedule" not in config:  # diffusers adds defaults that the file does not have
            raise CheckpointError(
                f"{folder} has a scheduler of the class {quoted(kind)}, which has no schedule of "
                "betas; pass the network and its process to from_network"
            )
        kind = "DDPMScheduler"
    with _reading(folder):
        return getattr(diffusers, kind).from_config(config)


def _made(folder: Path, part: str, kind: Any) -> Any:
    """Return a network of a pipeline; raise CheckpointError if its files are damaged."""
    config = checkpoint.read_json(folder / part / "config.json")
    how = {"use_safetensors": True, "low_cpu_mem_usage": False}
    with _reading(folder), forked_rng():  # the initial weights are overwritten
        stored = {}
        for path in (folder / part).glob("*.safetensors"):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (it is no dictionary)
                    shape = file.get_slice(name).get_shape()
                    stored[name] = torch.empty(shape, device="meta")
        if not stored:
            raise CheckpointError(
                f"{folder / part} has no safetensors file, and pickles are not read, since they "
                "can run any code; if you trust them, load and save the pipeline with diffusers"
            )
        with torch.device("meta"), Limit(stored):  # a few bytes may describe a huge network
            kind.from_config(config)
        return kind.from_pretrained(folder / part, **how, local_files_only=True).eval()


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Turn the errors of diffusers, which have many types, into a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"[:500]
        raise CheckpointError(f"{folder} cannot be read by diffusers: {cause}") from error


def load_network(folder: Path, unet: nn.Module | None) -> NetworkScore:
    """Return the score of a pipeline without an autoencoder, for `from_pretrained`.

    Raises:
        CheckpointError, MissingExtraError: As in `load_diffusers`, or the pipeline has an
            autoencoder.
    """
    if codes := [name for name in _AUTOENCODERS if name in _parts(folder)]:
        raise CheckpointError(
            f"{folder} holds a pipeline for the codes of its {codes[0]}, which the commands cannot "
            "decode; read it in Python by scoresde.interop.load_diffusers(folder)"
        )
    found: Any = load_diffusers(folder, unet=unet)
    score: NetworkScore = found
    return score


def _parts(folder: Path) -> Mapping[str, str]:
    """Return the class names of the parts of a pipeline, by name of the part.

    Raises:
        CheckpointError: The parts do not give a score.
    """
    index = checkpoint.read_json(folder / PIPELINE)
    parts = {k: str(v[-1]) for k, v in index.items() if isinstance(v, list) and v and v[-1]}
    found = parts.keys()
    one = len(found & set(_NETWORKS)) == 1 and len(found & set(_AUTOENCODERS)) <= 1
    if one and "scheduler" in found and not found - {"scheduler", *_NETWORKS, *_AUTOENCODERS}:
        return parts
    more = sorted(found - {"scheduler", *_NETWORKS, *_AUTOENCODERS})
    without = f"; {', '.join(more)} cannot be read here" if more else ""
    raise CheckpointError(
        f"{folder} holds a pipeline of {', '.join(parts) or 'no parts'}, but a score needs a unet "
        f"or a transformer, a scheduler and optionally a vae{without}; load the parts with "
        "diffusers, pass network and scheduler to from_diffusers, and pass conditions by their "
        "names, such as encoder_hidden_states"
    )

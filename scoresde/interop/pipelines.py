"""Read the folders in which diffusers saves pipelines (https://github.com/huggingface/diffusers).

Only safetensors and JSON are read, and nothing is downloaded.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from scoresde import checkpoint
from scoresde.checks import door, quoted
from scoresde.errors import CheckpointError, MissingExtraError
from scoresde.interop.autoencoders import with_vae
from scoresde.interop.diffusers import from_diffusers
from scoresde.noise.global_rng import forked_rng
from scoresde.pretrained.rebuild import DIFFUSERS
from scoresde.pretrained.store import PIPELINE
from scoresde.score import Latent, NetworkScore

__all__ = ["load_diffusers"]

_SCHEDULER = "scheduler_config.json"
_NETWORKS = ("unet", "transformer")
_AUTOENCODERS = ("vae", "vqvae")
_CODES = frozenset({"AsymmetricAutoencoderKL", "AutoencoderKL", "AutoencoderTiny", "VQModel"})


@door
def load_diffusers(
    folder: str | Path, *, unet: nn.Module | None = None, **known: Any
) -> NetworkScore | Latent:
    """Return the score of a pipeline of diffusers, from the folder of its files.

    The pipeline consists of a network, a scheduler and maybe an autoencoder, as a `DDPMPipeline`,
    an `LDMPipeline` and a `DiTPipeline` do; with an autoencoder the score is a `Latent`.
    `scoresde.load(folder)` and the commands read pipelines without an autoencoder.

    Args:
        folder: A folder that `pipeline.save_pretrained` of diffusers wrote.
        unet: The network, if its class is none that is known here.
        known: Further arguments of `from_network`.

    Raises:
        CheckpointError: The folder holds no such pipeline, or one with further parts, such as the
            encoder of a text.
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
                f"{folder} has a {part} of the class {quoted(kind)}, which is not known here; load "
                "the parts with diffusers, and pass them to from_diffusers and with_vae"
            )
    try:
        diffusers: Any = importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtraError.of("diffusers", "peers", "a pipeline of diffusers") from error

    def made(part: str) -> Any:
        how = {"use_safetensors": True, "low_cpu_mem_usage": False}  # the latter by accelerate
        kind = getattr(diffusers, parts[part])
        with forked_rng():  # the first weights are overwritten
            return kind.from_pretrained(folder / part, **how, local_files_only=True).eval()

    exploding = parts["scheduler"] == "ScoreSdeVeScheduler"
    try:
        net = made(name) if unet is None else unet.eval()
        vae = None if code is None else made(code)
        # any scheduler with betas is made of the settings of any other
        kind = parts["scheduler"] if exploding else "DDPMScheduler"
        scheduler = getattr(diffusers, kind).from_pretrained(
            folder / "scheduler", local_files_only=True
        )
    except Exception as error:  # of many kinds, by a damaged or a foreign file
        cause = f"{type(error).__name__}: {error}"[:500]
        raise CheckpointError(f"{folder} cannot be read by diffusers: {cause}") from error
    # diffusers fills in what the file lacks
    if not exploding and "beta_schedule" not in checkpoint.read_json(
        folder / "scheduler" / _SCHEDULER
    ):
        raise CheckpointError(
            f"{folder} has a scheduler of the class {quoted(parts['scheduler'])}, which has no "
            "schedule of beta; give network and process to from_network"
        )
    score = from_diffusers(net, scheduler, **known)
    return score if vae is None else with_vae(score, vae)


def load_network(folder: Path, unet: nn.Module | None) -> NetworkScore:
    """Return the score of a pipeline without an autoencoder, for `from_pretrained`.

    Raises:
        CheckpointError, MissingExtraError: As in `load_diffusers`, or it has an autoencoder.
    """
    if codes := [name for name in _AUTOENCODERS if name in _parts(folder)]:
        raise CheckpointError(
            f"{folder} holds a pipeline in the space of the codes of its {codes[0]}, which no "
            "command decodes; read it in Python by scoresde.interop.load_diffusers(folder)"
        )
    found: Any = load_diffusers(folder, unet=unet)
    score: NetworkScore = found
    return score


def _parts(folder: Path) -> Mapping[str, str]:
    """Return the classes of the parts of a pipeline by name.

    Raises:
        CheckpointError: They are not those of a score.
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
        f"{folder} holds a pipeline of {', '.join(parts) or 'no parts'}, and a score is made of a "
        f"unet or a transformer, a scheduler and maybe a vae{without}; load the parts with "
        "diffusers, give network and scheduler to from_diffusers, and pass conditions by their "
        "names, such as encoder_hidden_states"
    )

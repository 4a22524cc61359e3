"""Read the tensors of another project's checkpoint, and load them into a network.

Only tensors are read, and no code in the file is run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scoresde import checkpoint
from scoresde.checkpoint.state import layout
from scoresde.checks import check_batch, quoted
from scoresde.data.torch_file import read_torch
from scoresde.errors import CheckpointError, DataError, InvalidValueError, ScoreSDEError
from scoresde.pretrained.rebuild import LARGEST

__all__ = [
    "check_shape",
    "check_tensors",
    "configured",
    "fill",
    "levels_of",
    "named_weights",
    "other_layout",
    "read_checkpoint",
]

_BUFFERS = ("sigmas",)  # tensors in a checkpoint that are not weights of the network
_WHERE = "if you trust the file, load it with the project's code, and pass the network to"
_READ = "load them into the network, and pass the network to from_network"
_PICKLED = {  # a name that a pickle contains, and the kind of file that it shows
    b"torch_utils.persistence": f"a pickle of EDM; {_WHERE} from_edm",
    b"pytorch_lightning": f"a checkpoint of PyTorch Lightning; {_WHERE} from_network",
    b"torch.nn.modules": f"a pickled network; {_WHERE} from_network",
}


def read_checkpoint(path: Path, library: str) -> Any:
    """Read the content of a checkpoint file, tensors in lists and dictionaries.

    Raises:
        CheckpointError: The file is missing or damaged, or holds something other than tensors.
    """
    try:
        return read_torch(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist{checkpoint.did_you_mean(path)}") from error
    except (DataError, OSError, ValueError) as error:
        reason = _pickled(path) or f": {error}"
        raise CheckpointError(f"{path} is not a checkpoint of {library}{reason}") from error


def _pickled(path: Path) -> str:
    """Describe the kind of a pickle, as the end of a sentence, from the names in it."""
    try:
        with checkpoint.open_file(path) as file:
            start = file.read(2**20)
    except (OSError, ValueError):
        return ""
    return next((f", but {what}" for name, what in _PICKLED.items() if name in start), "")


def other_layout(found: object) -> str:
    """Describe the content of a file, to complete the sentence "this is not a checkpoint, but"."""
    if isinstance(found, list) and len(found) >= 4 and isinstance(found[0], Mapping):
        return "one of ncsnv2; read it by load_ncsnv2"
    if not isinstance(found, Mapping) or not found:
        return f"holds a {type(found).__name__}"
    if isinstance(found.get("model"), Mapping):
        return "one of score_sde_pytorch; read it by load_score_sde"
    if isinstance(found.get("state_dict"), Mapping):
        return f"one of PyTorch Lightning with the weights state_dict; {_READ}"
    if all(isinstance(value, Tensor) for value in found.values()):
        names = [str(name) for name in found]
        hint = layout(names) or f"; {_READ}"
        return f"only the weights of a network, such as {quoted(names[0])}{hint}"
    return f"a dictionary of {quoted(sorted(map(str, found))[:5])}"


def named_weights(model: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the weights in a state dictionary, without the prefix of DataParallel."""
    weights = {name.removeprefix("module."): value for name, value in model.items()}
    if len(weights) < len(model):
        raise CheckpointError(
            f"{path} has weights with the same name, once with the prefix 'module.' and once "
            "without"
        )
    return {name: value for name, value in weights.items() if name not in _BUFFERS}


def check_tensors(weights: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the weights; raise CheckpointError unless all are tensors of real numbers."""
    try:
        for name, value in weights.items():
            check_batch(name, value[None] if isinstance(value, Tensor) else value, finite=False)
    except (ScoreSDEError, RuntimeError) as error:  # nested tensors raise RuntimeError
        raise CheckpointError(f"{path} does not hold the weights of a network: {error}") from error
    return dict(weights)


def levels_of(model: Mapping[str, Any]) -> Tensor | None:
    """Return the noise levels in a state dictionary as they are stored there, or None."""
    sigmas = {name.removeprefix("module."): value for name, value in model.items()}.get("sigmas")
    real = isinstance(sigmas, Tensor) and sigmas.ndim == 1 and sigmas.is_floating_point()
    return sigmas if real else None


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise InvalidValueError if a configuration's images have too many pixels."""
    if math.prod(shape) > LARGEST:
        raise InvalidValueError(f"the images of the configuration have the shape {quoted(shape)}")


@contextmanager
def configured() -> Iterator[None]:
    """Raise InvalidValueError for any error in the block, since the configuration is its cause."""
    try:
        yield
    except ScoreSDEError:
        raise
    except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        cause = str(error).partition("\n")[0][:200]
        raise InvalidValueError(
            f"the configuration does not describe a network and process ({type(error).__name__}: "
            f"{cause}); give the configuration of the training"
        ) from error


def fill(net: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Load the weights of a checkpoint, by name and in float32, into a network on the meta device.

    Raises:
        CheckpointError: The names or shapes differ, or a weight is not finite.
    """
    expected = net.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    more = sorted(tensors.keys() - expected.keys())
    if missing or more:
        raise CheckpointError(
            f"{path} has {len(tensors)} tensors, but the network of the configuration has "
            f"{len(expected)}: missing {quoted(missing[:3])}, unexpected {quoted(more[:3])}; take "
            "the configuration of the training"
        )
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(value.shape)}, but {tuple(expected[name].shape)} "
                "in the network of the configuration; take the configuration of the training"
            )
        if not value.isfinite().all():
            raise CheckpointError(
                f"{path}: {name} holds NaN or infinity; take an earlier checkpoint"
            )
    net.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)

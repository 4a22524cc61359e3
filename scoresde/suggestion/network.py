"""Choose a network for events of a shape: its type, its resolutions and its widths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from scoresde.checks import check_fields, check_name, check_range
from scoresde.errors import InvalidValueError
from scoresde.nn import MLP, DiT, UNet
from scoresde.sde import Classes, Field
from scoresde.sde.words import event_in_words

__all__ = ["NetConfig", "network"]

Kinds = Mapping[str, Classes | Field]
Chosen = tuple[Any, str]

_TYPES = ("unet", "mlp", "dit")
# The numbers of axes, besides the channels, that a U-Net may have.
_AXES = (1, 2, 3)
# Convolutions are not used if an event has fewer positions along its longest axis.
_SMALLEST = 4
# Vectors of at least this many numbers may be signals.
_LONG = 16
# A U-Net has at least two resolutions, and so many that the coarsest has at most this many
# positions along each side. Its blocks reach four positions to each side, and the blocks of finer
# resolutions three more, so that the receptive field is the whole event.
_COARSEST = 8
# Widths of the two finest resolutions (narrow if the finest has more than _FEW positions), and of
# all other resolutions. A fine resolution with many positions takes most of the time of a step. If
# it is narrow, there are more steps in the same time, which lowers the loss more.
_NARROW, _WIDE, _OTHERS, _FEW = (32, 32), (32, 48), 64, 256
# The largest number of positions of the finest resolution if the patches have a side below 4, and
# otherwise. Patches lose detail: after equal time a narrow network without patches has a
# lower loss.
_FINEST, _MOST = 4096, 16_384


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    """Describe a network by all settings that `build` needs.

    Attributes:
        type: `"unet"` or `"dit"`, for signals, images and volumes, or `"mlp"`, for anything.
        channels: The widths of the resolutions of a U-Net, finest first; of the layers of an MLP;
            or of the blocks of a transformer (dit), where all widths are equal.
        blocks: The number of residual blocks at each resolution of a U-Net, in the encoder and in
            the decoder.
        patch: The side of the patches that a U-Net first folds into channels, or that become the
            tokens of a transformer. 1 makes no patches; larger patches are cheaper and coarser.
        attention: The resolutions of a U-Net with self-attention; 0 is the finest.
        dropout: The share of features that is dropped in training, in [0, 1).

    Raises:
        InvalidTypeError, InvalidValueError, UnknownNameError: The value of a field is not allowed.

    Examples:
        >>> NetConfig(type="unet", channels=(8, 16)).build((2, 100), {}).config["spatial"]
        1
    """

    type: str
    channels: tuple[int, ...]
    blocks: int = 1
    patch: int = 1
    attention: tuple[int, ...] = ()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_name("network", self.type, _TYPES)
        check_range("dropout", self.dropout, "[0, 1)")
        if self.type == "dit":
            self._check_dit()
        if self.type == "mlp":
            for name, none in (("blocks", 1), ("patch", 1), ("attention", ())):
                if getattr(self, name) != none:
                    raise InvalidValueError(
                        f"{name} is an option of U-Nets, which are for signals, images and "
                        "volumes; this network is an MLP: leave it out"
                    )

    def _check_dit(self) -> None:
        """Raise InvalidValueError if the options do not suit a transformer."""
        if len(set(self.channels)) != 1 or self.blocks != 1 or self.attention:
            raise InvalidValueError(
                "a transformer has one width for each of its blocks, all equal, and no blocks or "
                f"attention to choose; got channels = {self.channels}, blocks = {self.blocks}, "
                f"attention = {self.attention}"
            )

    def build(self, event_shape: Sequence[int], kinds: Kinds) -> nn.Module:
        """Return the network, its weights drawn from torch's global generator.

        Args:
            event_shape: The shape of one sample.
            kinds: The conditions that the network takes.

        Raises:
            InvalidValueError: The network does not take events of this shape.
        """
        known: dict[str, Any] = dict(
            num_classes={k: kind.n for k, kind in kinds.items() if isinstance(kind, Classes)},
            condition={k: kind.shape for k, kind in kinds.items() if isinstance(kind, Field)},
            dropout=self.dropout,
        )
        if self.type == "mlp":
            return MLP(tuple(event_shape), hidden=self.channels, **known)
        _check_axes(event_shape)
        spatial = len(event_shape) - 1
        if self.type == "dit":
            width = self.channels[0]
            known |= dict(width=width, depth=len(self.channels), patch=self.patch)
            return DiT(event_shape[0], spatial=spatial, heads=math.gcd(width, 4), **known)
        known |= dict(blocks=self.blocks, patch=self.patch, attention=self.attention)
        known |= dict(bounded=True)  # otherwise a high learning rate may lose the fine features
        return UNet(event_shape[0], spatial=spatial, channels=self.channels, **known)


def _check_axes(event_shape: Sequence[int]) -> None:
    if len(event_shape) - 1 not in _AXES:
        raise InvalidValueError(
            "a U-Net or a transformer takes events with channels and one, two or three axes, and "
            f"these data have the shape {tuple(event_shape)}; use the network mlp"
        )


def network(
    event_shape: Sequence[int], kinds: Kinds, n: int, type: str | None = None
) -> dict[str, Chosen]:
    """Choose a network; return values and reasons by the names of the fields of `NetConfig`.

    Args:
        event_shape: The shape of one sample.
        kinds: The conditions of the network.
        n: The number of samples.
        type: The type of the network, "mlp", "unet" or "dit"; None chooses.

    Raises:
        UnknownNameError, InvalidValueError: There is no such network, or it does not take events of
            this shape.
    """
    size, sides = math.prod(event_shape), event_shape[1:]
    odd = [
        name
        for name, kind in kinds.items()
        if isinstance(kind, Field) and len(kind.shape) not in (1, len(event_shape))
    ]
    if type is None:
        if len(sides) not in _AXES:
            type, why = "mlp", f"for {event_in_words(event_shape)}"
            if not sides and size >= _LONG:
                why += "; for a signal, whose numbers are ordered, pass the layout T"
        elif max(sides) < _SMALLEST:
            type, why = "mlp", f"for {event_in_words(event_shape)}, too few for convolutions"
        elif odd:
            type, why = (
                "mlp",
                f"a U-Net takes no condition with other axes than the samples: {odd[0]}",
            )
        else:
            type, why = "unet", f"for {event_in_words(event_shape)}"
    else:
        check_name("network", type, _TYPES)
        if type != "mlp":
            _check_axes(event_shape)
        why = f"as asked, for {event_in_words(event_shape)}"
    found: dict[str, Chosen] = {"type": (type, why)}
    if type == "mlp":
        width = min(512, max(128, 2 ** math.ceil(math.log2(8 * math.sqrt(size)))))
        found["channels"] = (width,) * 3, f"the widths of three layers, for {size:,} numbers"
        return found
    if type == "dit":
        return found | _tokens(sides)
    patch = _patch(sides)
    coarse = [math.ceil(side / patch) for side in sides]
    levels, side = 2, math.ceil(max(coarse) / 2)
    while side > _COARSEST:
        levels, side = levels + 1, math.ceil(side / 2)
    first = _WIDE if math.prod(coarse) <= _FEW else _NARROW
    found["channels"] = (
        first + (_OTHERS,) * (levels - 2),
        f"the widths of {levels} resolutions, which have from {max(coarse)} to {side} positions "
        "along the longest side",
    )
    positions = " x ".join(map(str, coarse))
    found["patch"] = (
        patch,
        f"with patches of side {patch} the finest resolution has {positions} positions",
    )
    return found


def _tokens(sides: Sequence[int]) -> dict[str, Chosen]:
    """Choose blocks and patches of a transformer; its cost grows with the square of the tokens."""
    patch, count = 1, math.prod(sides)
    while count > _FEW:
        patch *= 2
        count = math.prod(math.ceil(side / patch) for side in sides)
    return {
        "channels": ((96,) * 4, "the widths of four blocks"),
        "patch": (
            patch,
            f"patches of side {patch} give {count:,} tokens; at most {_FEW} are taken",
        ),
    }


def _patch(sides: Sequence[int]) -> int:
    patch, positions = 1, math.prod(sides)
    while positions > (_FINEST if patch < 4 else _MOST):
        patch *= 2
        positions = math.prod(math.ceil(side / patch) for side in sides)
    return patch

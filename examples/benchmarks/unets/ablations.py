"""Define variants of our U-Net with one change each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scoresde.data import Data
from scoresde.nn import UNet
from scoresde.nn.unet import Level

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def small(**changes: Any) -> Callable[[Data], UNet]:
    """Return a function that builds `UNet.small` with other arguments."""
    return lambda data: UNet.small(data.event_shape[0], **changes)


def without_zeros(data: Data) -> UNet:
    """Initialise the last layers of the branches and of the network like all other layers."""
    net = small()(data)
    for layer in net.modules():
        if isinstance(layer, CONV) and not layer.weight.any():
            layer.reset_parameters()
    return net


class Joined(Level):
    """Concatenate coarser features to those of a resolution, and mix both by a convolution."""

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Return the features."""
        for block in self.down:
            x = block(x, e)
        if self.below is not None:
            y = self.below(self.shrink(x), e)
            y = self.grow(F.rms_norm(y, y.shape[1:], eps=1.0))
            y = F.interpolate(y, size=x.shape[2:], mode="nearest")
            x = self.mix(torch.cat([x, y], 1))
        for block in self.up:
            x = block(x, e)
        return x


def concatenated(data: Data) -> UNet:
    """Concatenate skips in place of the sum."""
    net = small()(data)
    for level in net.modules():
        if isinstance(level, Level) and level.below is not None:
            level.__class__ = Joined
            width = level.grow.out_channels
            level.mix = nn.Conv2d(2 * width, width, 1)
    return net


def embedded(by: float) -> Callable[[Data], UNet]:
    """Multiply the frequencies of the embedding."""

    def make(data: Data) -> UNet:
        net = small()(data)
        net.embedding.wave.frequencies.mul_(by)
        return net

    return make


def preserving(data: Data) -> UNet:
    """Keep the weights of each output at norm 1 (EDM2, arXiv:2312.02696, eq. 47).

    Layers that begin at zero are left out.
    """
    net = small()(data)

    @torch.no_grad()
    def normalise(layer: nn.Module, given: object) -> None:
        if layer.training:
            norms = layer.weight.flatten(1).norm(dim=1)
            layer.weight.div_(norms.reshape(-1, *(1,) * (layer.weight.ndim - 1)))

    for layer in net.modules():
        if isinstance(layer, CONV) and layer.weight.any():
            layer.register_forward_pre_hook(normalise)
    return net


ABLATIONS: Mapping[str, Callable[[Data], nn.Module]] = {
    "as it is": small(),
    "branches not zero at first": without_zeros,
    "skips concatenated": concatenated,
    "attention at 8x8": small(attention=(2,)),
    "not bounded": small(bounded=False),
    "frequencies x 4": embedded(4.0),
    "frequencies / 4": embedded(0.25),
    "embedding log_snr": small(embedding="log_snr"),
    "finest width 16": small(channels=(16, 64, 96)),
    "finest width 48": small(channels=(48, 64, 96)),
    "weights of norm 1": preserving,
}

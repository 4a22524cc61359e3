r"""Define the networks that networks.py and flops.py compare, ours and others', of small size.

Each is built for given data, and is a module `net(x, c)` with c of shape `(B,)`, about
$\tfrac14 \log\sigma$ in [-2, 2].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from scoresde import suggest
from scoresde.data import Data
from scoresde.nn import UNet
from unets.ablations import ABLATIONS
from unets.adm import ADM
from unets.peers import EDM, Azula, Diffusers

__all__ = ["ABLATIONS", "ADM", "EDM", "NETWORKS", "Azula", "Diffusers", "Make"]

Make = Callable[[Data], nn.Module]


def default(data: Data) -> nn.Module:
    """Return the network that `train` chooses for these data."""
    return suggest(data).net.build(data.event_shape, data.kinds)


NETWORKS: Mapping[str, Make] = {
    "scoresde": lambda data: UNet.small(data.event_shape[0]),
    "base": lambda data: UNet.base(data.event_shape[0]),
    "default": default,
    "edm": lambda data: EDM(data.event_shape[0], data.event_shape[1]),
    "adm": lambda data: ADM(data.event_shape[0], 16, (1, 2, 3), 2, (1, 2)),
    "azula": lambda data: Azula(data.event_shape[0], (24, 40, 64), 2),
    "diffusers": lambda data: Diffusers(data.event_shape[0], (24, 40, 64), 1),
}

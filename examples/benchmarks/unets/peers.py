"""Adapt networks of other packages, and EDM's DDPM++, to one signature."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from torch import Tensor, nn

from scoresde.nn import Fourier, NCSNpp

FEATURES = 64


def peer(name: str) -> ModuleType:
    """Import a module of another package, or exit with a hint."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        sys.exit(f"this benchmark needs {name} ({error}); pip install 'scoresde[peers,test]'")


class Azula(nn.Module):
    """Wrap azula's U-Net, with an embedding of the noise level like that of our network."""

    outer = ("embed", "ends")

    def __init__(self, channels: int, widths: Sequence[int], blocks: int, spatial: int = 2) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            Fourier(64), nn.Linear(64, FEATURES), nn.SiLU(), nn.Linear(FEATURES, FEATURES)
        )
        self.net = peer("azula.nn.unet").UNet(
            channels, channels, hid_channels=widths, hid_blocks=(blocks,) * len(widths),
            mod_features=FEATURES, norm="group", groups=8, spatial=spatial,
        )  # fmt: skip

    @property
    def ends(self) -> nn.Module:
        """Return the first and last layers, which Adam trains when Muon trains the rest."""
        return nn.ModuleList([self.net.descent[0][0], self.net.ascent[-1][-1]])

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the network's output for one noise level per sample."""
        return self.net(x, self.embed(c))


class Diffusers(nn.Module):
    """Wrap diffusers' UNet2DModel without attention, as in azula's network and ours."""

    outer = ("ends",)

    def __init__(self, channels: int, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.net = peer("diffusers").UNet2DModel(
            in_channels=channels, out_channels=channels, block_out_channels=tuple(widths),
            layers_per_block=blocks, norm_num_groups=8, add_attention=False,
            down_block_types=("DownBlock2D",) * len(widths),
            up_block_types=("UpBlock2D",) * len(widths),
        )  # fmt: skip

    @property
    def ends(self) -> nn.Module:
        """Return the first and last layers and the embedding.

        Adam trains them when Muon trains the rest.
        """
        net = self.net
        return nn.ModuleList([net.conv_in, net.conv_out, net.time_embedding])

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the output; `c` is mapped to times from 0 to 1000, for which it is made."""
        return self.net(x, 250 * (c + 2)).sample


class EDM(nn.Module):
    r"""Wrap DDPM++ as in Karras et al. (2022, appendix F), with few channels.

    It is the DDPM++ of Song et al. (2021) with three resolutions, attention at half the side, and
    the sines and cosines of $c = \tfrac14 \log\sigma$ itself.
    """

    outer = ("ends",)

    def __init__(
        self, channels: int, side: int, width: int = 24, mult: Sequence[int] = (1, 2, 2),
        blocks: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.net = NCSNpp.vp(
            channels=channels, size=side, width=width, mult=mult, blocks=blocks,
            attention=(side // 2,), dropout=0.0,
        )  # fmt: skip

    @property
    def ends(self) -> nn.Module:
        """Return the first and last layers and the embedding.

        Adam trains them when Muon trains the rest.
        """
        layers = self.net.all_modules
        return nn.ModuleList([*layers[:3], layers[-1]])

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the network's output for one noise level per sample."""
        return self.net(x, c)

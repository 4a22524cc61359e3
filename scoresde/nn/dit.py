r"""Define DiT, a transformer over patches of signals, images and volumes.

Peebles & Xie (2022), arXiv:2212.09748. Each patch of $x$, with an encoding of its position, becomes
a token $h$. The tokens pass through blocks of attention and an MLP,

$$ h \leftarrow h + g_1\,\mathrm{attention}((1 + a_1)\,\mathrm{norm}(h) + b_1), \qquad
   h \leftarrow h + g_2\,\mathrm{mlp}((1 + a_2)\,\mathrm{norm}(h) + b_2), $$

where $a, b, g$ are linear in an embedding of the noise level and the conditions. Before training
they are 0 (adaLN-Zero), so that every block starts as the identity map.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from scoresde.checks import check_integer, typed
from scoresde.errors import InvalidValueError

from .blocks import CONV, conv, from_patches, padded, to_patches
from .checks import check_grid
from .conditions import Network, classes_of, gridded, split
from .dropout import Dropout
from .embedding import Embedding

__all__ = ["DiT"]


class DiT(Network):
    r"""Map `x` of shape `(B, C, *spatial)`, of any size, by a transformer `net(x, c, **condition)`.

    The default sizes are for long training. After 40 seconds on one core the held-out loss on 8x8
    digits was .53 with the defaults, .47 with `width=64, depth=4`, and .44 with the U-Net that
    `scoresde.suggest` chooses. On signals these three losses were .38, .33 and .29 (one seed, the
    data sets of `examples/benchmarks/recipes.py --variant tuning`).

    Args:
        in_channels: The number of channels of `x`.
        out_channels: The number of output channels; by default the number of channels of `x`.
        width: The length of a token, a multiple of `heads`.
        depth: The number of blocks.
        heads: The number of attention heads in each block.
        patch: The side of the patches that become tokens. If it does not divide the sizes of `x`,
            zeros are appended to `x`, and the output is cropped to the sizes of `x`.
        spatial: Number of spatial dimensions: 1, 2 or 3.
        embedding: How `c` is embedded: `"fourier"`, `"sinusoidal"` or `"log_snr"`.
        seed: The seed of the random frequencies of `"fourier"`.
        num_classes: The number of classes, or numbers of classes by name, as in `UNet`.
        dropout: The dropout probability in the MLPs.
        condition: Further conditions by name, vectors and fields, as in `UNet`.

    Raises:
        InvalidValueError: `x` has another rank or number of channels than the network, `c` or the
            labels are not `(B,)`, a label is out of range, or the network was built without
            conditions and receives one.
        UnknownNameError: The network was built with other conditions.
        ShapeError: A vector or field has another shape.
        InvalidTypeError: `x`, a vector or a field is not floating point, labels are not integers,
            or, without autocast, `x` has another precision than the weights.

    Examples:
        >>> net = DiT(1, width=16, depth=2, heads=2, num_classes=3)
        >>> x, c = torch.zeros(2, 1, 8, 8), torch.zeros(2)
        >>> net(x, c, label=torch.tensor([0, 2])).shape
        torch.Size([2, 1, 8, 8])
    """

    @typed
    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: int | None = None,
        width: int = 128,
        depth: int = 6,
        heads: int = 4,
        patch: int = 2,
        spatial: int = 2,
        embedding: str = "fourier",
        seed: int = 0,
        num_classes: int | Mapping[str, int] | None = None,
        dropout: float = 0.0,
        condition: Mapping[Any, Any] | None = None,
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        sizes = dict(
            in_channels=in_channels, out_channels=out_channels, width=width, depth=depth,
            heads=heads, patch=patch,
        )  # fmt: skip
        for name, value in sizes.items():
            check_integer(name, value, 1)
        if spatial not in CONV:
            raise InvalidValueError(f"spatial must be 1, 2 or 3, got {spatial}")
        if width % heads:
            raise InvalidValueError(f"width must be a multiple of heads = {heads}, got {width}")
        self._declare(
            condition, **sizes, spatial=spatial, embedding=embedding, seed=seed,
            num_classes=num_classes, dropout=dropout,
        )  # fmt: skip
        vectors, self.fields = split(self._shapes, spatial)
        self.in_channels, self.spatial, self.patch, self.width = in_channels, spatial, patch, width
        self.embedding = Embedding(
            embedding, width, classes=classes_of(num_classes), vectors=vectors, seed=seed
        )
        fold = patch**spatial
        known = 2 * sum(shape[0] for shape in self.fields.values())
        self.stem = conv(fold * in_channels, width, spatial, kernel=1)
        # the sum of two convolutions equals one convolution of the concatenated channels
        self.joined = conv(fold * known, width, spatial, kernel=1) if known else None
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.film = _zero(nn.Linear(width, 2 * width))
        self.head = conv(width, fold * out_channels, spatial, kernel=1, zero=True)

    def forward(self, x: Tensor, c: Tensor, /, **condition: Tensor | None) -> Tensor:
        """Map `x` `(B, C, *spatial)`, `c` `(B,)` and the conditions to `(B, C', *spatial)`."""
        check_grid(x, c, self.in_channels, self.spatial, self.film.weight.dtype)
        self._check_names(condition)
        size, e = x.shape[2:], self.embedding(c, condition)
        h = self.stem(self._patches(x))
        if self.joined is not None:
            h = h + self.joined(self._patches(gridded(self.fields, condition, x)))
        grid = h.shape[2:]
        h = h.flatten(2).transpose(1, 2) + places(grid, self.width).to(h)
        for block in self.blocks:
            h = block(h, e)
        scale, shift = self.film(e)[:, None].chunk(2, dim=2)
        h = modulated(h, scale, shift).transpose(1, 2).reshape(x.shape[0], self.width, *grid)
        y = from_patches(self.head(h), self.patch)
        crop: tuple[Any, ...] = (..., *(slice(n) for n in size))
        return y[crop]

    def _patches(self, x: Tensor) -> Tensor:
        return to_patches(padded(x, self.patch, "zeros"), self.patch)


class Block(nn.Module):
    """Add attention over all tokens, and an MLP of each token."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.film = _zero(nn.Linear(width, 6 * width))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU("tanh"), Dropout(dropout),
            nn.Linear(4 * width, width),
        )  # fmt: skip

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """Map tokens `(B, L, width)` and the embedding `e` `(B, width)` to `(B, L, width)`."""
        a1, b1, g1, a2, b2, g2 = self.film(e)[:, None].chunk(6, dim=2)
        tokens = self.qkv(modulated(h, a1, b1))
        q, k, v = rearrange(tokens, "b l (n h d) -> n b h l d", n=3, h=self.heads)
        y = rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)")
        h = h + g1 * self.out(y)
        out: Tensor = h + g2 * self.mlp(modulated(h, a2, b2))
        return out


def modulated(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Normalise each token, multiply it by 1 + `scale`, and add `shift`."""
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]), 1 + scale)


def places(grid: Sequence[int], width: int) -> Tensor:
    r"""Encode the positions of the L tokens of a grid by sines and cosines, `(L, width)`.

    Each axis has the same number of sines and cosines, with geometric frequencies from 1 down to
    about $10^{-4}$ radians per position (Vaswani et al. 2017, arXiv:1706.03762). The entries that
    are left over are 0.
    """
    count = width // (2 * len(grid))
    frequencies = 1e4 ** -(torch.arange(count) / max(count, 1))
    axes = torch.meshgrid(*(torch.arange(float(n)) for n in grid), indexing="ij")
    phases = [axis.reshape(-1, 1) * frequencies for axis in axes]
    waves = torch.cat([wave for phase in phases for wave in (phase.sin(), phase.cos())], dim=1)
    return F.pad(waves, (0, width - waves.shape[1]))


def _zero(layer: nn.Linear) -> nn.Linear:
    """Set the weights of a layer to zero, and return the layer."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer

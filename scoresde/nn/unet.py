r"""Define a time-conditioned U-Net for signals, images and volumes.

The network is a recursion over resolutions $i$, finest first. Each resolution applies residual
blocks, halves the size of their output, adds the output of all coarser resolutions, and applies
residual blocks again:

$$
\mathrm{net}_i(x)
  = \mathrm{up}_i\big(h + \mathrm{grow}(\mathrm{net}_{i+1}(\mathrm{shrink}(h)))\big),
\qquad h = \mathrm{down}_i(x),
$$

so all coarser resolutions together are a residual branch of the next finer resolution. This is the
U-Net of Ronneberger et al. (2015, arXiv 1505.04597) with a sum in place of the concatenation. With
`patch=2` the first layer is a pixel-unshuffle, so that the finest resolution of an image, which
costs most, has a quarter of the positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor, nn

from scoresde.checks import typed
from scoresde.errors import InvalidValueError

from .blocks import (
    CONV,
    Attention,
    Padding,
    ResidualBlock,
    conv,
    enlarged,
    from_patches,
    norm,
    padded,
    silu,
    to_patches,
)
from .checks import check_grid
from .conditions import Network, classes_of, gridded, split
from .embedding import Embedding

# Widths in the ratio 1 : 2 : 3, as in ADM (Dhariwal & Nichol 2021, arXiv:2105.05233).
_SMALL: dict[str, Any] = {"channels": (32, 64, 96), "bounded": True}
_BASE = _SMALL | {"channels": (64, 128, 192), "attention": (2,)}
_LARGE = _BASE | {"channels": (128, 256, 384), "blocks": 2}


class Level(nn.Module):
    """Apply one resolution of the U-Net, and in it all coarser resolutions (`below`)."""

    def __init__(
        self,
        channels: tuple[int, ...],
        blocks: tuple[int, ...],
        attention: tuple[bool, ...],
        *,
        features: int,
        spatial: int,
        dropout: float,
        padding: Padding,
        bounded: bool,
    ) -> None:
        super().__init__()
        width, *coarser = channels
        self.bounded = bounded

        def run() -> nn.ModuleList:
            return nn.ModuleList(
                ResidualBlock(width, features, spatial, dropout=dropout, padding=padding)
                for _ in range(blocks[0])
            )

        self.down = run()
        self.attention = Attention(width, spatial) if attention[0] else nn.Identity()
        self.below: Level | None = None
        if coarser:
            self.shrink = conv(width, coarser[0], spatial, stride=2, padding=padding)
            self.below = Level(
                channels[1:],
                blocks[1:],
                attention[1:],
                features=features,
                spatial=spatial,
                dropout=dropout,
                padding=padding,
                bounded=bounded,
            )
            self.grow = conv(coarser[0], width, spatial, kernel=1)
        self.up = run()

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Map `x` `(B, C, *)` and the embedding `e` to `(B, C, *)`."""
        for block in self.down:
            x = block(x, e)
        x = self.attention(x)
        if self.below is not None:
            y = self.below(self.shrink(x), e)
            if self.bounded:
                y = F.rms_norm(y, y.shape[1:], eps=1.0)
            x = x + enlarged(self.grow(y), x.shape[2:])
        for block in self.up:
            x = block(x, e)
        return x


class UNet(Network):
    r"""Map `x` of shape `(B, C, *spatial)`, of any size, by a U-Net `net(x, c, **condition)`.

    Args:
        in_channels: The number of channels of `x`.
        out_channels: The number of output channels; by default the number of channels of `x`.
        channels: The number of channels at each resolution, finest first. Each resolution has half
            the size of the previous resolution along every axis; half of an odd size is rounded up,
            and the output still has the shape of the input. Coarse resolutions are cheap, so add
            resolutions down to a size of about 4 before you add blocks.
        blocks: The number of residual blocks of each resolution on the way down, and on the way up;
            a single number applies to all resolutions.
        spatial: The number of spatial dimensions: 1, 2 or 3.
        patch: The side of the patches that the first layer turns into channels; 1 for none. Sizes
            that it does not divide are padded and cropped.
        attention: The indices of the resolutions with self-attention; 0 is the finest.
        embedding: How `c` is embedded: `"fourier"`, `"sinusoidal"` or `"log_snr"`.
        features: Length of the embedding.
        seed: Seed of the random frequencies of `"fourier"`.
        num_classes: The number of classes of the condition `label`, or a mapping from names to
            numbers of classes; None for no labels. The output for the label -1, or without a label,
            is unconditional.
        dropout: The dropout probability in the residual blocks.
        padding: `"zeros"`, or `"circular"` for periodic data. With `"circular"`, let m be
            `patch * 2 ** (len(channels) - 1)`. If m divides the size, a cyclic shift of `x` and its
            fields by a multiple of m shifts the output in the same way.
        bounded: Divide the result y of the coarser resolutions by sqrt(1 + mean(y^2)) before adding
            it. Without this, y may grow by orders of magnitude at a high learning rate, and
            dominate the finer features.
        condition: A mapping from names to shapes of further conditions. A number k declares a field
            of k channels on the grid of `x`, `(k, *sizes)` a field of these sizes, and `(n,)` a
            vector. Fields are resampled to the grid of `x` and concatenated to its channels; values
            of a coarser field are repeated, and values of a finer field are averaged over cells.
            Vectors and classes enter the embedding. A missing entry is NaN; a missing condition is
            left out of the call.

    Raises:
        InvalidValueError: `x` has another rank or number of channels than the network, `c` or the
            labels are not `(B,)`, a label is out of range, or the network was built without
            conditions and receives one.
        UnknownNameError: The network was built with other conditions.
        ShapeError: A vector or field has another shape.
        InvalidTypeError: `x`, a vector or a field is not floating point, labels are not integers,
            or, without autocast, `x` has another precision than the weights.

    Examples:
        >>> net = UNet(1, channels=(4, 8), condition={"forcing": 3, "coarse": (1, 4, 4), "y": (8,)})
        >>> x, c, forcing = torch.zeros(2, 1, 16, 16), torch.zeros(2), torch.zeros(2, 3, 16, 16)
        >>> net(x, c, forcing=forcing, y=torch.zeros(2, 8)).shape  # coarse is left out
        torch.Size([2, 1, 16, 16])
    """

    @typed
    def __init__(
        self,
        in_channels: int,
        *,
        out_channels: int | None = None,
        channels: Sequence[int] = (64, 96, 128),
        blocks: int | Sequence[int] = 1,
        spatial: int = 2,
        patch: int = 1,
        attention: Sequence[int] = (),
        embedding: str = "fourier",
        features: int = 128,
        seed: int = 0,
        num_classes: int | Mapping[str, int] | None = None,
        dropout: float = 0.0,
        padding: Padding = "zeros",
        bounded: bool = False,
        condition: Mapping[Any, Any] | None = None,
    ) -> None:
        super().__init__()
        channels, attention = tuple(channels), tuple(attention)
        out_channels = in_channels if out_channels is None else out_channels
        blocks = tuple(blocks) if isinstance(blocks, Sequence) else (blocks,) * len(channels)
        if spatial not in CONV:
            raise InvalidValueError(f"spatial must be 1, 2 or 3, got {spatial}")
        if padding not in ("zeros", "circular"):
            raise InvalidValueError(f"padding must be 'zeros' or 'circular', got {padding!r}")
        sizes = dict(
            in_channels=in_channels, out_channels=out_channels, patch=patch, features=features
        )
        if min(sizes.values()) < 1:
            raise InvalidValueError(f"{', '.join(sizes)} must be at least 1, got {sizes}")
        if not channels or min(channels) < 2:
            raise InvalidValueError(
                f"channels must be one width, 2 or more, per resolution, got {channels}"
            )
        if len(blocks) != len(channels) or min(blocks) < 1:
            raise InvalidValueError(
                f"blocks must be one positive number per resolution ({len(channels)}), got {blocks}"
            )
        if not set(attention) <= set(range(len(channels))):
            raise InvalidValueError(
                f"attention must list resolutions from 0 to {len(channels) - 1}, got {attention}"
            )
        self._declare(
            condition,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=list(channels),
            blocks=list(blocks),
            spatial=spatial,
            patch=patch,
            attention=list(attention),
            embedding=embedding,
            features=features,
            seed=seed,
            num_classes=num_classes,
            dropout=dropout,
            padding=padding,
            **({"bounded": True} if bounded else {}),  # older files do not have this key
        )
        vectors, self.fields = split(self._shapes, spatial)
        self.in_channels, self.spatial = in_channels, spatial
        self.patch, self.padding = patch, padding
        fold = patch**spatial
        self.embedding = Embedding(
            embedding, features, classes=classes_of(num_classes), vectors=vectors, seed=seed
        )
        self.stem = conv(fold * in_channels, channels[0], spatial, padding=padding)
        self.body = Level(
            channels,
            blocks,
            tuple(map(set(attention).__contains__, range(len(channels)))),
            features=features,
            spatial=spatial,
            dropout=dropout,
            padding=padding,
            bounded=bounded,
        )
        self.head = nn.Sequential(
            norm(channels[0]),
            nn.SiLU(),
            conv(channels[0], fold * out_channels, spatial, padding=padding, zero=True),
        )
        known = 2 * sum(shape[0] for shape in self.fields.values())
        # the sum of two convolutions equals one convolution of the concatenated channels
        self.joined = conv(fold * known, channels[0], spatial, padding=padding) if known else None

    @classmethod
    def small(cls, in_channels: int, **changes: Any) -> Self:
        """Return a U-Net of widths 32, 64, 96, about 0.7 million parameters in two dimensions.

        Args:
            in_channels: Number of channels of `x`.
            changes: Further arguments of `UNet`, which override the arguments of the preset.

        Examples:
            >>> UNet.small(3, spatial=1, num_classes=10).config["channels"]
            [32, 64, 96]
        """
        return cls(in_channels, **(_SMALL | changes))

    @classmethod
    def base(cls, in_channels: int, **changes: Any) -> Self:
        """Return a U-Net of widths 64, 128, 192, with attention at the coarsest resolution.

        It has about 3 million parameters in two dimensions. The arguments are those of `small`.
        """
        return cls(in_channels, **(_BASE | changes))

    @classmethod
    def large(cls, in_channels: int, **changes: Any) -> Self:
        """Return a U-Net of widths 128, 256, 384, with two blocks and attention at the coarsest.

        It has about 20 million parameters in two dimensions. The arguments are those of `small`.
        """
        return cls(in_channels, **(_LARGE | changes))

    def forward(self, x: Tensor, c: Tensor, /, **condition: Tensor | None) -> Tensor:
        """Map `x` `(B, C, *spatial)`, `c` `(B,)` and the conditions to `(B, C', *spatial)`."""
        check_grid(x, c, self.in_channels, self.spatial, next(self.parameters()).dtype)
        self._check_names(condition)
        size = x.shape[2:]
        h = self.stem(to_patches(padded(x, self.patch, self.padding), self.patch))
        if self.joined is not None:
            known = padded(gridded(self.fields, condition, x), self.patch, self.padding)
            h = h + self.joined(to_patches(known, self.patch))
        h = self.body(h, self.embedding(c, condition))
        last, _, mix = self.head
        y = from_patches(mix(silu(last(h), kept=h)), self.patch)
        crop: tuple[Any, ...] = (..., *(slice(n) for n in size))
        return y[crop]

r"""Bits per dimension: what a density says about the whole numbers that the data are made of.

Uniform dequantisation (Uria et al. 2013, arXiv:1306.0186; Theis et al. 2016, arXiv:1511.01844)
spreads a level $y \in \{0, \dots, L - 1\}$ over its cell, $x = o + h\,(y + u)$ with
$u \sim U[0, 1)$, and by Jensen's inequality

$$ \log_2 P(y) \ge E_u\big[\log_2 p(x)\big] + D \log_2 h. $$

With $k$ draws of $u$ the logarithm of their mean is a tighter bound (Burda et al. 2016,
arXiv:1509.00519).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from scoresde.checks import (
    check_batch,
    check_fields,
    check_finite,
    check_integer,
    check_range,
    door,
    named,
)
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError
from scoresde.likelihood.result import LogProb
from scoresde.units import Transform

__all__ = ["TRANSFORMS", "Dequantization", "bits_per_dim", "importance_bound"]

# Numbers that are looked at for whether they are levels; of many more some are equal by chance.
_LOOK = 4096


@dataclass(frozen=True)
class Dequantization:
    r"""Describe how levels became numbers: $x = o + h\,(y + u)$.

    Args:
        levels: $L$, at least 2.
        cell: $h$, the width of a level in the units of `x`, positive.
        origin: $o$, where level 0 begins.

    Raises:
        InvalidValueError: A parameter has an impossible value.
    """

    levels: int
    cell: float
    origin: float

    def __post_init__(self) -> None:
        check_fields(self, finite=True)
        check_integer("levels", self.levels, 2)
        check_range("cell", self.cell, "(0, inf)")

    @classmethod
    def centred(cls, levels: int, low: float = -1.0, high: float = 1.0) -> Dequantization:
        """For a model of data in which level 0 was `low` and the last one `high`, without noise.

        The cell of a level has its value in the middle: bytes by `x / 127.5 - 1` are
        `centred(256)`, and 7 bits become log2(127.5) = 6.994.
        """
        cell = (high - low) / max(levels - 1, 1)
        return cls(levels, cell, low - cell / 2)

    @classmethod
    def of(cls, transform: Transform) -> Dequantization:
        """For a model of data under a declared transform, such as a model's own `transform`.

        Raises:
            InvalidValueError: The data were no levels.
        """
        if transform.levels is None:
            raise InvalidValueError(
                f"under {transform} the data are continuous; bits count levels, as bytes have them"
            )
        return cls.centred(transform.levels)

    def level(self, x: Tensor) -> Tensor:
        """Return the levels in the middle of whose cells `x` lies, as float64, of any shape.

        Raises:
            InvalidValueError: A number lies elsewhere, and was no level.
        """
        level = (x.double() - self.origin) / self.cell - 0.5
        if not ((level - level.round()).abs() < 0.1).all():
            raise InvalidValueError(
                f"the data are not made of {self.levels} levels; their numbers lie between them"
            )
        return level.round()

    def check_spread(self, x: Tensor) -> None:
        """Raise where numbers are surely not spread over the cells of their levels.

        Levels that are still levels stand at one place of their cells, or come again and again. The
        density at such points may be as large as one likes, so that it bounds no probability. Some
        4,096 of the numbers are looked at; of fewer than 4 nothing is known.

        Raises:
            InvalidValueError: They are not, or lie outside of all cells.
        """
        flat = x.detach().double().flatten()
        place = ((flat - self.origin) / self.cell)[:: max(1, len(flat) // _LOOK)]
        if len(place) and not ((place > -1e-3) & (place < self.levels + 1e-3)).all():
            raise InvalidValueError(
                f"the data go from {float(flat.min()):.6g} to {float(flat.max()):.6g}, but the "
                f"cells of their {self.levels} levels from {self.origin:.6g} to "
                f"{self.origin + self.cell * self.levels:.6g}; declare the transform they have"
            )
        # 1 where all stand at one place of their cells, about 1 / sqrt(n) where they are spread
        together = torch.polar(torch.ones_like(place), 2 * math.pi * place).mean().abs()
        again = len(place) >= 8 and 2 * len(torch.unique(place)) <= len(place)
        if (len(place) >= 4 and together > 0.999) or again:
            raise InvalidValueError(
                "the data are levels, not spread over their cells, where a density bounds no "
                "probability; take the density at draws of the Dequantization, in float32 or more"
            )

    def __call__(self, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return a draw of `x`, float32, from levels `(B, *)`.

        Args:
            y: Whole numbers from 0 to `levels - 1`, of any dtype.
            generator: Where u comes from; torch's global generator without it.

        Raises:
            InvalidValueError: A number is no level.
        """
        level = y.double()  # 256 is 0 among bytes
        if not ((level >= 0) & (level < self.levels) & (level == level.round())).all():
            raise InvalidValueError(
                f"levels are whole numbers from 0 to {self.levels - 1}, "
                f"got numbers from {y.min()} to {y.max()}"
            )
        u = torch.rand(y.shape, generator=generator, dtype=torch.float64).to(y.device)
        return (self.origin + self.cell * (level + u)).float()


TRANSFORMS: Mapping[str, Dequantization] = MappingProxyType(
    {"uint8": Dequantization(256, 1 / 128, -1.0)}
)
"""Transforms with a name: `"uint8"` are bytes as $x = (y + u) / 128 - 1$."""


@door
def bits_per_dim(
    log_prob: LogProb, x: Tensor, *, data_transform: Dequantization | str | None = None
) -> Tensor:
    r"""Return $-\log_2 P(y) / D$, `(B,)`, of data that were levels: smaller is better.

    Args:
        log_prob: The density of the dequantised data.
        x: Those data, `(B, *)`.
        data_transform: How they were made of levels, or a name of `TRANSFORMS`. There is no
            default: the transform is worth bits ($-\log_2 h$, 7 for `"uint8"`), and the numbers
            themselves do not tell it.

    Raises:
        InvalidTypeError: No transform is declared.
        UnknownNameError: Its name is unknown.
        InvalidValueError: The samples have no dimension, or are levels that were not dequantised.
        ShapeError: There are more or fewer densities than samples.
        NonFiniteError: A density or a sample has a NaN or an infinity.

    Examples:
        >>> import scoresde
        >>> sde = scoresde.VPSDE()
        >>> score = scoresde.targets.Gaussian([0.0], std=0.5).at(sde)
        >>> x = TRANSFORMS["uint8"](torch.full((1, 1), 128), generator=torch.Generator())
        >>> found = scoresde.log_prob(score, sde, x)
        >>> print(f"{bits_per_dim(found, x, data_transform='uint8').item():.2f}")
        7.33
    """
    if data_transform is None:
        raise InvalidTypeError(
            "bits per dimension count the levels of the data, and float data do not tell which "
            "they had; declare data_transform='uint8' for (y + u) / 128 - 1, "
            "or a Dequantization(levels, cell, origin)"
        )
    data_transform = named("data transform", data_transform, TRANSFORMS)
    check_batch("x", x)
    check_finite("the density", log_prob.value)
    if len(x) != len(log_prob.value):
        raise ShapeError(f"{len(log_prob.value)} densities for {len(x)} samples x")
    size = x.shape[1:].numel()
    if size == 0:
        raise InvalidValueError("samples without a dimension have no bits per dimension")
    data_transform.check_spread(x)
    return -log_prob.value / (size * math.log(2)) - math.log2(data_transform.cell)


@door
def importance_bound(values: Tensor) -> Tensor:
    r"""$\log \frac1k \sum_i e^{v_i}$ over k dequantisations of the same data, `(k, B)` to `(B,)`.

    Args:
        values: The log-densities of each draw.

    Raises:
        ShapeError: There is no draw.
        NonFiniteError: A value is NaN or infinite.
    """
    if values.ndim != 2 or len(values) == 0:
        raise ShapeError(f"values of k >= 1 draws have shape (k, B), got {tuple(values.shape)}")
    check_finite("values", values)
    return values.logsumexp(0) - math.log(len(values))

r"""Convert log-densities to bits per dimension of quantised data.

Uniform dequantisation (Uria et al. 2013, arXiv:1306.0186; Theis et al. 2016, arXiv:1511.01844)
spreads a whole number $y \in \{0, \dots, L - 1\}$ over a cell of width h: $x = o + h\,(y + u)$ with
$u \sim U[0, 1)$. By Jensen's inequality

$$ \log_2 P(y) \ge E_u\big[\log_2 p(x)\big] + D \log_2 h $$

in D dimensions. The logarithm of the mean density over $k$ draws of $u$ gives a tighter bound
(Burda et al. 2016, arXiv:1509.00519).
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

# How many numbers are tested for being quantised; among many more some would be equal by chance.
_TESTED = 4096


@dataclass(frozen=True)
class Dequantization:
    r"""Map whole numbers y to continuous data: $x = o + h\,(y + u)$.

    Args:
        levels: $L$, the number of values of y, at least 2.
        cell: $h$, the width of a cell in the units of `x`, positive.
        origin: $o$, the lower end of the cell of y = 0.

    Raises:
        InvalidValueError: A parameter is out of range.
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
        """Return the map for data in which `low` stands for y = 0 and `high` for the last y.

        These values are in the middle of their cells. Bytes y mapped by `y / 127.5 - 1` are
        `centred(256)`; their transform adds log2(127.5) = 6.994 bits instead of 7.
        """
        cell = (high - low) / max(levels - 1, 1)
        return cls(levels, cell, low - cell / 2)

    @classmethod
    def of(cls, transform: Transform) -> Dequantization:
        """Return the map for data under a transform, such as the `transform` of a model.

        Raises:
            InvalidValueError: The transform belongs to continuous data.
        """
        if transform.levels is None:
            raise InvalidValueError(
                f"under {transform} the data are continuous; bits are defined for quantised data "
                "such as bytes"
            )
        return cls.centred(transform.levels)

    def level(self, x: Tensor) -> Tensor:
        """Return the whole numbers y whose cells have their middle at `x`, float64, any shape.

        Raises:
            InvalidValueError: A number does not lie in the middle of a cell.
        """
        y = (x.double() - self.origin) / self.cell - 0.5
        if not ((y - y.round()).abs() < 0.1).all():
            raise InvalidValueError(
                f"the data are not quantised to {self.levels} levels: numbers lie between them; "
                "declare the transform that the data have"
            )
        return y.round()

    def check_spread(self, x: Tensor) -> None:
        """Raise if numbers are clearly not spread over their cells.

        Data that are still quantised lie at the same position of their cells, or repeat a few
        values. A density at such points has no upper bound, so that it bounds no probability. About
        4,096 of the numbers are tested; fewer than 4 numbers are not tested.

        Raises:
            InvalidValueError: The numbers are not spread, or lie outside all cells.
        """
        flat = x.detach().double().flatten()
        place = ((flat - self.origin) / self.cell)[:: max(1, len(flat) // _TESTED)]
        if len(place) and not ((place > -1e-3) & (place < self.levels + 1e-3)).all():
            raise InvalidValueError(
                f"the data go from {float(flat.min()):.6g} to {float(flat.max()):.6g}, but the "
                f"cells of their {self.levels} levels from {self.origin:.6g} to "
                f"{self.origin + self.cell * self.levels:.6g}; declare the transform they have"
            )
        # 1 if all lie at one position of their cells, about 1 / sqrt(n) if they are spread
        aligned = torch.polar(torch.ones_like(place), 2 * math.pi * place).mean().abs()
        repeated = len(place) >= 8 and 2 * len(torch.unique(place)) <= len(place)
        if (len(place) >= 4 and aligned > 0.999) or repeated:
            raise InvalidValueError(
                "the data are quantised, not spread over their cells, where a density bounds no "
                "probability; take the density at draws of the Dequantization, in float32 or more"
            )

    def __call__(self, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return a draw of `x`, float32, for whole numbers `(B, *)`.

        Args:
            y: Whole numbers from 0 to `levels - 1`, of any dtype.
            generator: The source of u; by default torch's global generator.

        Raises:
            InvalidValueError: A number is not whole, or out of this range.
        """
        wide = y.double()  # in uint8, `levels` = 256 would be 0
        if not ((wide >= 0) & (wide < self.levels) & (wide == wide.round())).all():
            raise InvalidValueError(
                f"levels are whole numbers from 0 to {self.levels - 1}, "
                f"got numbers from {y.min()} to {y.max()}"
            )
        u = torch.rand(y.shape, generator=generator, dtype=torch.float64).to(y.device)
        return (self.origin + self.cell * (wide + u)).float()


TRANSFORMS: Mapping[str, Dequantization] = MappingProxyType(
    {"uint8": Dequantization(256, 1 / 128, -1.0)}
)
"""Transforms by name: `"uint8"` maps bytes to $x = (y + u) / 128 - 1$."""


@door
def bits_per_dim(
    log_prob: LogProb, x: Tensor, *, data_transform: Dequantization | str | None = None
) -> Tensor:
    r"""Return $-\log_2 P(y) / D$, `(B,)`, for dequantised data: smaller is better.

    Args:
        log_prob: The density of the dequantised data.
        x: The dequantised data, `(B, *)`.
        data_transform: The map from y to x, or a name of `TRANSFORMS`. There is no default: the
            transform adds $-\log_2 h$ bits (7 for `"uint8"`), and cannot be read from x.

    Raises:
        InvalidTypeError: No transform is declared.
        UnknownNameError: The name of the transform is unknown.
        InvalidValueError: The samples have no dimension, or were not dequantised.
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
            "bits per dimension depend on the map from whole numbers to x, which cannot be read "
            "from float data; declare data_transform='uint8' for (y + u) / 128 - 1, "
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
    r"""Return $\log \frac1k \sum_i e^{v_i}$ over k dequantisations of the same data, `(B,)`.

    Args:
        values: The log-densities of each draw, `(k, B)`.

    Raises:
        ShapeError: There is no draw.
        NonFiniteError: A value is NaN or infinite.
    """
    if values.ndim != 2 or len(values) == 0:
        raise ShapeError(f"values of k >= 1 draws have shape (k, B), got {tuple(values.shape)}")
    check_finite("values", values)
    return values.logsumexp(0) - math.log(len(values))

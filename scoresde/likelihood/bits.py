r"""Convert log-densities to bits per dimension of quantised data.

Uniform dequantisation (Uria et al. 2013, arXiv:1306.0186; Theis et al. 2016, arXiv:1511.01844)
turns an integer $y \in \{0, \dots, L - 1\}$ into a random point of a cell of width h:
$x = o + h\,(y + u)$ with $u \sim U[0, 1)$. By Jensen's inequality

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

# The test for quantised data reads at least this number of entries, if there are as many, and fewer
# than twice the number. Among many more entries, some would be equal by chance.
_TESTED = 4096


@dataclass(frozen=True)
class Dequantization:
    r"""Map integers y to continuous data $x = o + h\,(y + u)$ with uniform u.

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
        """Return the map for data with the value `low` for y = 0 and `high` for y = L - 1.

        The values are the middles of their cells. `centred(256)` is the map for bytes y that become
        `y / 127.5 - 1`; it adds log2(127.5) = 6.994 bits per dimension instead of 7.
        """
        cell = (high - low) / max(levels - 1, 1)
        return cls(levels, cell, low - cell / 2)

    @classmethod
    def of(cls, transform: Transform) -> Dequantization:
        """Return the map that belongs to a transform, such as the `transform` of a model.

        Raises:
            InvalidValueError: The transform belongs to continuous data.
        """
        if transform.levels is None:
            raise InvalidValueError(
                f"the transform {transform} is for continuous data; bits are defined for quantised "
                "data such as bytes"
            )
        return cls.centred(transform.levels)

    def level(self, x: Tensor) -> Tensor:
        """Return the integers y whose cells have the middles `x`, float64 of the shape of `x`.

        Raises:
            InvalidValueError: A number does not lie in the middle of a cell.
        """
        y = (x.double() - self.origin) / self.cell - 0.5
        if not ((y - y.round()).abs() < 0.1).all():
            raise InvalidValueError(
                f"the data are not quantised to {self.levels} levels, since some numbers lie "
                "between levels; give the transform of the data"
            )
        return y.round()

    def check_spread(self, x: Tensor) -> None:
        """Raise if the data are clearly not dequantised.

        Data that are still quantised lie at the same position in every cell, or repeat a few
        values. A density at such points can be arbitrarily large, so it gives no bound on a
        probability. At most about 8,000 entries are tested. The positions are compared from 4
        entries on, the values from 8 on.

        Raises:
            InvalidValueError: The data are still quantised, or lie outside all cells.
        """
        flat = x.detach().double().flatten()
        place = ((flat - self.origin) / self.cell)[:: max(1, len(flat) // _TESTED)]
        if len(place) and not ((place > -1e-3) & (place < self.levels + 1e-3)).all():
            raise InvalidValueError(
                f"the data go from {float(flat.min()):.6g} to {float(flat.max()):.6g}, but the "
                f"cells of their {self.levels} levels from {self.origin:.6g} to "
                f"{self.origin + self.cell * self.levels:.6g}; give the transform of the data"
            )
        # 1 if all entries lie at one position in their cells, about 1 / sqrt(n) at random positions
        aligned = torch.polar(torch.ones_like(place), 2 * math.pi * place).mean().abs()
        repeated = len(place) >= 8 and 2 * len(torch.unique(place)) <= len(place)
        if (len(place) >= 4 and aligned > 0.999) or repeated:
            raise InvalidValueError(
                "the data are still quantised, and a density there gives no bound on a "
                "probability; compute the density at draws of the Dequantization, in float32 or "
                "float64"
            )

    def __call__(self, y: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Return a random `x`, float32, for integers `(B, *)`.

        Args:
            y: Integers from 0 to `levels - 1`, of any dtype.
            generator: The source of u; by default torch's global generator.

        Raises:
            InvalidValueError: A number is not an integer, or is out of this range.
        """
        wide = y.double()  # in uint8, `levels` = 256 would be 0
        if not ((wide >= 0) & (wide < self.levels) & (wide == wide.round())).all():
            raise InvalidValueError(
                f"levels are integers from 0 to {self.levels - 1}, got numbers from {y.min()} to "
                f"{y.max()}"
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
    r"""Return $-\log_2 P(y) / D$, `(B,)`, for dequantised data; smaller is better.

    Args:
        log_prob: The log-densities of the dequantised data.
        x: The dequantised data, `(B, *)`.
        data_transform: The map from y to x, or a name of `TRANSFORMS`. There is no default, since
            the map adds $-\log_2 h$ bits (7 for `"uint8"`) and cannot be inferred from x.

    Raises:
        InvalidTypeError: No transform is given.
        UnknownNameError: The name of the transform is unknown.
        InvalidValueError: The samples have no entries, were not dequantised, or lie outside the
            cells of the transform.
        ShapeError: The numbers of densities and samples differ.
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
            "bits per dimension depend on the map from integers to x, which cannot be inferred "
            "from x; give data_transform='uint8' for (y + u) / 128 - 1, or a "
            "Dequantization(levels, cell, origin)"
        )
    data_transform = named("data transform", data_transform, TRANSFORMS)
    check_batch("x", x)
    check_finite("the density", log_prob.value)
    if len(x) != len(log_prob.value):
        raise ShapeError(f"{len(log_prob.value)} densities for {len(x)} samples x")
    size = x.shape[1:].numel()
    if size == 0:
        raise InvalidValueError("samples without entries have no bits per dimension")
    data_transform.check_spread(x)
    return -log_prob.value / (size * math.log(2)) - math.log2(data_transform.cell)


@door
def importance_bound(values: Tensor) -> Tensor:
    r"""Return $\log \frac1k \sum_i e^{v_i}$ over k dequantisations of the same data, `(B,)`.

    Args:
        values: The log-densities at each of the k draws, `(k, B)`.

    Raises:
        ShapeError: There is no draw.
        NonFiniteError: A value is NaN or infinite.
    """
    if values.ndim != 2 or len(values) == 0:
        raise ShapeError(f"values of k >= 1 draws have shape (k, B), got {tuple(values.shape)}")
    check_finite("values", values)
    return values.logsumexp(0) - math.log(len(values))

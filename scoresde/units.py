r"""Declared transforms: the affine maps between the user's numbers and those that a model learns.

A transform is stored with the model that was trained on its output, so that samples can come back
in the units the data had.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Protocol

import torch
from torch import Tensor

from scoresde.checks import check_fields, check_finite, check_integer
from scoresde.errors import CheckpointError, InvalidTypeError, InvalidValueError, ShapeError

__all__ = [
    "BYTES",
    "DEEP",
    "Identity",
    "Range",
    "Standardize",
    "Transform",
    "describe",
    "in_words",
    "rebuild",
    "to_uint8",
]


_FAR = 2**14  # scales from 0 where float32 has 1024 numbers within a scale


class Transform(Protocol):
    """An invertible affine map of raw numbers `(B, *event)`; the same for every sample."""

    @property
    def levels(self) -> int | None:
        """Return the number of equally spaced raw values, None where they are continuous."""
        ...

    def forward(self, raw: Tensor) -> Tensor:
        """Raw numbers of any dtype as the model has them: float64 from float64, else float32."""
        ...

    def inverse(self, x: Tensor) -> Tensor:
        """Back to the raw units, as floats."""
        ...

    def restore(self, x: Tensor) -> Tensor:
        """Back to what the user had: `inverse`, but for levels, which are rounded and clipped."""
        ...

    def log_det(self, event_shape: Sequence[int]) -> float:
        r"""Return the logarithm of $|\det \partial x / \partial r|$ of an event.

        A log-density of raw numbers is that of the model's numbers plus this.
        """
        ...


@dataclass(frozen=True)
class Identity:
    """The numbers as they are."""

    @property
    def levels(self) -> None:
        """The numbers are taken for continuous ones."""
        return None

    def forward(self, raw: Tensor) -> Tensor:
        """Return the same numbers, as floats."""
        return raw if raw.dtype == torch.float64 else raw.float()

    def inverse(self, x: Tensor) -> Tensor:
        """Return the same numbers."""
        return x

    restore = inverse

    def log_det(self, event_shape: Sequence[int]) -> float:
        """Nothing."""
        return 0.0


@dataclass(frozen=True)
class Range:
    r"""The affine map of the raw numbers `[low, high]` onto [-1, 1].

    $$ x = (r - \text{low}) / h - 1, \qquad h = (\text{high} - \text{low}) / 2 $$

    Args:
        low: Becomes -1.
        high: Becomes 1; 255 for bytes, so that $x = r / 127.5 - 1$.
        levels: How many equally spaced values, both ends among them, the raw numbers take, at
            least 2; None for continuous ones. Bytes have 256.

    Raises:
        InvalidValueError: The range is empty or not finite, or there are fewer than two levels.
        InvalidTypeError: An end is no number.
    """

    low: float
    high: float
    levels: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not -math.inf < self.low < self.high < math.inf:
            raise InvalidValueError(
                f"need low < high, both finite, got low = {self.low}, high = {self.high}"
            )
        if self.levels is not None:
            check_integer("levels", self.levels, 2)

    def forward(self, raw: Tensor) -> Tensor:
        """Map raw numbers, any shape and dtype, to floats in [-1, 1]."""
        wide = raw if raw.dtype == torch.float64 else raw.float()
        return (wide - self.low) / ((self.high - self.low) / 2) - 1

    def inverse(self, x: Tensor) -> Tensor:
        """Back to the raw units, as floats."""
        return (x + 1) * ((self.high - self.low) / 2) + self.low

    def log_det(self, event_shape: Sequence[int]) -> float:
        """Return the logarithm of 2 / (high - low) for each number."""
        return -math.prod(event_shape) * math.log((self.high - self.low) / 2)

    def restore(self, x: Tensor) -> Tensor:
        """Return the nearest levels, as bytes where they are 0, 1, ... up to 255; else `inverse`.

        Raises:
            NonFiniteError: Levels are asked of a NaN or an infinity.
        """
        if self.levels is None:
            return self.inverse(x)
        check_finite("x", x)  # a NaN would become a level
        top = self.levels - 1
        wide = x if x.dtype == torch.float64 else x.float()
        level = ((wide + 1) * (top / 2)).round().clamp(0, top)
        if self.low == 0 and self.high == top <= 255:
            return level.to(torch.uint8)
        return level * ((self.high - self.low) / top) + self.low


@dataclass(frozen=True)
class Standardize:
    r"""The affine map $x = (r - \text{shift}) / \text{scale}$, per entry of the first event axis.

    That is per dimension for vectors, and per channel for images and other fields.

    Args:
        shift: One number, or one for each entry of the first axis.
        scale: As many, all positive.

    Raises:
        InvalidValueError: A shift is not finite, or a scale not positive.
        InvalidTypeError: One is no number.
        ShapeError: There are more of the one than of the other.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("shift", "scale"):
            value = getattr(self, name)
            listed = tuple(value) if isinstance(value, Sequence) else (value,)
            if not all(isinstance(number, Real) for number in listed):
                raise InvalidTypeError(f"{name} must hold numbers, got {value!r}")
            object.__setattr__(self, name, tuple(map(float, listed)))
        if len(self.shift) != len(self.scale) or not self.shift:
            raise ShapeError(
                f"need as many scales as shifts, got {len(self.shift)} shifts and "
                f"{len(self.scale)} scales"
            )
        if not all(map(math.isfinite, self.shift)) or not all(0 < s < math.inf for s in self.scale):
            raise InvalidValueError(
                f"shifts must be finite and scales positive, got {self.shift} and {self.scale}"
            )

    @classmethod
    def of(cls, mean: Tensor, var: Tensor) -> Standardize:
        """Return the transform after which data of this mean and variance `(*event)` have 0 and 1.

        An entry of which all numbers are equal is only shifted.
        """
        rows = mean.double().reshape(len(mean), -1)
        shift = rows.mean(1)
        spread = var.double().reshape(len(mean), -1).mean(1)
        total = (spread + (rows - shift[:, None]).square().mean(1)).sqrt()
        constant = (spread == 0) & (rows.amin(1) == rows.amax(1))
        scale = total.masked_fill(constant, 1.0)
        return cls(tuple(shift.tolist()), tuple(scale.tolist()))

    @property
    def levels(self) -> None:
        """The numbers are taken for continuous ones."""
        return None

    def forward(self, raw: Tensor) -> Tensor:
        """Map raw numbers `(B, *event)` to floats; the difference is taken in float64."""
        shift, scale = self._spread(raw)
        x = (raw.double() - shift) / scale
        return x if raw.dtype == torch.float64 else x.float()

    def inverse(self, x: Tensor) -> Tensor:
        """Back to the raw units, in the dtype of `x`.

        In float64 where float32 would round off a thousandth of a scale, as with times in seconds
        since 1970.
        """
        shift, scale = self._spread(x)
        far = max(abs(a) / b for a, b in zip(self.shift, self.scale, strict=True))
        raw = x * scale + shift
        return raw if far > _FAR else raw.to(x.dtype)

    restore = inverse

    def log_det(self, event_shape: Sequence[int]) -> float:
        """Return the negative logarithms of the scales, each as often as it is used."""
        each = math.prod(event_shape) / len(self.scale)
        return -each * sum(map(math.log, self.scale))

    def _spread(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n = len(self.shift)
        if x.ndim < 2 or n not in (1, x.shape[1]):
            raise ShapeError(
                f"this transform has {n} shifts, one an entry of the first event axis; "
                f"got shape {tuple(x.shape)}"
            )
        numbers = torch.tensor([self.shift, self.scale], dtype=torch.float64, device=x.device)
        shift, scale = numbers.reshape(2, n, *(1 for _ in x.shape[2:]))
        return shift, scale


BYTES = Range(0, 255, levels=256)
"""Bytes as $x = r / 127.5 - 1$."""

DEEP = Range(0, 65535, levels=65536)
"""Whole numbers of 16 bits, likewise."""

_KINDS: Mapping[str, type[Identity | Range | Standardize]] = {
    kind.__name__: kind for kind in (Identity, Range, Standardize)
}


def describe(transform: Transform) -> dict[str, Any]:
    """A transform as JSON has it.

    Raises:
        InvalidTypeError: It is none of ours, so that nobody could rebuild it.
    """
    name = type(transform).__name__
    if _KINDS.get(name) is not type(transform):
        raise InvalidTypeError(
            f"a transform is one of {', '.join(_KINDS)}, which a file can describe; got {name}"
        )
    return {"type": name, **asdict(transform)}


def in_words(transform: Transform | Mapping[str, Any] | None) -> str:
    """Return what a transform makes of the user's numbers, in words.

    Args:
        transform: The transform, what `describe` returned of it, or None for the identity; of what
            anybody else stored in its place it says that.

    Examples:
        >>> in_words(BYTES)
        'whole numbers from 0 to 255, learnt as numbers from -1 to 1'
        >>> in_words(None)
        'the numbers as they are'
    """
    name = type(transform).__name__
    if name in _KINDS:
        transform = {"type": name, **vars(transform)}
    fields = transform if isinstance(transform, Mapping) else {"type": transform or "Identity"}
    kind = fields.get("type")
    if kind == "Identity":
        return "the numbers as they are"
    if kind == "Range":
        low, high, levels = (fields.get(name) for name in ("low", "high", "levels"))
        whole = low == 0 and isinstance(levels, int) and high == levels - 1
        some = f"{levels} levels" if levels else "numbers"
        what = "whole numbers" if whole else some
        return f"{what} from {low} to {high}, learnt as numbers from -1 to 1"
    if kind == "Standardize":
        return "numbers that are shifted and scaled to mean 0 and variance 1"
    return f"numbers that are changed by {kind}"


def rebuild(config: Mapping[str, Any] | None) -> Transform:
    """Return the transform that `describe` described; the identity where nothing was.

    Raises:
        CheckpointError: It describes none of ours.
    """
    if config is None:
        return Identity()
    try:
        fields = {name: value for name, value in config.items() if name != "type"}
        made: Transform = _KINDS[config["type"]](**fields)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{config!r} describes no transform of scoresde") from error
    return made


def to_uint8(x: Tensor) -> Tensor:
    """Return images in [-1, 1] as bytes, rounded, and clipped where they leave the range.

    Raises:
        NonFiniteError: A number is NaN or infinite.
    """
    return BYTES.restore(x)

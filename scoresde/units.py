r"""Define transforms, affine maps from the user's units to model units.

A transform is saved with the model that was trained on its output, so that samples can be converted
to the units of the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from scoresde.checks import check_batch, check_fields, check_integer
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


# if |shift| / scale is larger, rounding to float32 causes errors of about 1/1000 of the scale
_FAR = 2**14


@runtime_checkable
class Transform(Protocol):
    """Define an invertible affine map of raw numbers `(B, *event)`, the same for every sample."""

    @property
    def levels(self) -> int | None:
        """Return the number of equally spaced raw values, or None if they are continuous."""
        ...

    def forward(self, raw: Tensor) -> Tensor:
        """Map raw numbers to model units, in float64 if they are float64, else in float32."""
        ...

    def inverse(self, x: Tensor) -> Tensor:
        """Map numbers in model units to raw numbers, as floats."""
        ...

    def restore(self, x: Tensor) -> Tensor:
        """Map model units to raw numbers, rounded and clipped if raw numbers are quantised."""
        ...

    def log_det(self, event_shape: Sequence[int]) -> float:
        r"""Return $\log |\det \partial x / \partial r|$ for one event.

        The log-density of raw numbers is the log-density in model units plus this number.
        """
        ...


@dataclass(frozen=True)
class Identity:
    """Use the raw numbers as model units."""

    @property
    def levels(self) -> None:
        """Return None, since the numbers are treated as continuous."""
        return None

    def forward(self, raw: Tensor) -> Tensor:
        """Return the same numbers, in float64 if they are float64, else in float32."""
        return raw if raw.dtype == torch.float64 else raw.float()

    def inverse(self, x: Tensor) -> Tensor:
        """Return the same numbers."""
        return x

    restore = inverse

    def log_det(self, event_shape: Sequence[int]) -> float:
        """Return 0."""
        return 0.0


@dataclass(frozen=True)
class Range:
    r"""Map raw numbers in `[low, high]` to [-1, 1].

    $$ x = (r - \text{low}) / h - 1, \qquad h = (\text{high} - \text{low}) / 2 $$

    Args:
        low: The raw number that becomes -1.
        high: The raw number that becomes 1; 255 for bytes, so that $x = r / 127.5 - 1$.
        levels: The number of equally spaced raw values, with both ends, at least 2; 256 for bytes.
            None if raw numbers are continuous.

    Raises:
        InvalidValueError: The range is empty or not finite, or there are fewer than two levels.
        InvalidTypeError: An end is not a number.
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
        """Map raw numbers of any shape and dtype to floats in [-1, 1]."""
        wide = raw if raw.dtype == torch.float64 else raw.float()
        return (wide - self.low) / ((self.high - self.low) / 2) - 1

    def inverse(self, x: Tensor) -> Tensor:
        """Map numbers in model units to raw numbers, as floats."""
        return (x + 1) * ((self.high - self.low) / 2) + self.low

    def log_det(self, event_shape: Sequence[int]) -> float:
        """Return log(2 / (high - low)) times the number of entries of an event."""
        return -math.prod(event_shape) * math.log((self.high - self.low) / 2)

    def restore(self, x: Tensor) -> Tensor:
        """Return the nearest raw values, as bytes if `low` is 0 and `high` is `levels` - 1 <= 255.

        Without `levels` the result is that of `inverse`.

        Raises:
            NonFiniteError: A number to be quantised is NaN or infinite.
            InvalidTypeError: `x` is not a dense tensor of floating-point numbers.
        """
        if self.levels is None:
            return self.inverse(x)
        # refuse NaN, which rounding would turn into a number; and refuse integers and booleans,
        # which are raw values already
        check_batch("x", x[None] if isinstance(x, Tensor) else x)
        top = self.levels - 1
        wide = x if x.dtype == torch.float64 else x.float()
        whole = ((wide + 1) * (top / 2)).round().clamp(0, top)
        if self.low == 0 and self.high == top <= 255:
            return whole.to(torch.uint8)
        return whole * ((self.high - self.low) / top) + self.low


@dataclass(frozen=True)
class Standardize:
    r"""Map raw numbers to $x = (r - \text{shift}) / \text{scale}$, per dimension or channel.

    Each entry of the first event axis, such as a dimension of a vector or a channel of an image,
    has a shift and a scale; a single shift and scale serve all entries.

    Args:
        shift: One number, or one for each entry of the first axis.
        scale: Positive numbers, as many as shifts.

    Raises:
        InvalidValueError: A shift is not finite, or a scale is not positive and finite.
        InvalidTypeError: A shift or scale is not a number.
        ShapeError: The numbers of shifts and scales differ.
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
                f"need equal numbers of shifts and scales, got {len(self.shift)} shifts and "
                f"{len(self.scale)} scales"
            )
        if not all(map(math.isfinite, self.shift)) or not all(0 < s < math.inf for s in self.scale):
            raise InvalidValueError(
                f"shifts must be finite and scales positive, got {self.shift} and {self.scale}"
            )

    @classmethod
    def of(cls, mean: Tensor, var: Tensor) -> Standardize:
        """Return the transform that standardises data with this mean and variance.

        Mean and variance have the shape `(*event)`. A constant entry is only shifted.
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
        """Return None, since the numbers are treated as continuous."""
        return None

    def forward(self, raw: Tensor) -> Tensor:
        """Map raw numbers `(B, *event)` to floats; the difference is taken in float64."""
        shift, scale = self._spread(raw)
        x = (raw.double() - shift) / scale
        return x if raw.dtype == torch.float64 else x.float()

    def inverse(self, x: Tensor) -> Tensor:
        """Map numbers in model units to raw numbers, in the dtype of `x`.

        The result is float64 if rounding to float32 would cause an error of a thousandth of the
        scale or more, as for Unix timestamps.
        """
        shift, scale = self._spread(x)
        far = max(abs(a) / b for a, b in zip(self.shift, self.scale, strict=True))
        raw = x * scale + shift
        return raw if far > _FAR else raw.to(x.dtype)

    restore = inverse

    def log_det(self, event_shape: Sequence[int]) -> float:
        """Return minus the sum of the logarithms of the scales over the event."""
        each = math.prod(event_shape) / len(self.scale)
        return -each * sum(map(math.log, self.scale))

    def _spread(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n = len(self.shift)
        if x.ndim < 2 or n not in (1, x.shape[1]):
            raise ShapeError(
                f"this transform has {n} shifts, one for each entry of the first event axis; "
                f"got shape {tuple(x.shape)}"
            )
        numbers = torch.tensor([self.shift, self.scale], dtype=torch.float64, device=x.device)
        shift, scale = numbers.reshape(2, n, *(1 for _ in x.shape[2:]))
        return shift, scale


BYTES = Range(0, 255, levels=256)
"""The transform of bytes, $x = r / 127.5 - 1$."""

DEEP = Range(0, 65535, levels=65536)
"""The transform of unsigned 16-bit integers to [-1, 1]."""

_KINDS: Mapping[str, type[Identity | Range | Standardize]] = {
    kind.__name__: kind for kind in (Identity, Range, Standardize)
}


def describe(transform: Transform) -> dict[str, Any]:
    """Describe a transform by JSON values.

    Raises:
        InvalidTypeError: The transform is not defined in this module, so `rebuild` could not make
            it again.
    """
    name = type(transform).__name__
    if _KINDS.get(name) is not type(transform):
        raise InvalidTypeError(
            f"a transform must be one of {', '.join(_KINDS)}, which a file can describe; got {name}"
        )
    return {"type": name, **asdict(transform)}


def in_words(transform: Transform | Mapping[str, Any] | None) -> str:
    """Return a description of a transform in plain English.

    Args:
        transform: The transform, the result of `describe`, or None for the identity. For an unknown
            transform only the type is named.

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
    """Return the transform that `describe` described; None gives the identity.

    Raises:
        CheckpointError: The description does not belong to a transform of this module.
    """
    if config is None:
        return Identity()
    try:
        fields = {name: value for name, value in config.items() if name != "type"}
        made: Transform = _KINDS[config["type"]](**fields)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{config!r} is not the description of a transform of scoresde"
        ) from error
    return made


def to_uint8(x: Tensor) -> Tensor:
    """Convert images in [-1, 1] to bytes, rounded and clipped.

    Raises:
        NonFiniteError: A number is NaN or infinite.
        InvalidTypeError: `x` is not a dense tensor of floating-point numbers.
    """
    return BYTES.restore(x)

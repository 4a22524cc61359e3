"""Configure a training run with plain values that JSON and a command line can express.

A `TrainConfig` has basic fields, such as the number of steps, and four parts with further fields.
`Optimiser` sets the optimiser, `Averages` the averages of the weights, `Compute` how a step is
computed, and `Keeping` checkpoints, log and early stopping. All fields of all parts have
different names. So each is an option of the command line, and `TrainConfig.changed` takes any of
them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from scoresde.checks import check_fields, check_name, quoted
from scoresde.data.augment import AUGMENTATIONS
from scoresde.errors import InvalidTypeError, InvalidValueError, UnknownNameError
from scoresde.training.parts import (
    Averages,
    Compute,
    Keeping,
    Optimiser,
    check_least,
)

__all__ = ["TrainConfig"]

# Fields that may change when a run is resumed. The weights do not depend on them, except by
# rounding, by the masks of dropout, or where the run would otherwise have ended.
_FREE = {
    "on_nan", "save_every", "keep", "log_every", "patience", "snapshot_every", "snapshot_half",
    "accumulate", "workers", "fused", "compile", "channels_last", "recompute", "shard",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Hold the configuration of a training run.

    Attributes:
        steps: The number of steps, at least 1. It may be increased when a run is resumed.
        batch_size: The number of samples for one update, at least 1, over all processes together.
        seed: An integer from 0 to 2**64 - 1. All randomness of step k is a function of (seed, k).
        condition_dropout: The probability, in [0, 1], with which the condition of a sample is
            hidden, so that the network also learns the unconditional score for classifier-free
            guidance. If it is a dictionary, it has a probability for each name of a condition, and
            names that are left out have 0. Conditions of different names are hidden independently.
        augment: The augmentations, in order: "hflip" mirrors half of the images, "shift" moves
            images by up to an eighth of their size.
        optimiser: The optimiser and its learning rate.
        averages: The averages of the weights.
        compute: The precision, memory and parallelism of a step.
        keeping: Checkpoints, log and early stopping.

    Raises:
        InvalidTypeError, InvalidValueError, UnknownNameError: The value of a field, which is named,
            is not allowed.

    Examples:
        >>> config = TrainConfig(steps=500, optimiser=Optimiser(lr=2e-3))
        >>> config.changed(batch_size=64, ema=0.99).averages.ema
        0.99
    """

    steps: int = 10_000
    batch_size: int = 128
    seed: int = 0
    condition_dropout: float | dict[str, float] = 0.1
    augment: tuple[str, ...] = ()
    optimiser: Optimiser = field(default=Optimiser())
    averages: Averages = field(default=Averages())
    compute: Compute = field(default=Compute())
    keeping: Keeping = field(default=Keeping())

    def __new__(cls, *_: Any, **values: Any) -> Self:
        """Raise an error for an unknown field; name the part that has the field, if one does."""
        for name in values:
            if (part := _OWNER.get(name)) is not None:
                kind = _PARTS[part].__name__
                raise InvalidTypeError(
                    f"{name} belongs to a part of the configuration: write TrainConfig({part}="
                    f"{kind}({name}=...)), or TrainConfig().changed({name}=...)"
                )
            _check_field("field of TrainConfig", name, [f.name for f in fields(cls)])
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_least(self, steps=1, batch_size=1, seed=0)
        check_fields(self)
        given = self.condition_dropout
        shares = given if isinstance(given, dict) else {"": given}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                of = f" of {name}" if name else ""
                raise InvalidValueError(f"condition_dropout{of} must lie in [0, 1], got {share!r}")
        shares = {name: float(share) for name, share in shares.items()}  # for JSON
        parsed = dict(sorted(shares.items())) if isinstance(given, dict) else shares[""]
        object.__setattr__(self, "condition_dropout", parsed)
        for name in self.augment:
            check_name("augmentation", name, AUGMENTATIONS)
        for name, kind in _PARTS.items():
            if not isinstance(getattr(self, name), kind):
                raise InvalidTypeError(
                    f"{name} must be a {kind.__name__}, got {getattr(self, name)!r}"
                )

    def changed(self, **values: Any) -> Self:
        """Return a copy with new values for some fields of this class or its parts.

        Args:
            values: The new values by field name.

        Raises:
            UnknownNameError: There is no such field.
            InvalidTypeError, InvalidValueError: A value is not allowed.

        Examples:
            >>> TrainConfig().changed(steps=20, lr=0.01, save_every=5).optimiser.lr
            0.01
        """
        names = {f.name for f in fields(self)}
        for name in values:
            _check_field("field", name, (*names, *_OWNER))
        for part, kind in _PARTS.items():
            if not isinstance(values.get(part, getattr(self, part)), kind):
                raise InvalidTypeError(
                    f"{part} must be a {kind.__name__}, got {quoted(values[part])}"
                )
        parts = {
            part: replace(
                values.get(part, getattr(self, part)),
                **{name: value for name, value in values.items() if _OWNER.get(name) == part},
            )
            for part in {_OWNER[name] for name in values if name in _OWNER}
        }
        return replace(self, **{k: v for k, v in values.items() if k in names}, **parts)

    def share_hidden(self, name: str) -> float:
        """Return the probability with which the condition of this name is hidden."""
        share = self.condition_dropout
        return share.get(name, 0.0) if isinstance(share, dict) else share

    @property
    def skips(self) -> bool:
        """Return True if steps whose gradient is not finite are skipped."""
        return self.keeping.on_nan == "skip" or self.compute.fp16

    def lr_at(self, step: int) -> float:
        """Return the learning rate of update number `step`, counted from 0."""
        return self.optimiser.lr_at(step, self.steps)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, with a dictionary for each part."""
        found: dict[str, Any] = _listed(asdict(self))
        return found

    def flat(self) -> dict[str, Any]:
        """Return `as_json` in one flat dictionary, including the fields of the parts."""
        return _flat(self.as_json())

    def check_continues(self, stored: Mapping[str, Any], source: str) -> None:
        """Raise an error unless this configuration can resume a run that was saved with `stored`.

        Args:
            stored: The result of `as_json` when the run was saved.
            source: The file that holds `stored`, for the message.

        Raises:
            InvalidValueError: A field on which the weights depend differs.
        """
        present = self.flat()
        # a field that is missing in the file was added to scoresde later; until then every run
        # behaved as with the default value
        before = {**TrainConfig().flat(), **_flat(stored)}
        names = [k for k in present if k not in _FREE and present[k] != before[k]]
        if "steps" in names and present["steps"] > before["steps"]:
            names.remove("steps")
        if names == ["steps"]:
            raise InvalidValueError(
                f"{source} is from a run of {before['steps']:,} steps, which determine its "
                f"learning rate; steps={present['steps']:,} is smaller, but steps may only be "
                f"increased; take steps={before['steps']}, or another folder"
            )
        if names:
            changes = ", ".join(f"{k} was {before[k]!r} and is {present[k]!r}" for k in names)
            raise InvalidValueError(
                f"{source} belongs to another configuration: {changes}; take the old values, or "
                "another folder"
            )


_PARTS = {"optimiser": Optimiser, "averages": Averages, "compute": Compute, "keeping": Keeping}
# For each name of a field, the name of the part that has this field.
_OWNER = {f.name: part for part, kind in _PARTS.items() for f in fields(kind)}


def _check_field(kind: str, name: str, names: Collection[str]) -> None:
    """Raise UnknownNameError unless there is a field with this name."""
    if name == "epochs":
        raise UnknownNameError(
            "give the length of a training as steps=, not in epochs; N / batch_size steps are one "
            "pass through N samples"
        )
    check_name(kind, name, names)


def _listed(value: Any) -> Any:
    """Return the value, with tuples in it replaced by lists."""
    if isinstance(value, dict):
        return {key: _listed(part) for key, part in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _flat(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a stored configuration and its parts in one flat dictionary."""
    flat: dict[str, Any] = {}
    for name, value in stored.items():
        flat |= value if isinstance(value, Mapping) and name in _PARTS else {name: value}
    return flat

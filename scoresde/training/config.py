"""What a training run is, as plain numbers that JSON and a command line can hold.

A `TrainConfig` has the numbers that every run has, and four parts: how the weights move
(`Optimiser`), which averages follow them (`Averages`), how a step is computed (`Compute`), and what
is kept and shown (`Keeping`). The names of all fields differ, so that the command line has one
option for each, and `TrainConfig.changed` takes any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from scoresde.checks import check_fields, check_name, quoted
from scoresde.data.augment import AUGMENTATIONS
from scoresde.errors import InvalidTypeError, InvalidValueError
from scoresde.training.parts import (
    Averages,
    Compute,
    Keeping,
    Optimiser,
    check_least,
)

__all__ = ["TrainConfig"]

# Beside how a step is computed, these change what is kept and shown of a run, but not its weights.
_FREE = {
    "on_nan", "save_every", "keep", "log_every", "patience", "snapshot_every", "snapshot_half",
    "accumulate", "workers", "fused", "compile", "channels_last", "recompute", "shard",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Hold the numbers of a training run.

    Attributes:
        steps: Updates in all, at least 1. May grow when a run is taken up again.
        batch_size: Samples of one update, at least 1; among several processes, of all of them
            together.
        seed: An integer from 0 to 2**64 - 1: all randomness of step k is a function of (seed, k).
        condition_dropout: The share of conditions that is hidden, in [0, 1], so that the score
            without them is learnt too, as classifier-free guidance asks; or shares by name, where
            the names left out are never hidden. Each name is hidden independently of the others.
        augment: Augmentations, one after the other: "hflip" mirrors half of the images, "shift"
            moves them by up to an eighth.
        optimiser: How the weights move.
        averages: Which averages follow them.
        compute: How a step is computed.
        keeping: What is kept and shown.

    Raises:
        InvalidTypeError, InvalidValueError, UnknownNameError: A field is impossible; names it.

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
        """Refuse names that are none of its fields, and say where those of its parts belong."""
        for name in values:
            if (part := _OWNER.get(name)) is not None:
                kind = _PARTS[part].__name__
                raise InvalidTypeError(
                    f"{name} belongs to a part of the configuration: write TrainConfig({part}="
                    f"{kind}({name}=...)), or TrainConfig().changed({name}=...)"
                )
            check_name("field of TrainConfig", name, [f.name for f in fields(cls)])
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
        shares = {name: float(share) for name, share in shares.items()}  # JSON has no others
        own = dict(sorted(shares.items())) if isinstance(given, dict) else shares[""]
        object.__setattr__(self, "condition_dropout", own)
        for name in self.augment:
            check_name("augmentation", name, AUGMENTATIONS)
        for name, kind in _PARTS.items():
            if not isinstance(getattr(self, name), kind):
                raise InvalidTypeError(
                    f"{name} must be a {kind.__name__}, got {getattr(self, name)!r}"
                )

    def changed(self, **values: Any) -> Self:
        """Return this configuration with other values of some fields, those of its parts too.

        Args:
            values: By the names of the fields, as the command line has them.

        Raises:
            UnknownNameError: There is no such field.
            InvalidTypeError, InvalidValueError: A value is impossible.

        Examples:
            >>> TrainConfig().changed(steps=20, lr=0.01, save_every=5).optimiser.lr
            0.01
        """
        own = {f.name for f in fields(self)}
        for name in values:
            check_name("field", name, (*own, *_OWNER))
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
        return replace(self, **{k: v for k, v in values.items() if k in own}, **parts)

    def share_hidden(self, name: str) -> float:
        """Return the share of a condition that is hidden."""
        share = self.condition_dropout
        return share.get(name, 0.0) if isinstance(share, dict) else share

    def lr_at(self, step: int) -> float:
        """Return the learning rate of update number `step`, counted from 0."""
        return self.optimiser.lr_at(step, self.steps)

    def as_json(self) -> dict[str, Any]:
        """Return the fields, a dictionary for each part, with lists in place of tuples."""
        found: dict[str, Any] = _listed(asdict(self))
        return found

    def flat(self) -> dict[str, Any]:
        """Return `as_json` with the fields of the parts beside the others, as options are."""
        return _flat(self.as_json())

    def check_continues(self, stored: Mapping[str, Any], source: str) -> None:
        """Refuse to go on with a run that was another one.

        Args:
            stored: What `as_json` gave when the run was saved.
            source: Where that was read, for the message.

        Raises:
            InvalidValueError: A field differs; names it with both values.
        """
        own = self.flat()
        # a field that the run did not know yet had what is now its default
        before = {**TrainConfig().flat(), **_flat(stored)}
        names = [k for k in own if k not in _FREE and own[k] != before[k]]
        if "steps" in names and own["steps"] > before["steps"]:
            names.remove("steps")
        if names == ["steps"]:
            raise InvalidValueError(
                f"{source} is of a run of {before['steps']:,} steps, towards whose end its "
                f"learning rate falls, and {own['steps']:,} are fewer; steps may only grow, so "
                f"take steps={before['steps']}, or another folder"
            )
        if names:
            changes = ", ".join(f"{k} was {before[k]!r} and is {own[k]!r}" for k in names)
            raise InvalidValueError(
                f"{source} belongs to another configuration: {changes}; take the old values, or "
                "another folder"
            )


_PARTS = {"optimiser": Optimiser, "averages": Averages, "compute": Compute, "keeping": Keeping}
# The part that has a field, by the name of the field.
_OWNER = {f.name: part for part, kind in _PARTS.items() for f in fields(kind)}


def _listed(value: Any) -> Any:
    """Return tuples within a value as lists."""
    if isinstance(value, dict):
        return {key: _listed(part) for key, part in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _flat(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration and of its parts by their own names."""
    flat: dict[str, Any] = {}
    for name, value in stored.items():
        flat |= value if isinstance(value, Mapping) and name in _PARTS else {name: value}
    return flat

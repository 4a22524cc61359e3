"""What a training run is, as plain numbers that JSON and a command line can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scoresde.checks import check_fields, check_name
from scoresde.data.augment import AUGMENTATIONS
from scoresde.ema import gamma_of
from scoresde.errors import InvalidTypeError, InvalidValueError

__all__ = ["TrainConfig"]

# These change what is kept and shown of a run, or how it is computed, but not what: its weights
# stay the same but for rounding.
_FREE = {
    "on_nan", "save_every", "keep", "log_every", "accumulate", "fused", "compile",
    "channels_last", "recompute", "shard", "snapshot_every", "snapshot_half", "workers",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    r"""The numbers of a training run.

    The learning rate of step $k$ of $K$ is

    $$ \text{lr} \cdot \min(1, (k + 1) / \text{warmup}) \cdot \tfrac12 (1 + \cos \pi k / K) $$

    or, with `decay="constant"`, the same without the cosine. The cosine (Loshchilov & Hutter 2017,
    arXiv:1608.03983) is worth more the shorter the run; only the constant one can be prolonged
    into exactly the run that would have been longer from the start.

    Attributes:
        steps: Updates in all, at least 1. May grow when a run is taken up again.
        batch_size: Samples of one update, at least 1; among several processes, of all of them
            together.
        accumulate: Parts, at least 1, in which a process handles its share of a batch one after
            the other, to save memory.
        lr: The largest learning rate of Adam, above 0 and finite.
        betas: Adam's two decay rates, each in [0, 1).
        warmup: Steps over which the learning rate rises, 0 for none.
        decay: How the learning rate falls: "cosine" (to zero) or "constant" (not at all).
        clip: The largest norm of the gradient, above 0 and finite; longer ones are scaled down to
            it.
        ema: The decay of the averaged weights, which are the result; in [0, 1). Further decays are
            averages beside it, kept in a folder `ema-<decay>` each.
        ema_sigma: Spreads of power-function averages, in [1e-4, 0.288], of which snapshots are
            kept: with (0.05, 0.1) any average can be made after the training.
        snapshot_every: Steps between these snapshots, at least 1; the last step has one, too.
        snapshot_half: Whether they are kept in float16, at half the size.
        seed: An integer from 0 to 2**64 - 1: all randomness of step k is a function of (seed, k).
        weight: The weight of the noise levels: "edm", "sigma2" or "g2".
        times: The law of the training times: "sde" (the SDE's own), "uniform", "lognormal" or
            "importance".
        log_sigma: Mean and std of log(sigma / alpha) under "lognormal".
        label_dropout: The share of labels that is hidden, in [0, 1], for classifier-free guidance.
        augment: Augmentations, one after the other: "hflip" mirrors half of the images, "shift"
            moves them by up to an eighth.
        workers: Processes that make batches ahead of their time, 0 for none. Worth it where samples
            are decoded or augmented.
        bf16: Whether the network runs in bfloat16 (weights and optimiser stay in float32).
        on_nan: What becomes of a step whose gradient is not finite: "raise" ends the run with a
            report, "skip" leaves the step out, up to 10 in a row.
        fused: Whether Adam moves all weights in one pass, or else by torch's default, for devices
            that have no fused Adam.
        compile: Whether the network runs through `torch.compile`; the first steps then take
            minutes.
        channels_last: Whether images are stored with their channels last, as many convolutions
            want them.
        recompute: Whether the blocks of the network forget their activations and compute them
            again on the way back, which saves memory and costs about a third more time.
        shard: Whether each of several processes keeps a share of the weights, gradients and
            averages only, for networks that one cannot hold; every step then sends more.
        save_every: Steps between checkpoints, at least 1.
        keep: How many checkpoints are kept, at least 2: a damaged one needs a predecessor.
        log_every: Steps between looks at the loss, at least 1.

    Raises:
        InvalidTypeError: The averages are no numbers; the message names the field.
        InvalidValueError: A number is impossible; the message names the field.
        UnknownNameError: A name is unknown.
    """

    steps: int = 10_000
    batch_size: int = 128
    accumulate: int = 1
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 100
    decay: str = "cosine"
    clip: float = 1.0
    ema: float | tuple[float, ...] = 0.999
    ema_sigma: tuple[float, ...] = ()
    snapshot_every: int = 1000
    snapshot_half: bool = False
    seed: int = 0
    weight: str = "edm"
    times: str = "sde"
    log_sigma: tuple[float, float] = (0.0, 1.2)
    label_dropout: float = 0.1
    augment: tuple[str, ...] = ()
    workers: int = 0
    bf16: bool = False
    on_nan: str = "raise"
    fused: bool = True
    compile: bool = False
    channels_last: bool = False
    recompute: bool = False
    shard: bool = False
    save_every: int = 1000
    keep: int = 3
    log_every: int = 50

    def __post_init__(self) -> None:
        least = dict(
            steps=1, batch_size=1, accumulate=1, warmup=0, seed=0, save_every=1, keep=2,
            log_every=1, snapshot_every=1, workers=0,
        )  # fmt: skip
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InvalidValueError(f"{name} must be an integer >= {low}, got {value!r}")
            if value >= 2**64:
                raise InvalidValueError(f"{name} must be below 2**64, got {value!r}")
        check_fields(self)
        for name in ("lr", "clip", "label_dropout"):  # numpy's numbers among them are no JSON
            object.__setattr__(self, name, float(getattr(self, name)))
        for name, hint in (("lr", ""), ("clip", "; 1e30 scales nothing down")):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidValueError(
                    f"{name} must be positive and finite, got {getattr(self, name)!r}{hint}"
                )
        for name, values in (
            *(("ema", self.decays), ("ema_sigma", self.ema_sigma)),
            *(("betas", self.betas), ("log_sigma", self.log_sigma)),
        ):
            if not isinstance(values, tuple) or not all(isinstance(v, int | float) for v in values):
                raise InvalidTypeError(f"{name} must be a tuple of numbers, got {values!r}")
        for name, pair in (("betas", self.betas), ("log_sigma", self.log_sigma)):
            if len(pair) != 2:
                raise InvalidValueError(f"{name} must be two numbers, got {pair!r}")
        for name, values in (("ema", self.decays), ("betas", self.betas)):
            for value in values:
                if not 0 <= value < 1:
                    raise InvalidValueError(f"{name} must lie in [0, 1), got {value!r}")
        for sigma in self.ema_sigma:
            gamma_of(sigma)
        for name, values in (("ema", self.decays), ("ema_sigma", self.ema_sigma)):
            if len(set(values)) < len(values):
                raise InvalidValueError(f"{name} holds a number twice: {values}")
        if not self.decays:
            raise InvalidValueError("ema must hold at least one decay, 0.999 for example")
        if len(self.decays) == 1:  # one decay is one run, however it is written
            object.__setattr__(self, "ema", self.decays[0])
        if self.shard and self.channels_last:
            raise InvalidValueError("shard and channels_last exclude each other; leave one out")
        if not 0 <= self.label_dropout <= 1:
            raise InvalidValueError(f"label_dropout must lie in [0, 1], got {self.label_dropout!r}")
        for kind, name, choices in (
            *(("augmentation", name, AUGMENTATIONS) for name in self.augment),
            ("weight", self.weight, ("edm", "sigma2", "g2")),
            ("law of times", self.times, ("sde", "uniform", "lognormal", "importance")),
            ("decay", self.decay, ("cosine", "constant")),
            ("on_nan", self.on_nan, ("raise", "skip")),
        ):
            check_name(kind, name, choices)

    @property
    def decays(self) -> tuple[float, ...]:
        """All decays of `ema`, that of the result first."""
        return self.ema if isinstance(self.ema, tuple) else (self.ema,)

    def lr_at(self, step: int) -> float:
        """The learning rate of update number `step`, counted from 0."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = (
            1.0 if self.decay == "constant" else 0.5 * (1 + math.cos(math.pi * step / self.steps))
        )
        return self.lr * rise * fall

    def as_json(self) -> dict[str, Any]:
        """The fields, with lists in place of tuples as JSON has them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def check_continues(self, stored: Mapping[str, Any], source: str) -> None:
        """Refuse to go on with a run that was another one.

        Args:
            stored: What `as_json` gave when the run was saved.
            source: Where that was read, for the message.

        Raises:
            InvalidValueError: A field differs; names it with both values.
        """
        own = self.as_json()
        # a field that the run did not know yet had what is now its default
        stored = {**TrainConfig().as_json(), **stored}
        names = [k for k in own if k not in _FREE and own[k] != stored[k]]
        if "steps" in names and own["steps"] > stored["steps"]:
            names.remove("steps")
        if names:
            changes = ", ".join(f"{k} was {stored[k]!r} and is {own[k]!r}" for k in names)
            raise InvalidValueError(
                f"{source} belongs to another configuration: {changes}; take the old values, or "
                "another folder"
            )

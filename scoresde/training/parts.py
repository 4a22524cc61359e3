"""The parts of a training configuration, each with its own fields and checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scoresde.checks import check_fields, check_integer, check_name, quoted
from scoresde.ema import gamma_of
from scoresde.errors import InvalidTypeError, InvalidValueError

__all__ = ["Averages", "Compute", "Keeping", "Optimiser", "check_least", "check_numbers"]


def check_least(owner: object, **least: int) -> None:
    """Raise InvalidValueError unless fields are integers of at least these, and below 2**64."""
    for name, low in least.items():
        value = check_integer(name, getattr(owner, name), low)
        if value >= 2**64:
            raise InvalidValueError(f"{name} must be below 2**64, got {value!r}")
        object.__setattr__(owner, name, value)  # numpy's integers are none of JSON's


def check_numbers(owner: Any, *names: str) -> None:
    """Check the fields of simple types, and make Python's own numbers of these, as JSON has."""
    check_fields(owner)
    for name in names:
        object.__setattr__(owner, name, float(getattr(owner, name)))


def _check_tuple(name: str, values: object) -> None:
    if not isinstance(values, tuple) or not all(isinstance(v, int | float) for v in values):
        raise InvalidTypeError(f"{name} must be a tuple of numbers, got {values!r}")


def _check_below_one(name: str, values: tuple[float, ...]) -> None:
    for value in values:
        if not 0 <= value < 1:
            raise InvalidValueError(f"{name} must lie in [0, 1), got {value!r}")


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    r"""Say how the weights move.

    The learning rate of step $k$ of $K$ is

    $$ \text{lr} \cdot \min(1, (k + 1) / \text{warmup}) \cdot \tfrac12 (1 + \cos \pi k / K) $$

    or, with `decay="constant"`, the same without the cosine. The cosine (Loshchilov & Hutter 2017,
    arXiv:1608.03983) is worth more the shorter the run; only the constant one can be prolonged
    into exactly the run that would have been longer from the start.

    Attributes:
        rule: "adam", or "muon": Adam with orthogonal steps for the matrices inside the network,
            whose entries move by .2 of the rate in the mean
            (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).
        lr: The largest learning rate, above 0 and finite.
        betas: Adam's two decay rates, each in [0, 1).
        warmup: Steps over which the learning rate rises, 0 for none.
        decay: How the learning rate falls: "cosine" (to zero) or "constant" (not at all).
        weight_decay: A matrix inside the network loses this share of itself, at least 0, times the
            learning rate, in every step (Loshchilov & Hutter 2019, arXiv:1711.05101).
        clip: The largest norm of the gradient, above 0 and finite; longer ones are scaled down to
            it.

    Raises:
        InvalidTypeError, InvalidValueError, UnknownNameError: A field is impossible; names it.

    Examples:
        >>> Optimiser(lr=2e-3).lr_at(0, 100)
        2e-05
    """

    rule: str = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 100
    decay: str = "cosine"
    weight_decay: float = 0.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        check_least(self, warmup=0)
        check_numbers(self, "lr", "clip", "weight_decay")
        check_name("rule", self.rule, ("adam", "muon"))
        for name, hint in (("lr", ""), ("clip", "; 1e30 scales nothing down")):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidValueError(
                    f"{name} must be positive and finite, got {getattr(self, name)!r}{hint}"
                )
        if not 0 <= self.weight_decay < math.inf:
            raise InvalidValueError(
                f"weight_decay must be at least 0 and finite, got {self.weight_decay!r}"
            )
        _check_below_one("betas", self.betas)
        check_name("decay", self.decay, ("cosine", "constant"))

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of update number `step` of `steps`, counted from 0."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        fall = 1.0 if self.decay == "constant" else 0.5 * (1 + math.cos(math.pi * step / steps))
        return self.lr * rise * fall


@dataclass(frozen=True, kw_only=True)
class Averages:
    """Say which averages follow the weights; the first is the result of the run.

    Attributes:
        ema: The decay of the averaged weights, which are the result; in [0, 1). Further decays are
            averages beside it, kept in a folder `ema-<decay>` each.
        ema_sigma: Spreads of power-function averages, in [1e-4, 0.288], of which snapshots are
            kept: with (0.05, 0.1) any average can be made after the training.
        snapshot_every: Steps between these snapshots, at least 1; the last step has one, too.
        snapshot_half: Whether they are kept in float16, at half the size.

    Raises:
        InvalidTypeError, InvalidValueError: A field is impossible; names it.

    Examples:
        >>> Averages(ema=(0.999, 0.99)).decays
        (0.999, 0.99)
    """

    ema: float | tuple[float, ...] = 0.999
    ema_sigma: tuple[float, ...] = ()
    snapshot_every: int = 1000
    snapshot_half: bool = False

    def __post_init__(self) -> None:
        check_least(self, snapshot_every=1)
        if not isinstance(self.snapshot_half, bool):
            raise InvalidTypeError(
                f"snapshot_half must be True or False, got {quoted(self.snapshot_half)}"
            )
        for name, values in (("ema", self.decays), ("ema_sigma", self.ema_sigma)):
            _check_tuple(name, values)
            if len(set(values)) < len(values):
                raise InvalidValueError(f"{name} holds a number twice: {values}")
        _check_below_one("ema", self.decays)
        for sigma in self.ema_sigma:
            gamma_of(sigma)
        if not self.decays:
            raise InvalidValueError("ema must hold at least one decay, 0.999 for example")
        if len(self.decays) == 1:  # one decay is one run, however it is written
            object.__setattr__(self, "ema", self.decays[0])

    @property
    def decays(self) -> tuple[float, ...]:
        """Return all decays of `ema`, that of the result first."""
        return self.ema if isinstance(self.ema, tuple) else (self.ema,)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Say how a step is computed, which changes the last digits of the weights at most.

    The exception is `bf16`: a run with it is another run.

    Attributes:
        accumulate: Parts, at least 1, in which a process handles its share of a batch one after
            the other, to save memory.
        workers: Processes that make batches ahead of their time, 0 for none. Worth it where samples
            are decoded or augmented.
        bf16: Whether the network runs in bfloat16 (weights and optimiser stay in float32).
        fused: Whether Adam moves all weights in one pass, or else by torch's default, for devices
            that have no fused Adam.
        compile: Whether the network runs through `torch.compile`; the first steps then take
            minutes. It cannot be differentiated twice, as an `EnergyScore` and `ism_loss` ask.
        channels_last: Whether images are stored with their channels last, as many convolutions
            want them.
        recompute: Whether the blocks of the network forget their activations and compute them
            again on the way back, which saves memory and costs about a third more time.
        shard: Whether each of several processes keeps a share of the weights, gradients and
            averages only, for networks that one cannot hold; every step then sends more.

    Raises:
        InvalidTypeError, InvalidValueError: A field is impossible; names it.

    Examples:
        >>> Compute(accumulate=4, recompute=True).accumulate
        4
    """

    accumulate: int = 1
    workers: int = 0
    bf16: bool = False
    fused: bool = True
    compile: bool = False
    channels_last: bool = False
    recompute: bool = False
    shard: bool = False

    def __post_init__(self) -> None:
        check_least(self, accumulate=1, workers=0)
        check_fields(self)
        if self.shard and self.channels_last:
            raise InvalidValueError("shard and channels_last exclude each other; leave one out")


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Say what of a run is kept and shown, and when it ends early.

    Attributes:
        save_every: Steps between checkpoints, at least 1.
        keep: How many checkpoints are kept, at least 2: a damaged one needs a predecessor.
        log_every: Steps between looks at the loss, at least 1.
        on_nan: What becomes of a step whose gradient is not finite: "raise" ends the run with a
            report, "skip" leaves the step out, up to 10 in a row.
        held_out: The share of the data, in [0, 1), that is not trained on. Its loss under the
            averaged weights is logged as `held_out` at every checkpoint, at the end, and now and
            then between. The model of the checkpoint with the lowest one is kept in `best/`.
        patience: The run ends after so many checkpoints, at least 1, without a lower loss of the
            held-out data; None to go on.

    Raises:
        InvalidTypeError, InvalidValueError, UnknownNameError: A field is impossible; names it.

    Examples:
        >>> Keeping(save_every=500, held_out=0.1, patience=5).patience
        5
    """

    save_every: int = 1000
    keep: int = 3
    log_every: int = 50
    on_nan: str = "raise"
    held_out: float = 0.0
    patience: int | None = None

    def __post_init__(self) -> None:
        check_least(self, save_every=1, keep=2, log_every=1)
        check_numbers(self, "held_out")
        check_name("on_nan", self.on_nan, ("raise", "skip"))
        if not 0 <= self.held_out < 1:
            raise InvalidValueError(f"held_out must lie in [0, 1), got {self.held_out!r}")
        if self.patience is not None:
            check_least(self, patience=1)
            if not self.held_out:
                raise InvalidValueError(
                    "patience waits for the loss of held-out data, and there are none; set aside a "
                    "share of the data by held_out=0.1, or leave patience out"
                )

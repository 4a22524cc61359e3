"""Define the four parts of a training configuration, with their fields and checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from scoresde.checks import check_fields, check_integer, check_name, quoted
from scoresde.ema import gamma_of
from scoresde.errors import InvalidTypeError, InvalidValueError

__all__ = ["Averages", "Compute", "Keeping", "Optimiser", "check_least", "check_numbers"]


def check_least(owner: object, **least: int) -> None:
    """Raise InvalidValueError unless each field is an integer from its lower bound to 2**64 - 1."""
    for name, low in least.items():
        value = check_integer(name, getattr(owner, name), low)
        if value >= 2**64:
            raise InvalidValueError(f"{name} must be below 2**64, got {value!r}")
        object.__setattr__(owner, name, value)  # JSON cannot hold numpy's integers


def check_numbers(owner: Any, *names: str) -> None:
    """Check the types of the fields, and convert the named ones to float, for JSON."""
    check_fields(owner)
    for name in names:
        object.__setattr__(owner, name, float(getattr(owner, name)))


def _check_below_one(name: str, values: tuple[float, ...]) -> None:
    for value in values:
        if not 0 <= value < 1:
            raise InvalidValueError(f"{name} must lie in [0, 1), got {value!r}")


# For each decay, the learning rate of step k of K divided by the largest learning rate; m is
# `decay_from`.
_DECAYS: Mapping[str, Callable[[int, int, int], float]] = {
    "cosine": lambda k, m, steps: 0.5 * (1 + math.cos(math.pi * k / steps)),
    "constant": lambda k, m, steps: 1.0,
    "inverse_sqrt": lambda k, m, steps: math.sqrt(m / max(k, m)),
    "wsd": lambda k, m, steps: 1.0 if k <= m else (steps - k) / (steps - m),
}
# The share of the steps with the full learning rate if `decay_from` is None.
_FULL_UNTIL = {"wsd": 0.8, "inverse_sqrt": 0.1}
# The smallest and the largest default number of steps between checkpoints.
_SHORTEST, _LONGEST = 50, 1000


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    r"""Configure the optimiser.

    The learning rate of step $k$ of $K$ is $\text{lr} \cdot \min(1, (k + 1) / \text{warmup})$ times

    - $\tfrac12 (1 + \cos \pi k / K)$ with `decay="cosine"` (Loshchilov & Hutter 2017,
      arXiv:1608.03983), which helps short runs more than long runs;
    - 1 with `"constant"`;
    - $\min(1, \sqrt{m / k})$ with `"inverse_sqrt"` (Karras et al. 2024, arXiv:2312.02696, EDM2);
    - $\min(1, (K - k) / (K - m))$ with `"wsd"`: warm-up, stable, decay (Hägele et al. 2024,
      arXiv:2405.18392, who found that decaying in the last fifth of a run is enough).

    Here $m$ is `decay_from`. A run may be extended to more steps. It then ends as a run that had
    all steps from the start, if no learning rate so far depended on $K$. This is so with
    "constant", with "inverse_sqrt" and a given `decay_from`, and with "wsd" and a given
    `decay_from` until the decay begins.

    Attributes:
        rule: "adam" or "muon". Muon updates the matrices inside the network by orthogonal steps
            whose root mean square entry is .2 times the learning rate (Jordan et al. 2024,
            https://kellerjordan.github.io/posts/muon), and all other weights by Adam.
        lr: The largest learning rate, above 0 and finite.
        betas: Adam's two decay rates, each in [0, 1).
        warmup: The number of steps over which the learning rate rises; 0 for no warm-up.
        decay: The decay of the learning rate: "cosine" and "wsd" fall to zero, "inverse_sqrt" falls
            more slowly, "constant" does not fall.
        decay_from: The step m, at least 1, until which "wsd" and "inverse_sqrt" keep the full rate.
            None takes four fifths of the steps for "wsd", and a tenth for "inverse_sqrt".
        weight_decay: At least 0; every step subtracts weight_decay * learning rate * W from each
            matrix W inside the network (Loshchilov & Hutter 2019, arXiv:1711.05101).
        clip: The largest norm of the gradient, above 0 and finite. A gradient with a larger norm is
            scaled down to this norm.

    Raises:
        InvalidTypeError, InvalidValueError, UnknownNameError: The value of a field, which is named,
            is not allowed.

    Examples:
        >>> Optimiser(lr=2e-3).lr_at(0, 100)
        2e-05
    """

    rule: str = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 100
    decay: str = "cosine"
    decay_from: int | None = None
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
        check_name("decay", self.decay, _DECAYS)
        if self.decay_from is not None:
            check_least(self, decay_from=1)
            if self.decay not in _FULL_UNTIL:
                raise InvalidValueError(
                    f"decay_from is for the decays {' and '.join(_FULL_UNTIL)}, but decay is "
                    f"{self.decay!r}; leave decay_from out, or choose one of these decays"
                )

    def lr_at(self, step: int, steps: int) -> float:
        """Return the learning rate of update number `step` of `steps`, counted from 0."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        full = self.decay_from or max(1, round(_FULL_UNTIL.get(self.decay, 1.0) * steps))
        return self.lr * rise * _DECAYS[self.decay](step, full, steps)


@dataclass(frozen=True, kw_only=True)
class Averages:
    """Configure the averages of the weights; the first average is the result of the run.

    Attributes:
        ema: The decay, in [0, 1), of the exponential average that is the result. If there are
            several decays, the first gives the result, and the average for each other decay is
            written to a folder `ema-<decay>`.
        ema_sigma: The relative widths, in [1e-4, 0.2887], of power-function averages, of which
            snapshots are written. With the two widths (0.05, 0.1), averages of other widths can be
            reconstructed from the snapshots after the training (`scoresde.ema.reconstruct`).
        snapshot_every: The number of steps between snapshots, at least 1; the last step has a
            snapshot too.
        snapshot_half: Write snapshots in float16, in half the space.

    Raises:
        InvalidTypeError, InvalidValueError: The value of a field, which is named, is not allowed.

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
            if not isinstance(values, tuple) or not all(isinstance(v, int | float) for v in values):
                raise InvalidTypeError(f"{name} must be a tuple of numbers, got {values!r}")
            if len(set(values)) < len(values):
                raise InvalidValueError(f"{name} holds a number twice: {values}")
        _check_below_one("ema", self.decays)
        for sigma in self.ema_sigma:
            gamma_of(sigma)
        if not self.decays:
            raise InvalidValueError("ema must hold at least one decay, 0.999 for example")
        if len(self.decays) == 1:  # 0.999 and (0.999,) are the same configuration
            object.__setattr__(self, "ema", self.decays[0])

    @property
    def decays(self) -> tuple[float, ...]:
        """Return all decays of `ema` as a tuple; the first decay gives the result."""
        return self.ema if isinstance(self.ema, tuple) else (self.ema,)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Configure how a step is computed.

    Except for `bf16` and `fp16` the fields change the results only by rounding. `accumulate` and
    `compile` also change what depends on the division of a batch or on torch's generator, such as
    the masks of dropout.

    Attributes:
        accumulate: The number of parts, at least 1, into which a process divides its share of a
            batch. They are computed one after the other, which saves memory.
        workers: The number of processes that prepare batches; with 0 the batches are prepared in
            the training process. Workers make training faster if samples are decoded or augmented.
        bf16: Run the network in bfloat16 (weights and optimiser stay in float32).
        fp16: Run the network in float16, for GPUs without bfloat16 such as T4 and V100. The loss is
            scaled so that small gradients do not become zero; steps whose gradient overflows are
            skipped.
        fused: Use the fused Adam. False uses torch's default, for devices without a fused Adam.
        compile: Compile the network by `torch.compile`; the first steps then take minutes. A
            compiled network cannot be differentiated twice, which `EnergyScore` and `ism_loss`
            need.
        channels_last: Use the memory layout with channels last, which is faster for many
            convolutions.
        recompute: Recompute the activations of the network's blocks in the backward pass, which
            saves memory and costs about a third more time.
        shard: Divide weights, gradients and averages among the processes, for networks that do not
            fit into the memory of one device; every step then communicates more.

    Raises:
        InvalidTypeError, InvalidValueError: The value of a field, which is named, is not allowed.

    Examples:
        >>> Compute(accumulate=4, recompute=True).accumulate
        4
    """

    accumulate: int = 1
    workers: int = 0
    bf16: bool = False
    fp16: bool = False
    fused: bool = True
    compile: bool = False
    channels_last: bool = False
    recompute: bool = False
    shard: bool = False

    def __post_init__(self) -> None:
        check_least(self, accumulate=1, workers=0)
        check_fields(self)
        if self.bf16 and self.fp16:
            raise InvalidValueError(
                "bf16 and fp16 cannot be combined; take bf16 if the device supports it"
            )
        if self.shard and self.channels_last:
            raise InvalidValueError("shard and channels_last cannot be combined; leave one out")


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Configure what a run saves and logs, and when it stops early.

    Attributes:
        save_every: The number of steps between checkpoints, at least 1; by default a tenth of the
            run's steps, but at least 50 and at most 1,000.
        keep: The number of checkpoints to keep, at least 2. If the last checkpoint is damaged, the
            one before it is used.
        log_every: The number of steps between rows of the log, at least 1.
        on_nan: If a gradient is not finite, "raise" ends the run with an error, and "skip" skips
            the step, up to 10 steps in a row. In float16, steps that overflow are always skipped.
        held_out: The share of the data, in [0, 1), that is not used for training. The loss of the
            averaged model on these data is logged as `held_out` at every checkpoint, at the end,
            and at some steps between. The model with the lowest held-out loss at a checkpoint is
            kept in `best/`.
        patience: Stop when this number of checkpoints in a row, at least 1, did not lower the
            held-out loss; None never stops early.

    Raises:
        InvalidTypeError, InvalidValueError, UnknownNameError: The value of a field, which is named,
            is not allowed.

    Examples:
        >>> Keeping(save_every=500, held_out=0.1, patience=5).patience
        5
    """

    save_every: int | None = None
    keep: int = 3
    log_every: int = 50
    on_nan: str = "raise"
    held_out: float = 0.0
    patience: int | None = None

    def __post_init__(self) -> None:
        check_least(self, keep=2, log_every=1)
        if self.save_every is not None:
            check_least(self, save_every=1)
        check_numbers(self, "held_out")
        check_name("on_nan", self.on_nan, ("raise", "skip"))
        if not 0 <= self.held_out < 1:
            raise InvalidValueError(f"held_out must lie in [0, 1), got {self.held_out!r}")
        if self.patience is not None:
            check_least(self, patience=1)
            if not self.held_out:
                raise InvalidValueError(
                    "patience needs held-out data, but no data are held out; give held_out=0.1, "
                    "or leave patience out"
                )

    def period(self, steps: int) -> int:
        """Return the number of steps between checkpoints of a run of `steps` steps."""
        return self.save_every or min(_LONGEST, max(_SHORTEST, steps // 10))

    def due(self, step: int, steps: int) -> bool:
        """Return True if a checkpoint is made after `step` of `steps` steps."""
        return step == steps or not step % self.period(steps)

r"""Make one update of the weights: compute the loss and its gradient, and call the optimiser.

All randomness of step k is a function of (seed, k, row of the batch). So no random state has to be
stored, and a process that computes some rows of a batch draws the same numbers for them as a
process that computes all rows.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from scoresde import distributed
from scoresde.checks import quoted
from scoresde.data import Data
from scoresde.errors import InvalidTypeError, InvalidValueError, ShapeError, TrainingError
from scoresde.nn.dropout import seeded
from scoresde.noise import Noise
from scoresde.noise.global_rng import forked_rng
from scoresde.objectives import dsm_loss, edm, passing
from scoresde.score import modules
from scoresde.sde import SDE, Condition, facts
from scoresde.training.batches import Batch, there
from scoresde.training.config import TrainConfig
from scoresde.training.loss_scale import LossScale
from scoresde.training.optimisers import optimizer_of
from scoresde.training.shard import whole

__all__ = ["Loss", "Update", "check_loss", "checked", "default_loss", "seeds_of_step"]

Loss = Callable[..., Tensor]
"""A loss `(score, sde, x, *, noise, condition) -> (B,)`, such as `dsm_loss`."""

_HIDDEN = 2**32  # the first draw number for hiding conditions; losses use lower numbers


class Update:
    """Update the weights of a score, and of a loss with weights, one batch at a time.

    If there are several processes, each computes its own rows of a batch, in `accumulate` parts.
    The gradient is the mean over all parts of all processes, so every process makes the same
    update. The update equals that of a single process up to rounding. Only random layers, such as
    dropout, and stratified times depend on the division into parts.

    Args:
        score: The score, trained in place.
        sde: The process of the score.
        loss: The loss.
        config: The configuration of the run.

    Attributes:
        optimizer: Adam or Muon, over the parameters that require gradients.
        beside: The modules of the loss that are trained with the score, and the loss scale for
            float16.
        begun: The number of the last update that has begun to change the weights.

    Raises:
        InvalidValueError: The batch cannot be divided evenly, or no parameter requires gradients.
    """

    def __init__(self, score: nn.Module, sde: SDE, loss: Loss, config: TrainConfig) -> None:
        self.score = score
        self.sde = sde
        self.config = config
        self.beside = _beside(loss, score)
        self._scale = LossScale() if config.compute.fp16 else None
        if self._scale is not None:
            self.beside.append(self._scale)
        weights = [p for p in score.parameters() if p.requires_grad]
        if not weights:
            raise InvalidValueError(
                "no parameter of the score requires a gradient, so there is nothing to train; the "
                "result of `train` is frozen, so call `score.requires_grad_()` to train it further"
            )
        self._device = weights[0].device
        self.beside.to(self._device)
        distributed.align(self.beside)
        others = [p for p in self.beside.parameters() if p.requires_grad]
        # separate groups, since sharded and whole tensors cannot be in the same group
        self._parts = [group for group in (weights, others) if group]
        self.optimizer = optimizer_of(score, self._parts, config)
        self.begun = -1
        self._rows = _divided(config)
        self._loss = loss
        self._layers = [*score.modules(), *self.beside.modules()]
        self._score: Any = score
        if distributed.size() > 1 and not config.compute.shard:
            self._score = DistributedDataParallel(
                score, process_group=distributed.engine(), gradient_as_bucket_view=True
            )

    def __call__(self, step: int, batch: Batch) -> Tensor:
        """Make update number `step`; return this process's loss and the gradient's norm, `(2,)`."""
        lr = self.config.lr_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        parts = self.config.compute.accumulate
        seeds = seeds_of_step(self.config.seed, step, 1 + len(self._rows))
        losses = []
        for part in range(parts):
            with self._local(part), self._dropout(seeds, part):
                loss = self._part(seeds, batch, part) / parts
                if not loss.requires_grad:
                    raise TrainingError(
                        "no gradient reaches any parameter: the loss does not depend on them, or "
                        "the network's output was detached"
                    )
                scaled = loss if self._scale is None else loss * self._scale.scale
                scaled.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        self._check_reached()
        self._share_others()
        if self._scale is not None:
            self._scale.unscale(p for part in self._parts for p in part)
        norms = [self._clipped(part) for part in self._parts]
        norm = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
        self.begun = step
        finite = not self.config.skips or bool(norm.isfinite())
        if self._scale is not None:
            self._scale.update(finite)
        if finite:
            self.optimizer.step()
        return torch.stack([torch.stack(losses).sum(), norm])

    def loss(self, step: int, batch: Batch, part: int = 0) -> Tensor:
        """Return the loss of one part of this process's rows, averaged over samples and entries."""
        seeds = seeds_of_step(self.config.seed, step, 1 + len(self._rows))
        with self._dropout(seeds, part):
            return self._part(seeds, batch, part)

    def noise(self, step: int, rows: slice) -> Noise:
        """Return the noise for some rows of the batch of a step."""
        return _noise(seeds_of_step(self.config.seed, step, 1)[0], rows)

    def describe(self, step: int) -> str:
        """Describe the learning rate, times and noise scales of update number `step`."""
        rate = f"at learning rate {self.config.lr_at(step):.3g}"
        seen: list[Tensor] = []

        def record(x: Tensor, t: Tensor, condition: object = None) -> Tensor:
            seen.append(t)
            return -x

        noise = self.noise(step, slice(0, self.config.batch_size))
        x = torch.zeros(len(noise), 1)
        with contextlib.suppress(Exception), torch.no_grad():  # a loss may depend on the shape
            self._loss(record, self.sde, x, noise=noise, condition=None)
        if not seen:
            return rate
        t = seen[0].double()
        sigma = self.sde.sigma(t)
        return (
            f"{rate}, times in [{float(t.min()):.4g}, {float(t.max()):.4g}] and sigma in "
            f"[{float(sigma.min()):.4g}, {float(sigma.max()):.4g}]"
        )

    def _dropout(self, seeds: list[int], part: int) -> AbstractContextManager[None]:
        """Seed the dropout of one part, also of what is recomputed in the backward pass."""
        return seeded(self._layers, seeds[1 + self._number(part)])

    def _number(self, part: int) -> int:
        return distributed.rank() * self.config.compute.accumulate + part

    def _part(self, seeds: list[int], batch: Batch, part: int) -> Tensor:
        number = self._number(part)
        rows = self._rows[number]
        length = rows.stop - rows.start
        mine = slice(part * length, (part + 1) * length)
        noise = _noise(seeds[0], rows)
        given = None if batch[1] is None else self._hidden(batch[1].rows(mine), noise)
        x, *others = there([batch[0][mine], *(given or {}).values()], self._device)
        condition = None if given is None else Condition(dict(zip(given, others, strict=True)))
        # random layers of other libraries use torch's global generators
        with forked_rng(seeds[1 + number] >> 1, self._device), passing():
            losses = self._loss(self._score, self.sde, x, noise=noise, condition=condition)
        return checked(losses, x).mean() / x.shape[1:].numel()

    def _hidden(self, condition: Condition, noise: Noise) -> Condition:
        """Return the conditions, where each name is hidden at random for some samples."""
        rows = {}
        for name, value in condition.items():
            share = self.config.share_hidden(name)
            if share:
                independent = noise.fork(_HIDDEN + zlib.crc32(name.encode()))
                z = independent.normal(torch.empty(len(value), 1, dtype=torch.float64), 0.0)
                hidden = (torch.special.ndtr(z) < share).reshape(-1, *(1,) * (value.ndim - 1))
                value = value.masked_fill(hidden, math.nan if value.is_floating_point() else -1)
            rows[name] = value
        return Condition(rows)

    def _clipped(self, weights: list[nn.Parameter]) -> Tensor:
        norm = torch.nn.utils.clip_grad_norm_(weights, self.config.optimiser.clip)
        return whole({"norm": norm})["norm"]

    def _local(self, part: int) -> AbstractContextManager[None]:
        """Skip the all-reduce of gradients except on the last part."""
        last = part == self.config.compute.accumulate - 1
        if distributed.size() > 1 and self.config.compute.shard:
            self._score.set_requires_gradient_sync(last)
        elif distributed.size() > 1 and not last:
            context: AbstractContextManager[None] = self._score.no_sync()
            return context
        return nullcontext()

    def _check_reached(self) -> None:
        """Raise TrainingError if a parameter has no gradient, since processes would wait for it."""
        if self._score is self.score:
            return
        named = self.score.named_parameters()
        lost = [name for name, p in named if p.requires_grad and p.grad is None]
        if lost:
            raise TrainingError(
                f"no gradient reaches {len(lost)} parameters ({', '.join(lost[:5])}), and other "
                "processes would wait for it; freeze unused parameters by `requires_grad_(False)`"
            )

    def _share_others(self) -> None:
        """Average the gradients of the loss's parameters over the processes."""
        if distributed.size() == 1:
            return
        for p in self.beside.parameters():
            if p.requires_grad:
                p.grad = distributed.mean(torch.zeros_like(p) if p.grad is None else p.grad)


def default_loss(score: nn.Module, data: Data) -> Loss:
    """Return DSM with EDM's weight for the variance in the score's facts, or else the data's."""
    moments = facts(score).moments
    var = data.moments()[1] if moments is None else moments.mean_variance()
    return functools.partial(dsm_loss, weight=edm(var or 1.0))


def check_loss(loss: object) -> None:
    """Raise InvalidTypeError unless a loss accepts the arguments that the trainer passes."""
    wanted = "a function (score, sde, x, *, noise, condition) -> (B,) such as dsm_loss"
    if not callable(loss) or isinstance(loss, type):
        raise InvalidTypeError(f"loss must be {wanted}, got {quoted(loss)}")
    with contextlib.suppress(ValueError):  # some callables have no signature
        # a module's __call__ accepts any arguments, so check its forward
        called = loss.forward if isinstance(loss, nn.Module) else loss
        try:
            inspect.signature(called).bind(None, None, None, noise=None, condition=None)
        except TypeError as error:
            raise InvalidTypeError(
                f"loss must be {wanted}, but {quoted(loss)} does not accept these arguments: "
                f"{error}"
            ) from error


def checked(losses: object, x: Tensor) -> Tensor:
    """Return the result of a loss; raise unless it is a tensor `(B,)`."""
    if not isinstance(losses, Tensor):
        raise InvalidTypeError(f"a loss must return a tensor (B,), got {type(losses).__name__}")
    if losses.shape != x.shape[:1]:
        raise ShapeError(
            f"a loss must return one number for each sample, of the shape ({len(x)},), got "
            f"{tuple(losses.shape)}; sum over the event only, since the trainer averages over "
            "samples"
        )
    return losses


def seeds_of_step(seed: int, step: int, n: int) -> list[int]:
    """Return n seeds for a step: one for its noise, then one for each part of its batch."""
    words: list[int] = np.random.SeedSequence([seed, step]).generate_state(n, np.uint64).tolist()
    return words


def _noise(seed: int, rows: slice) -> Noise:
    return Noise.of(seed, rows.stop - rows.start, first=rows.start)


def _beside(loss: Loss, score: nn.Module) -> nn.ModuleList:
    """Return the modules of a loss to train, without the score and frozen modules."""
    inside = set(score.modules())
    return nn.ModuleList(
        module
        for module in modules(loss)
        if inside.isdisjoint(module.modules())
        and (any(p.requires_grad for p in module.parameters()) or not list(module.parameters()))
    )


def _divided(config: TrainConfig) -> list[slice]:
    """Return the rows of the batch for every part in this process."""
    share = distributed.rows(config.batch_size)
    accumulate = config.compute.accumulate
    length, rest = divmod(share.stop - share.start, accumulate)
    if rest or not length:
        raise InvalidValueError(
            f"accumulate = {accumulate} does not divide the {share.stop - share.start} samples of "
            "a batch that each process computes; choose a divisor"
        )
    parts = distributed.size() * accumulate
    return [slice(i * length, (i + 1) * length) for i in range(parts)]

r"""One update of the weights: loss, gradient, Adam.

Step k draws its times, noise, hidden labels and dropout from (seed, k) alone: see `draws`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from scoresde import distributed, objectives
from scoresde.errors import InvalidValueError, TrainingError
from scoresde.score import ScoreModel
from scoresde.sde import Importance, LogNormal, TimeLaw, Uniform
from scoresde.training.batches import Batch
from scoresde.training.config import TrainConfig
from scoresde.training.draws import Draws
from scoresde.training.shard import whole

__all__ = ["Update"]


class Update:
    """Moves a model's weights, one batch at a time.

    Among several processes each handles its own rows of a batch, in as many parts as the
    configuration says. The gradient is the mean over all of them, so that the update is the same
    in every process, and that of one process alone, but for rounding and for layers such as
    dropout, whose randomness belongs to the part.

    Args:
        model: Trained in place.
        config: The numbers of the run.
        classes: How many classes the labels have; a hidden label is `classes`.

    Attributes:
        optimizer: Adam, over the parameters that ask for gradients.
        begun: The last update whose weights have begun to move.

    Raises:
        InvalidValueError: The batch cannot be divided evenly, or no parameter asks for gradients.
    """

    def __init__(self, model: ScoreModel, config: TrainConfig, classes: int | None) -> None:
        self.model = model
        self.config = config
        self.classes = classes
        weights = [p for p in model.parameters() if p.requires_grad]
        if not weights:
            raise InvalidValueError(
                "no parameter of the model asks for a gradient, so that there is nothing to train; "
                "what `train` returned is frozen, and trains on after `model.requires_grad_()`"
            )
        self.optimizer = torch.optim.Adam(
            weights,
            lr=config.lr,
            betas=config.betas,
            fused=config.fused or None,  # None: what torch thinks best for the device
        )
        self.begun = -1
        self._rows = _divided(config)
        self._weight = _weight(config, model)
        self._law = _law(config)
        self._score: Any = model
        if distributed.size() > 1 and not config.shard:
            self._score = DistributedDataParallel(
                model, process_group=distributed.engine(), gradient_as_bucket_view=True
            )

    def __call__(self, step: int, batch: Batch) -> Tensor:
        """Update number `step`; the loss of the own rows and the norm of the gradient, `(2,)`."""
        lr = self.config.lr_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        losses, draws = [], self.draws(step)
        for part in range(self.config.accumulate):
            with self._local(part):
                loss = self.loss(draws, batch, part) / self.config.accumulate
                if not loss.requires_grad:
                    raise TrainingError(
                        "no gradient reaches any parameter: the network's output does not depend "
                        "on them, or it was detached"
                    )
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        self._check_reached()
        weights = self.optimizer.param_groups[0]["params"]
        norm = torch.nn.utils.clip_grad_norm_(weights, self.config.clip)
        norm = whole({"norm": norm})["norm"]
        self.begun = step
        if self.config.on_nan == "raise" or norm.isfinite():
            self.optimizer.step()
        return torch.stack([torch.stack(losses).sum(), norm])

    def draws(self, step: int) -> Draws:
        """What chance decides in update number `step`."""
        return Draws(self.config, self.model.sde, self._law, step)

    def loss(self, draws: Draws, batch: Batch, part: int = 0) -> Tensor:
        """The loss of one part of the own rows: the mean over samples and event dimensions."""
        number = distributed.rank() * self.config.accumulate + part
        rows = self._rows[number]
        mine = slice(part * (rows.stop - rows.start), (part + 1) * (rows.stop - rows.start))
        device = self.model.mean.device
        x = batch[0][mine].to(device)
        condition = None
        if batch[1] is not None:
            label = batch[1][mine].masked_fill(draws.hidden[rows], self.classes or 0)
            condition = {"label": label.to(device)}
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            # layers such as dropout know no generator but the global one
            torch.default_generator.manual_seed(draws.dropout_seed(number))
            if device.type == "cuda":
                torch.cuda.manual_seed(draws.dropout_seed(number))
            losses = objectives.dsm_loss(
                self._score,
                self.model.sde,
                x,
                t=draws.t[rows],
                condition=condition,
                weight=self._weight,
                noise=draws.noise(rows),
            )
        return (draws.importance[rows].to(losses) * losses).mean() / x[0].numel()

    def describe(self, step: int) -> str:
        """At which rate, times and noise levels update number `step` is made."""
        t = self.draws(step).t
        sigma = self.model.sde.sigma(t)
        return (
            f"at learning rate {self.config.lr_at(step):.3g}, times in "
            f"[{float(t.min()):.4g}, {float(t.max()):.4g}] and sigma in "
            f"[{float(sigma.min()):.4g}, {float(sigma.max()):.4g}]"
        )

    def _local(self, part: int) -> AbstractContextManager[None]:
        """All parts but the last one leave their gradients unsent."""
        last = part == self.config.accumulate - 1
        if distributed.size() > 1 and self.config.shard:
            self._score.set_requires_gradient_sync(last)
        elif distributed.size() > 1 and not last:
            context: AbstractContextManager[None] = self._score.no_sync()
            return context
        return nullcontext()

    def _check_reached(self) -> None:
        """A gradient that never comes would leave several processes waiting for it."""
        if self._score is self.model:
            return
        named = self.model.named_parameters()
        lost = [name for name, p in named if p.requires_grad and p.grad is None]
        if lost:
            raise TrainingError(
                f"no gradient reaches {len(lost)} parameters ({', '.join(lost[:5])}), and several "
                "processes would wait for it; freeze what is not used by `requires_grad_(False)`"
            )


def _divided(config: TrainConfig) -> list[slice]:
    """The rows of the batch that every part of every process handles."""
    own = distributed.rows(config.batch_size)
    length, rest = divmod(own.stop - own.start, config.accumulate)
    if rest or not length:
        raise InvalidValueError(
            f"accumulate = {config.accumulate} does not divide the {own.stop - own.start} samples "
            "of a batch that a process has; choose a divisor of them"
        )
    parts = distributed.size() * config.accumulate
    return [slice(i * length, (i + 1) * length) for i in range(parts)]


def _weight(config: TrainConfig, model: ScoreModel) -> objectives.Weight:
    if config.weight == "edm":
        return objectives.edm(float(model.var.double().mean()))
    return objectives.WEIGHTS[config.weight]


def _law(config: TrainConfig) -> TimeLaw | None:
    mean, std = config.log_sigma
    laws: dict[str, TimeLaw] = {
        "uniform": Uniform(),
        "lognormal": LogNormal(mean, std),
        "importance": Importance(),
    }
    return laws.get(config.times)

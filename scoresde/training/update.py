r"""One update of the weights: loss, gradient, Adam.

Step k draws its times, noise, hidden labels and dropout from (seed, k) alone, so that a run needs
to store no random state.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scoresde import objectives
from scoresde.score import ScoreModel
from scoresde.sde import Importance, LogNormal, TimeLaw, Uniform
from scoresde.training.batches import Batch
from scoresde.training.config import TrainConfig

__all__ = ["Update"]


class Update:
    """Moves a model's weights, one batch at a time.

    Args:
        model: Trained in place.
        config: The numbers of the run.
        classes: How many classes the labels have; a hidden label is `classes`.

    Attributes:
        optimizer: Adam, over the parameters that ask for gradients.
    """

    def __init__(self, model: ScoreModel, config: TrainConfig, classes: int | None) -> None:
        self.model = model
        self.config = config
        self.classes = classes
        self.optimizer = torch.optim.Adam(
            [p for p in model.parameters() if p.requires_grad],
            lr=config.lr,
            betas=config.betas,
            fused=True,
        )
        self._weight = _weight(config, model)
        self._law = _law(config)

    def __call__(self, step: int, batch: Batch) -> Tensor:
        """Update number `step`; the loss and the norm of its gradient, `(2,)`."""
        lr = self.config.lr_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        loss = self.loss(step, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        weights = self.optimizer.param_groups[0]["params"]
        norm = torch.nn.utils.clip_grad_norm_(weights, self.config.clip)
        if self.config.on_nan == "raise" or norm.isfinite():
            self.optimizer.step()
        return torch.stack([loss.detach(), norm])

    def loss(self, step: int, batch: Batch) -> Tensor:
        """The loss of update number `step`: the mean over samples and event dimensions."""
        generator, dropout_seed = _randomness(self.config.seed, step)
        t, importance = self._times(generator)
        device = self.model.data_mean.device
        x, label = batch
        x = x.to(device)
        condition = None
        if label is not None:
            hidden = torch.rand(len(x), generator=generator) < self.config.label_dropout
            label = label.masked_fill(hidden, self.classes or 0)
            condition = {"label": label.to(device)}
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            # layers such as dropout know no generator but the global one
            torch.default_generator.manual_seed(dropout_seed)
            if device.type == "cuda":
                torch.cuda.manual_seed(dropout_seed)
            losses = objectives.dsm_loss(
                self.model,
                self.model.sde,
                x,
                t=t,
                condition=condition,
                weight=self._weight,
                check_finite=False,  # a NaN shows in the gradient, and the same in every process
                generator=generator,
            )
        return (importance.to(losses) * losses).mean() / x[0].numel()

    def describe(self, step: int) -> str:
        """At which rate, times and noise levels update number `step` is made."""
        t, _ = self._times(_randomness(self.config.seed, step)[0])
        sigma = self.model.sde.sigma(t)
        return (
            f"at learning rate {self.config.lr_at(step):.3g}, times in "
            f"[{float(t.min()):.4g}, {float(t.max()):.4g}] and sigma in "
            f"[{float(sigma.min()):.4g}, {float(sigma.max()):.4g}]"
        )

    def _times(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n = self.config.batch_size
        return self.model.sde.sample_times(n, law=self._law, generator=generator)


def _randomness(seed: int, step: int) -> tuple[torch.Generator, int]:
    """The generator of a step, and the seed of its dropout.

    torch uses 32 bits of a seed on the CPU, so two steps of a very long run may share their noise
    (with other samples), which does no harm in training.
    """
    words = np.random.SeedSequence([seed, step]).generate_state(2, np.uint64)
    own, dropout = (int(word >> np.uint64(1)) for word in words)
    return torch.Generator().manual_seed(own), dropout


def _weight(config: TrainConfig, model: ScoreModel) -> objectives.Weight:
    if config.weight == "edm":
        return objectives.edm(float(model.data_var.double().mean()))
    return objectives.WEIGHTS[config.weight]


def _law(config: TrainConfig) -> TimeLaw | None:
    mean, std = config.log_sigma
    laws: dict[str, TimeLaw] = {
        "uniform": Uniform(),
        "lognormal": LogNormal(mean, std),
        "importance": Importance(),
    }
    return laws.get(config.times)

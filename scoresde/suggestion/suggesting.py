"""Suggest noise scales, samplers, a network and a training for some data, in one object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from scoresde.checks import check_integer, door
from scoresde.data import Data, load
from scoresde.noise.global_rng import forked_rng
from scoresde.objectives import dsm_loss, edm
from scoresde.result import page
from scoresde.score import ScoreModel
from scoresde.sde import SDE, LogNormal, Moments
from scoresde.suggestion.network import NetConfig, network
from scoresde.suggestion.noise import NoiseLevels, steps_of
from scoresde.suggestion.recipe import law_of, rate_of, recipe
from scoresde.training import TrainConfig, Trainer

__all__ = ["Suggestion", "model_of", "suggest"]


@dataclass(frozen=True)
class Suggestion(NoiseLevels):
    """Hold noise scales, samplers, a network and a training for some data.

    `print` shows them with their reasons, and `suggest(data).trainer().train()` is a model.

    Attributes:
        net: The network.
        law: The distribution of the training times.
        config: The configuration of the training.
        data: The data for which these were chosen.

    Examples:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> found = suggest(x)
        >>> model = found.trainer(steps=2).train(progress=False)
        >>> model.event_shape
        (2,)
    """

    net: NetConfig
    law: LogNormal
    config: TrainConfig
    data: Data = field(repr=False, compare=False)

    def model(self, sde: SDE | None = None) -> ScoreModel:
        """Return an untrained model, whose weights are drawn with the seed in `config`.

        Args:
            sde: The process of the model, instead of `sde()`.
        """
        return model_of(self.data, self.net, sde or self.sde(), self.config.seed)

    def loss(self) -> Callable[..., Tensor]:
        """Return the loss for a `Trainer`: DSM with EDM's weight and the times of `law`."""
        # round to float32 as in the model, so that a loss that is made from the model's moments
        # gives exactly the same training
        moments = (torch.as_tensor(m, dtype=torch.float32) for m in self.data.moments())
        weight = edm(Moments(*moments).mean_variance())
        return partial(dsm_loss, weight=weight, law=self.law)

    def trainer(self, folder: str | Path | None = None, **changes: Any) -> Trainer[ScoreModel]:
        """Return a trainer of `model()` with `config` and `loss()`, whose `train` gives the model.

        If there are 50 samples or more, a tenth of them, at most about 1,000, is held out, and the
        loss on the held-out samples, `trainer.held_out.data`, is measured during the run.
        `trainer(held_out=0.0)` trains on all samples.

        Args:
            folder: The folder of the run, from which it can be resumed; without it nothing is
                written.
            changes: Settings that replace settings in `config`, by name, as in `steps=500`.

        Raises:
            UnknownNameError: `config` has no setting with this name.
            ScoreSDEError: As in `Trainer`.
        """
        config = self.config.changed(**changes)
        model = model_of(self.data, self.net, self.sde(), config.seed)
        return Trainer(model, self.data, config, loss=self.loss(), folder=folder)

    def _repr_html_(self) -> str:
        return page(str(self), None)

    def adapted(self, widest: int = 1, rule: str | None = None) -> Self:
        """Return this suggestion with the learning rate for another network or optimiser.

        Args:
            widest: The width of the widest layer of the other network; Adam's rate decreases with
                this width. If it is below the width of the suggested network, such as 1, the rate
                does not change.
            rule: The optimiser, "adam" or "muon"; None takes the optimiser in `config`.

        Examples:
            >>> found = suggest(torch.randn(200, 2, generator=torch.Generator().manual_seed(0)))
            >>> found.adapted(8) == found
            True
            >>> found.adapted(1024, "adam").config.optimiser.lr < found.config.optimiser.lr
            True
        """
        present = self.config.optimiser
        rate, why = rate_of(max(widest, *self.net.channels), rule or present.rule)
        config = self.config.changed(lr=rate, rule=rule or present.rule)
        return replace(self, config=config, reasons={**self.reasons, "lr": why})

    def __str__(self) -> str:
        """Return a table with a line for every setting of a training: name, value, reason."""
        return f"{self.table()}\n(for the settings of the papers' samplers: table(samplers=True))"

    def table(self, *, samplers: bool = False) -> str:
        """Return a table with a line for every setting: name, value, reason.

        Args:
            samplers: Add the settings that only NCSN ladders, annealed Langevin dynamics and
                predictor-corrector sampling use.
        """
        config = self.config
        others = {
            "net": self.net.type,
            "channels": " ".join(map(str, self.net.channels)),
            "patch": self.net.patch,
            "law": f"lognormal mean={self.law.mean:g} std={self.law.std:g}",
            "optimiser": config.optimiser.rule,
            "lr": config.optimiser.lr,
            "batch_size": config.batch_size,
            "held_out": config.keeping.held_out,
            "bf16": "yes" if config.compute.bf16 else "no",
            "updates": config.steps,
            "condition_dropout": config.condition_dropout,
        }
        names = [name for name in self.reasons if name not in _OF_SAMPLERS]
        values = {name: others.get(name, getattr(self, name, None)) for name in self.reasons}
        words = {k: f"{v:.4g}" if isinstance(v, float) else str(v) for k, v in values.items()}
        width = max(map(len, words.values()))

        def line(name: str) -> str:
            shown = {"updates": "steps"}.get(name, name)
            return f"{shown:18}{words[name]:>{width}}  {self.reasons[name]}"

        lines = [line(name) for name in names]
        if samplers:
            lines += [
                "used only by NCSN ladders, annealed Langevin dynamics and predictor-corrector:"
            ]
            lines += [line(name) for name in _OF_SAMPLERS if name in self.reasons]
        return "\n".join(lines)


# The rows that only the papers' samplers use.
_OF_SAMPLERS = ("ratio", "levels", "kappa", "k", "steps", "snr")


@door
def suggest(data: Data | Tensor | Any, *, seed: int = 0, net: str | None = None) -> Suggestion:
    r"""Choose noise scales, samplers, a network and a training for data.

    Args:
        data: `Data`, or whatever `scoresde.data.load` takes: samples `(N, *event)`, a path, a name.
            The noise scales are chosen from the distances of at most 2,000 samples, fewer if the
            samples are large.
        seed: The seed of the choice of these samples, of the initial weights and of the batches, an
            integer of at least 0.
        net: The type of the network, "unet", "mlp" or "dit"; None chooses.

    Raises:
        DataError: There are not two samples that differ, or the squares of their distances
            overflow or vanish.
        InvalidValueError: The seed is not an integer of at least 0, or the network does not take
            events of this shape.
        UnknownNameError: There is no such type of network.
        InvalidTypeError, ShapeError: `data` cannot be read as samples.

    Warns:
        UserWarning: A few samples make most of the variance, or all lie so far from 0 that float32
            loses their differences.

    Examples:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> found = suggest(x)
        >>> found.sde().sigma_min > 0
        True
        >>> found.net.type, found.net.channels
        ('mlp', (128, 128, 128))
    """
    check_integer("seed", seed, 0)
    data = data if isinstance(data, Data) else load(data)
    levels = NoiseLevels.of(data, seed)
    chosen = network(data.event_shape, data.kinds, len(data), net)
    config = NetConfig(**{name: value for name, (value, _) in chosen.items()})
    law, middle = law_of(levels.sigma_data)
    numbers = recipe(data.event_shape, config, len(data), data.kinds)
    words = {"type": "net", "steps": "updates", "rule": "optimiser"}
    reasons = {
        **levels.reasons,
        **{words.get(name, name): why for name, (_, why) in chosen.items()},
        "law": middle,
        **{words.get(name, name): why for name, (_, why) in numbers.items()},
    }
    return Suggestion(
        **(vars(levels) | {"reasons": reasons}),
        net=config,
        law=law,
        config=TrainConfig(seed=seed).changed(**{k: value for k, (value, _) in numbers.items()}),
        data=data,
    )


def model_of(data: Data, net: NetConfig, sde: SDE, seed: int) -> ScoreModel:
    """Return an untrained model for data, whose weights are a function of the seed.

    The `steps` of the model are `steps_of(sde)`.
    """
    with forked_rng(seed):
        network = net.build(data.event_shape, data.kinds)
    model = ScoreModel(
        network,
        sde,
        data.event_shape,
        moments=Moments(*data.moments()),
        condition_moments=data.condition_moments(),
    )
    model.steps = steps_of(sde)
    return model

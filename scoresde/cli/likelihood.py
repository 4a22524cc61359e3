"""Define `scoresde likelihood`: compute the log-density of data, in nats and bits per dimension."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from scoresde import distributed
from scoresde.checks import check_integer, check_range, seeded
from scoresde.cli.held_out import asked, conditions_of, words_of
from scoresde.cli.options import (
    BatchSize,
    Checkpoint,
    HeldOutSplit,
    OwnColumns,
    OwnData,
    Seed,
    Size,
)
from scoresde.cli.standing import model_of
from scoresde.cli.terminal import show, then
from scoresde.data import Data
from scoresde.errors import InvalidValueError
from scoresde.likelihood import Dequantization, LogProb, bits_per_dim, log_prob
from scoresde.likelihood.densities import EXACT
from scoresde.likelihood.result import part_label
from scoresde.score import ScoreModel
from scoresde.sde import Condition, Moments, facts
from scoresde.units import in_words

__all__ = ["Likelihood"]


@dataclass(frozen=True)
class Likelihood:
    """Compute the log-density of data that a trained model has not seen."""

    checkpoint: Checkpoint
    data: OwnData = None
    split: HeldOutSplit = None
    condition: OwnColumns = ()
    size: Size = None
    first: int = 0
    """The number of the first sample of the data."""
    n: int = 64
    """How many of the data, at least 2."""
    method: Literal["auto", "exact", "hutchinson"] = "auto"
    """The trace: exact, by random probes, or exact up to 64 dimensions."""
    probes: int = 16
    """Random probes for each sample; below 8 they have no error bar."""
    at: Literal["data", "eps"] = "data"
    """The law: that of the data, or that of the data with the smallest noise, eps, which the model
    knows without an extrapolation."""
    tol: Annotated[
        float | None,
        tyro.conf.arg(
            metavar="FLOAT",
            help_behavior_hint="(default: 1e-4 with the exact trace, 1e-3 with random probes)",
        ),
    ] = None
    """The solver's tolerance, positive."""
    error: Literal["full", "estimate"] = "full"
    """The solver's error: full solves twice; estimate is faster, and less sure."""
    seed: Seed = 0
    batch_size: BatchSize = 64

    def run(self) -> None:
        """Compute and print."""
        check_integer("n", self.n, 2)
        check_integer("batch_size", self.batch_size, 1)
        check_integer("first", self.first, 0)
        if self.tol is not None:
            check_range("tol", self.tol, "(0, inf)")
        model = model_of(self.checkpoint).to(distributed.device())
        about = asked(self, model)
        x, given, transform = self._prepared(about.data, about.source, model)
        start = time.perf_counter()
        alpha, size = float(model.sde.alpha(_eps(model))), x.shape[1:].numel()
        exact = self.method == "exact" or (self.method == "auto" and size <= EXACT)
        tol = self.tol or (1e-4 if exact or size <= self.probes else 1e-3)
        found = log_prob(
            model,
            model.sde,
            x if self.at == "data" else alpha * x,
            t=None if self.at == "data" else model.sde.eps,
            method=self.method,
            probes=self.probes,
            rtol=tol,
            atol=tol,
            error=self.error,
            seed=self.seed,
            first=self.first,
            batch_size=self.batch_size,
            condition=given,
        )
        if self.at == "eps":
            found = replace(found, value=found.value + size * math.log(alpha))
        _report(found, x, transform, time.perf_counter() - start)
        self._compare(found, x, model)
        then("compare samples with data", "evaluate", *words_of(self))

    def _compare(self, found: LogProb, x: Tensor, model: ScoreModel) -> None:
        """Print the density in the data's units, and a verdict beside that of a Gaussian."""
        units = model.transform.log_det(model.event_shape)
        show(f"units         of the model: {in_words(model.transform)}")
        if units and model.transform.levels is None:
            show(
                f"{'':14}in the data's own units {found.mean()[0] + units:.2f} nats on average, "
                f"{units:+.2f} for the change of units"
            )
        noise = torch.as_tensor(model.sde.sigma(_eps(model)) / model.sde.alpha(_eps(model)))
        moments = Moments(model.mean, var=model.var).at(torch.ones(()), noise)
        gain = found.value.cpu() - moments.log_prob(x.double().cpu())
        mean, spread = float(gain.mean()), 1.96 * float(gain.std()) / math.sqrt(len(gain))
        spread += _mean(found.error)
        by = f"{abs(mean):.3g} ± {spread:.2g} nats"
        given = "" if not facts(model).conditions else ", which knows no condition"
        beside = f"a Gaussian with the mean and the variances of the training data{given}"
        if not math.isfinite(spread) or abs(mean) <= spread:
            text = f"as under {beside}, within {spread:.2g} nats, as far as these samples show"
        elif mean > 0:
            text = f"{by} higher than under {beside}: the model has learnt more than those"
        else:
            text = f"{by} lower than under {beside}: the model has learnt little; train for longer"
        show(f"verdict       the log-density is {text}")

    def _prepared(
        self, data: Data, source: str, model: ScoreModel
    ) -> tuple[Tensor, Condition | None, Dequantization | None]:
        """Return the samples, dequantized if they are quantized, their conditions, and the map."""
        rows = slice(self.first, self.first + self.n)
        x = data.batch(rows).float()
        if len(x) < 2:
            raise InvalidValueError(
                f"{source} has {len(data)} samples; --first {self.first} leaves {len(x)}"
            )
        given = conditions_of(data[rows], source, model)
        given = None if given is None else given.to(distributed.device())
        if data.transform.levels is None:
            return x.to(distributed.device()), given, None
        spread = Dequantization.of(data.transform)
        x = spread(spread.level(x), generator=seeded(self.seed))
        return x.to(distributed.device()), given, spread


def _report(found: LogProb, x: Tensor, transform: Dequantization | None, seconds: float) -> None:
    n, size = len(found.value), found.dimensions
    nats, error = found.mean()
    show(f"{n} samples of {size} dimensions in {seconds:.1f} s")
    show(
        f"log-density   {nats:.2f} nats on average, ± {error:.2f}, its standard error; higher is "
        "better"
    )
    if transform is None:
        show("bits per dim  none: the data are not quantized")
    else:
        bits = bits_per_dim(found, x, data_transform=transform)
        spread = float(bits.std()) / math.sqrt(n)
        show(f"bits per dim  {float(bits.mean()):.4f} on average, ± {spread:.4f}; lower is better")
    show(
        f"computed to   ± {_mean(found.error):.2g} nats for one sample on average, a bound that "
        "holds for 95 %, of which"
    )
    for name, part in found.parts.items():
        show(f"{'':14}{_mean(part):<8.2g} {part_label(name)}")
    nfe = found.nfe.double()
    show(f"evaluations   {float(nfe.mean()):.0f} for each sample, at most {int(nfe.max())}")


def _eps(model: ScoreModel) -> Tensor:
    return torch.tensor(model.sde.eps, dtype=torch.float64)


def _mean(value: Tensor) -> float:
    return float(value.mean())

"""Define `scoresde likelihood`: compute the log-density of data, in nats and bits per dimension."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from scoresde import checkpoint, distributed
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
from scoresde.cli.outputs import check_out
from scoresde.cli.standing import model_of
from scoresde.cli.terminal import show, tell, then
from scoresde.data import Data
from scoresde.errors import InvalidValueError
from scoresde.likelihood import Dequantization, LogProb, bits_per_dim, log_prob
from scoresde.likelihood.densities import EXACT, Check
from scoresde.likelihood.result import part_label, quantile
from scoresde.progress import duration
from scoresde.score import ScoreModel, evaluating
from scoresde.sde import Condition, Moments, facts
from scoresde.units import in_words

__all__ = ["Likelihood"]

# The approximate number of evaluations of one solution, for each row of the trace. If a computation
# will take longer than _LONG seconds, its time is announced.
_EVALUATIONS, _LONG = 300, 20
# The default number of samples of up to EXACT dimensions, and of more.
_MANY, _FEW = 64, 8


@dataclass(frozen=True)
class Likelihood:
    """Compute the log-density of data that a trained model has not seen."""

    checkpoint: Checkpoint
    data: OwnData = None
    split: HeldOutSplit = None
    condition: OwnColumns = ()
    size: Size = None
    first: int = 0
    """The position of the first sample in the data, counted from 0."""
    n: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="INT", help_behavior_hint="(default: 64; 8 of more than 64 dimensions)"
        ),
    ] = None
    """The number of samples, at least 1."""
    method: Literal["auto", "exact", "hutchinson"] = "auto"
    """How the trace of the Jacobian is computed: exact; hutchinson, by random probes; or auto,
    which is exact up to 64 dimensions. If there are at least as many probes as dimensions, every
    method is exact."""
    probes: int = 16
    """The number of random probes for each sample; with fewer than 8 the error is not estimated."""
    at: Literal["data", "eps"] = "data"
    """The density that is computed. data: the density of the data. eps: the density of the data
    with the smallest noise; the model is not extrapolated to noise scales that it was not trained
    on.
    """
    rtol: Annotated[
        float | None,
        tyro.conf.arg(
            metavar="FLOAT",
            help_behavior_hint="(default: 1e-4 with the exact trace, 1e-3 with random probes)",
        ),
    ] = None
    """The tolerance of the solver, positive: for the relative error, and for the absolute error of
    the state (in units of its scale) and of the log-density (in nats)."""
    error: Literal["auto", "full", "estimate"] = "auto"
    """How the error of the solver is found. full: solve a second time, with another tolerance.
    estimate: faster and less reliable. auto: full with the exact trace, and estimate with random
    probes, because their own error is far larger."""
    seed: Seed = 0
    batch_size: BatchSize = 64
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")
    ] = None
    """A .csv file with a line for each sample: its position in the data, counted from 0, its
    log-density, and the error of the log-density, both in nats."""

    def run(self) -> None:
        """Compute the log-densities, and print their mean."""
        if self.n is not None:
            check_integer("n", self.n, 1)
        check_integer("batch_size", self.batch_size, 1)
        check_integer("first", self.first, 0)
        if self.rtol is not None:
            check_range("rtol", self.rtol, "(0, inf)")
        if self.out is not None:
            read = (self.data or "", *self.condition)
            check_out(self.out, (".csv",), read=read, of=self.checkpoint)
        model = model_of(self.checkpoint).to(distributed.device())
        about = asked(self, model)
        x, given, transform = self._prepared(about.data, about.source, model)
        start = time.perf_counter()
        alpha, size = float(model.sde.alpha(_eps(model))), x.shape[1:].numel()
        exact = self.method == "exact" or (self.method == "auto" and size <= EXACT)
        exact = exact or size <= self.probes
        rtol = self.rtol or (1e-4 if exact else 1e-3)
        error: Check = self.error if self.error != "auto" else "full" if exact else "estimate"
        self._foretell(model, x, given, size if exact else self.probes, error)
        found = log_prob(
            model,
            model.sde,
            x if self.at == "data" else alpha * x,
            t=None if self.at == "data" else model.sde.eps,
            method=self.method,
            probes=self.probes,
            rtol=rtol,
            atol=rtol,
            error=error,
            seed=self.seed,
            first=self.first,
            batch_size=self.batch_size,
            condition=given,
        )
        if self.at == "eps":
            found = replace(found, value=found.value + size * math.log(alpha))
        _report(found, x, transform, time.perf_counter() - start)
        self._compare(found, x, model)
        if self.out is not None:
            rows = zip(found.value.tolist(), found.error.tolist(), strict=True)
            lines = [f"{self.first + i},{v!r},{e!r}\n" for i, (v, e) in enumerate(rows)]
            checkpoint.write_bytes(self.out, "".join(["row,nats,error\n", *lines]).encode())
            show(f"each          in {self.out}")
        then("compare samples with data", "evaluate", *words_of(self))

    def _foretell(
        self, model: ScoreModel, x: Tensor, given: Condition | None, rows: int, error: Check
    ) -> None:
        """Print how long the computation may take, and options that are faster or more exact."""
        few = x[: self.batch_size]
        with torch.no_grad(), evaluating(model):
            some = None if given is None else given.rows(slice(len(few)))
            for _ in range(2):  # the first call takes longer than later calls
                start = time.perf_counter()
                model(few, model.sde.T / 2, some)
                spent = time.perf_counter() - start
        solved = 1.8 if error == "full" else 1.0
        spent *= -(-len(x) // self.batch_size) * rows * _EVALUATIONS * solved
        if spent > _LONG:
            ways = ["fewer --probes"] if rows < x.shape[1:].numel() else []
            ways += ["--method hutchinson"] if not ways and rows > self.probes else []
            ways += ["--error estimate"] if error == "full" else []
            more = ["more --probes"] if rows < x.shape[1:].numel() else []
            more += ["--error full"] if error == "estimate" else []
            exacter = f"; {' and '.join(more)} are slower and more exact" if more else ""
            tell(
                f"this may take about {duration(spent)}, and less with "
                f"{', '.join([*ways, 'a smaller --n'])}{exacter}"
            )

    def _compare(self, found: LogProb, x: Tensor, model: ScoreModel) -> None:
        """Print the density in the data's units, and compare it with the density of a Gaussian."""
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
        mean, spread = float(gain.mean()), _chosen(gain) + _mean(found.error)
        by = f"{abs(mean):.3g} ± {spread:.2g} nats"
        given = "" if not facts(model).conditions else ", which ignores conditions"
        beside = f"a Gaussian with the mean and the variances of the training data{given}"
        if not math.isfinite(spread):
            text = f"not comparable with that under {beside}: its error is not known"
        elif abs(mean) <= spread:
            text = f"as under {beside}, within {spread:.2g} nats, as far as these samples show"
        elif mean > 0:
            text = f"{by} higher than under {beside}: the model has learnt more than these"
        else:
            text = f"{by} lower than under {beside}: the model has learnt little; train for longer"
        show(f"verdict       the log-density is {text}")

    def _prepared(
        self, data: Data, source: str, model: ScoreModel
    ) -> tuple[Tensor, Condition | None, Dequantization | None]:
        """Return the samples, their conditions, and the dequantization of quantized samples."""
        few = math.prod(model.event_shape) > EXACT
        rows = slice(self.first, self.first + (self.n or (_FEW if few else _MANY)))
        x = data.batch(rows).float()
        if not len(x):
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
    computed, one = _mean(found.error), size * math.log(2)
    known = "" if computed <= one else "not known: "
    show(f"{n} {'sample' if n == 1 else 'samples'} of {size} dimensions in {seconds:.1f} s")
    what = "on average, 95 %" if n > 1 else "95 %"
    error = _chosen(found.value) + computed
    nats = float(found.value.mean())
    show(f"log-density   {known}{nats:.2f} ± {error:.2g} nats {what}; higher is better")
    if transform is None:
        show("bits per dim  none: the data are not quantized")
    else:
        bits = bits_per_dim(found, x, data_transform=transform)
        error = _chosen(bits) + computed / one
        show(f"bits per dim  {known}{float(bits.mean()):.4f} ± {error:.2g} {what}; lower is better")
    choice = f"{_chosen(found.value):.2g} for the choice of the samples" if n > 1 else (
        "0 for the choice of the samples, since there is one"
    )  # fmt: skip
    show(f"of these ±    {choice}, {computed:.2g} for the computation, in nats")
    if known:
        show(
            f"{'':14}this error is more than one bit in each dimension: take more --probes (8 at "
            "least), a smaller --rtol, or a better model"
        )
    show(
        f"computed to   ± {_mean(found.error):.2g} nats for a sample on average, with 95 % "
        "probability; its parts:"
    )
    for name, part in found.parts.items():
        show(f"{'':14}{_mean(part):<8.2g} {part_label(name)}")
    nfe = found.nfe.double()
    show(f"evaluations   {float(nfe.mean()):.0f} for each sample, at most {int(nfe.max())}")


def _eps(model: ScoreModel) -> Tensor:
    return torch.tensor(model.sde.eps, dtype=torch.float64)


def _chosen(value: Tensor) -> float:
    """Return half the width of Student's 95 % interval of the mean over samples, or 0 for one."""
    n = len(value)
    if n == 1:
        return 0.0
    return float(quantile(torch.tensor(n - 1.0)) * value.std()) / math.sqrt(n)


def _mean(value: Tensor) -> float:
    return float(value.mean())

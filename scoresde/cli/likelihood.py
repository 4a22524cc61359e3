"""Define `scoresde likelihood`: compute the log-density of data, in nats and bits per dimension."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

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
from scoresde.likelihood.result import part_label
from scoresde.progress import showing
from scoresde.score import ScoreModel
from scoresde.sde import Condition
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
    tol: float = 1e-4
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
        check_range("tol", self.tol, "(0, inf)")
        model = model_of(self.checkpoint).to(distributed.device())
        about = asked(self, model)
        x, given, transform = self._prepared(about.data, about.source, model)
        start = time.perf_counter()
        parts = []
        starts = range(0, len(x), self.batch_size)
        # the number of evaluations of adaptive steps is not known in advance
        with showing(None, "likelihood", unit="evaluation") as bar:
            hook = model.net.register_forward_hook(lambda *_: bar.update())
            try:
                for k, i in enumerate(starts, 1):
                    bar.note(batch=k, of=len(starts))
                    parts.append(self._of(model, x, given, slice(i, i + self.batch_size)))
            finally:
                hook.remove()
        _report(LogProb.cat(parts), x, transform, time.perf_counter() - start)
        mean = model.mean.expand(model.event_shape)
        mismatch = model.sde.prior_mismatch(mean, model.var)
        show(
            "prior         a Gaussian with the moments of the data; the default prior differs by "
            f"{mismatch:.3g} (Wasserstein-2)"
        )
        show(f"units         of the model: {in_words(model.transform)}")
        then("compare samples with data", "evaluate", *words_of(self))

    def _of(self, model: ScoreModel, x: Tensor, given: Condition | None, rows: slice) -> LogProb:
        """Return the log-densities of some of the samples."""
        return log_prob(
            model,
            model.sde,
            x[rows],
            method=self.method,
            probes=self.probes,
            rtol=self.tol,
            atol=self.tol,
            error=self.error,
            seed=self.seed,
            first=self.first + rows.start,
            condition=None if given is None else given.rows(rows),
        )

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
    show(f"log-density   {nats:.2f} nats on average, ± {error:.2f}, its standard error")
    if transform is None:
        show("bits per dim  none: the data are not quantized")
    else:
        bits = bits_per_dim(found, x, data_transform=transform)
        spread = float(bits.std()) / math.sqrt(n)
        show(f"bits per dim  {float(bits.mean()):.4f} on average, ± {spread:.4f}")
    show(
        f"computed to   ± {_mean(found.error):.2g} nats for one sample on average, a bound that "
        "holds for 95 %, of which"
    )
    for name, part in found.parts.items():
        show(f"{'':14}{_mean(part):<8.2g} {part_label(name)}")
    nfe = found.nfe.double()
    show(f"evaluations   {float(nfe.mean()):.0f} for each sample, at most {int(nfe.max())}")


def _mean(value: Tensor) -> float:
    return float(value.mean())

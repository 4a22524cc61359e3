"""`scoresde likelihood`: how probable a model finds data, in nats and bits per dimension."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from tqdm import tqdm

from scoresde.checks import seeded
from scoresde.cli.held_out import conditions_of, held_out, warn_of_training
from scoresde.cli.options import Checkpoint, Columns, HeldOutSplit, Size, Source
from scoresde.cli.terminal import show
from scoresde.data import Data
from scoresde.errors import InvalidValueError
from scoresde.likelihood import Dequantization, LogProb, bits_per_dim, log_prob
from scoresde.likelihood.result import told
from scoresde.score import ScoreModel
from scoresde.sde import Condition

__all__ = ["Likelihood"]


@dataclass(frozen=True)
class Likelihood:
    """Say how probable a trained model finds data it has not seen."""

    checkpoint: Checkpoint
    data: Source
    split: HeldOutSplit = None
    condition: Columns = ()
    size: Size = None
    first: int = 0
    """The number of the first sample of the data."""
    n: int = 64
    """How many samples, at least 2."""
    method: Literal["auto", "exact", "hutchinson"] = "auto"
    """The trace: exact, by random probes, or exact up to 64 dimensions."""
    probes: int = 16
    """Random probes for each sample; below 8 they have no error bar."""
    tol: float = 1e-4
    """The solver's tolerance, positive."""
    error: Literal["full", "estimate"] = "full"
    """The solver's error: full solves twice; estimate is faster, and less sure."""
    seed: int = 0
    """The randomness of the probes and of dequantisation, an integer from 0 to 2**64 - 1."""
    batch_size: int = 64
    """Samples at once, at least 1."""

    def run(self) -> None:
        """Compute and print."""
        model = ScoreModel.from_pretrained(self.checkpoint)
        data = held_out(self.data, self.split, model, condition=self.condition, size=self.size)
        warn_of_training(self.checkpoint, self.data, self.split)
        x, given, transform = self._prepared(data, model)
        start = time.perf_counter()
        parts = []
        for i in tqdm(
            range(0, len(x), self.batch_size), desc="likelihood", leave=False, disable=None
        ):
            rows = slice(i, i + self.batch_size)
            parts.append(
                log_prob(
                    model,
                    model.sde,
                    x[rows],
                    method=self.method,
                    probes=self.probes,
                    rtol=self.tol,
                    atol=self.tol,
                    error=self.error,
                    seed=self.seed,
                    first=self.first + i,
                    condition=None if given is None else given.rows(rows),
                )
            )
        _report(LogProb.cat(parts), x, transform, time.perf_counter() - start)
        mean = model.mean.expand(model.event_shape)
        mismatch = model.sde.prior_mismatch(mean, model.var)
        show(
            f"prior         the data's moments; without them it would be off by {mismatch:.3g} (W2)"
        )
        show(f"units         those of the model, after {model.transform}")

    def _prepared(
        self, data: Data, model: ScoreModel
    ) -> tuple[Tensor, Condition | None, Dequantization | None]:
        """The samples that were asked for, spread over their cells, and their conditions."""
        if self.n < 2 or self.batch_size < 1 or self.first < 0:
            raise InvalidValueError(
                f"need n >= 2, batch-size >= 1 and first >= 0, got {self.n}, {self.batch_size} "
                f"and {self.first}"
            )
        rows = slice(self.first, self.first + self.n)
        x = data.batch(rows).float()
        if len(x) < 2:
            raise InvalidValueError(
                f"{self.data} has {len(data)} samples; --first {self.first} leaves {len(x)}"
            )
        given = conditions_of(data[rows], self.data, model)
        if data.transform.levels is None:
            return x, given, None
        spread = Dequantization.of(data.transform)
        return spread(spread.level(x), generator=seeded(self.seed)), given, spread


def _report(found: LogProb, x: Tensor, transform: Dequantization | None, seconds: float) -> None:
    n, size = len(found.value), found.dimensions
    nats, error = found.mean()
    show(f"{n} samples of {size} dimensions in {seconds:.1f} s")
    show(f"log-density   {nats:.2f} ± {error:.2f} nats")
    if transform is None:
        show("bits per dim  none: the data come without the levels they were made of")
    else:
        bits = bits_per_dim(found, x, data_transform=transform)
        show(f"bits per dim  {float(bits.mean()):.4f} ± {float(bits.std()) / math.sqrt(n):.4f}")
    show(f"uncertain     ± {_mean(found.error):.2g} nats for one sample, 95 %, of which")
    for name, part in found.parts.items():
        show(f"{'':14}{_mean(part):<8.2g} {told(name)}")
    nfe = found.nfe.double()
    show(f"evaluations   {float(nfe.mean()):.0f} for each sample, at most {int(nfe.max())}")


def _mean(value: Tensor) -> float:
    return float(value.mean())

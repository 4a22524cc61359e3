r"""Evaluate the score under audit at one noise scale, and draw samples with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.audit.agreement import Agreement, agreement
from scoresde.audit.identities import products
from scoresde.checks import seeded
from scoresde.noise import Noise
from scoresde.samplers import DPMSolverPP, Fast, Sampler
from scoresde.sampling import Run
from scoresde.sde import SDE, Condition, Moments, Score, facts

__all__ = ["Evaluated", "Subject"]


@dataclass(frozen=True, eq=False)
class Evaluated:
    r"""Hold the evaluations at one noise scale, each averaged over the noises $z$ and $-z$.

    Attributes:
        table: The products of `scoresde.audit.identities.products`, `(n, 6)`.
        errors: The errors $e$ of the predicted noise, `(n, D)`.
        floor: The squared error of the exact prediction per dimension, `(n,)`, or `None`.
        fisher: The squared distance between the score's prediction and the exact prediction, per
            dimension, `(n,)`, or `None`.
    """

    table: Tensor
    errors: Tensor
    floor: Tensor | None
    fisher: Tensor | None

    @property
    def losses(self) -> Tensor:
        r"""Return $\|e\|^2$ per dimension, `(n,)`."""
        return self.table[:, 0]


@dataclass(frozen=True, eq=False)
class Subject:
    """Hold a score, its process and data; the arguments are those of `audit`.

    `perfect(x, t, rows)` returns the exact prediction of the noise for states `x`, whose clean
    samples are the rows `rows` of the data. It is None if the exact score is unknown.
    """

    score: Score
    sde: SDE
    x: Tensor
    condition: Condition | None
    perfect: Callable[[Tensor, Tensor, slice], Tensor] | None
    seed: int
    batch_size: int
    advance: Callable[[], object]

    def evaluated(self, t: Tensor) -> Evaluated:
        """Evaluate the score at time `t` on every sample, with two opposite noises."""
        alpha, sigma = float(self.sde.alpha(t)), float(self.sde.sigma(t))
        noise, n, total = Noise.of(self.seed, len(self.x)), len(self.x), self.x.double().sum(0)
        tables, errors, floors, fishers = [], [], [], []
        for rows in self._chunks(len(self.x)):
            score = self.sde.reverse(self.score, condition=self._given(rows)).score
            clean, draw = self.x[rows], noise[rows].normal(self.x[rows], t)
            # the mean of the other samples; that of all samples would bias the products by 1/n
            centre = (total - clean) / (n - 1)
            for z in (draw, -draw):
                state = alpha * clean + sigma * z
                predicted, z = -sigma * score(state, t).double(), z.double()
                u = (state.double() - alpha * centre) / sigma
                tables.append(products(z, predicted, u))
                errors.append((z - predicted).reshape(len(z), -1))
                if self.perfect is not None:
                    exact = self.perfect(state.double(), t, rows)
                    floors.append(_square(z - exact))
                    fishers.append(_square(predicted - exact))
                self.advance()
        known = self.perfect is not None
        return Evaluated(
            _paired(tables), _paired(errors),
            _paired(floors) if known else None, _paired(fishers) if known else None,
        )  # fmt: skip

    def draw(self, grid: Tensor, marks: Tensor, samples: int) -> list[Agreement]:
        """Return the distance between samples of the flow and of the SDE at each marked time."""
        flow = self._states(Fast(order=3), grid, marks, samples, 0)
        other = self._states(DPMSolverPP(tau=1.0), grid, marks, samples, samples)
        generator = seeded(self.seed)
        return [agreement(a, b, generator) for a, b in zip(flow, other, strict=True)]

    def _states(
        self, sampler: Sampler, grid: Tensor, marks: Tensor, samples: int, first: int
    ) -> list[Tensor]:
        """Return the states at each marked time, `(samples, *)` each."""
        moments = facts(self.score).moments or Moments(
            self.x.mean(0), var=float((self.x - self.x.mean(0)).double().square().mean())
        )
        wanted = set(marks.tolist())
        parts = []
        for rows in self._chunks(samples):
            run = Run.of(
                self.score, self.sde, sampler, n=rows.stop - rows.start,
                shape=self.x.shape[1:], times=grid, seed=self.seed, first=first + rows.start,
                moments=moments, denoise=False, dtype=self.x.dtype, device=self.x.device,
                condition=self._given(rows), progress=False,
            )  # fmt: skip
            kept = []
            for i, state in enumerate(run.states()):
                if i in wanted:
                    kept.append(state.x)
                self.advance()
            parts.append(kept)
        return [torch.cat(states) for states in zip(*parts, strict=True)]

    def _chunks(self, n: int) -> Iterator[slice]:
        for first in range(0, n, self.batch_size):
            yield slice(first, min(first + self.batch_size, n))

    def _given(self, rows: slice) -> Condition | None:
        """Return the conditions of a part of the samples."""
        return None if self.condition is None else self.condition.rows(rows)


def _square(gap: Tensor) -> Tensor:
    return gap.square().reshape(len(gap), -1).mean(1)


def _paired(parts: list[Tensor]) -> Tensor:
    """Average over $z$ and $-z$; `parts` has the value for $z$, then for $-z$, and so on."""
    return torch.cat([(a + b) / 2 for a, b in zip(parts[::2], parts[1::2], strict=True)])

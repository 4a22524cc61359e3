"""A likelihood and its uncertainties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import InvalidValueError

__all__ = ["LogProb", "effective_sample_size"]


@dataclass(frozen=True, eq=False)
class LogProb:
    """Log-densities of a batch, with what is uncertain about each.

    Attributes:
        value: The log-densities in nats, `(B,)` float64.
        stderr: The standard error of the random trace or bound, `(B,)`; 0 where it is exact,
            infinite where one draw tells nothing of its spread.
        solver_error: An estimate of the solver's error, `(B,)`.
        correction: What of `value` was added for the way from eps to the data, `(B,)`. Where it is
            not small against 1, eps is too large for the density of the data.
        nfe: Evaluations of the network for each sample, `(B,)`.
        dimensions: The size of one sample.
    """

    value: Tensor
    stderr: Tensor
    solver_error: Tensor
    correction: Tensor
    nfe: Tensor
    dimensions: int

    def mean(self) -> tuple[float, float]:
        """The mean over the batch and its standard error, that of a sample of the data."""
        n = len(self.value)
        spread = float(self.value.std()) / math.sqrt(n) if n > 1 else math.inf
        return float(self.value.mean()), spread

    @staticmethod
    def cat(parts: Sequence[LogProb]) -> LogProb:
        """The log-densities of several batches as those of one."""
        names = [field.name for field in fields(LogProb) if field.name != "dimensions"]
        joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return LogProb(**joined, dimensions=parts[0].dimensions)


@door
def effective_sample_size(log_weights: Tensor) -> float:
    r"""$(\sum w)^2 / \sum w^2$: how many draws of the target the weighted ones are worth.

    For samples of `sample_with_log_prob` and a target known up to a constant, the logarithms of the
    importance weights are `target.log_prob(x) - found.value` (Kong 1992).

    Args:
        log_weights: $\log w$, `(n,)`, up to one constant.

    Returns:
        A number from 1 to n.

    Raises:
        InvalidValueError: There is no weight, or one is NaN or plus infinity, or all are zero.
    """
    log_w = log_weights.double().flatten()
    bad = log_w.isnan() | (log_w == math.inf)
    if len(log_w) == 0 or bad.any() or (log_w == -math.inf).all():
        raise InvalidValueError(f"log-weights must be numbers and not all of weight 0, got {log_w}")
    return float(torch.exp(2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)))

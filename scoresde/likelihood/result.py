"""Hold log-densities and their errors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from scoresde.checks import door
from scoresde.errors import InvalidValueError, NonFiniteError, ShapeError
from scoresde.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LogProb", "effective_sample_size", "half_width", "mean", "part_label", "quantile"]

_PARTS = {
    "solver": "steps of the flow",
    "probes": "the trace, estimated",
    "heat": "the correction from eps to the data",
    "prior": "the law at T",
    "draws": "the random draws (latent codes, or times)",
}


@dataclass(frozen=True, eq=False, repr=False)
class LogProb(Result):
    """Hold the log-densities of a batch and the parts of their errors.

    Attributes:
        value: The log-densities in nats, `(B,)` float64.
        parts: The 95 % half-width `(B,)` of each part of the error, by name.
        nfe: The evaluations of the score for each sample, `(B,)`.
        dimensions: The number of entries of one sample.
    """

    value: Tensor
    parts: Mapping[str, Tensor]
    nfe: Tensor
    dimensions: int

    @property
    def error(self) -> Tensor:
        """Return the half-width `(B,)` of a 95 % interval about `value`, the sum of `parts`."""
        return sum(self.parts.values(), torch.zeros_like(self.value))

    def __str__(self) -> str:
        if not len(self.value):
            return "no log-densities"
        half_width, one = float(self.error.mean()), len(self.value) == 1
        parts = [
            f"  {float(part.mean()):<8.2g} {part_label(name)}" for name, part in self.parts.items()
        ]
        count = f"{len(self.value):,} {'log-density' if one else 'log-densities'}"
        plural = "" if self.dimensions == 1 else "s"
        text = [f"{count} in {self.dimensions} dimension{plural}"]
        which = ", of which" if parts else ""
        if one:
            text.append(f"{float(self.value):.5g} ± {half_width:.2g} nats, 95 %{which}")
        else:
            choice, computed = self.spread()
            text += [
                f"mean {self.mean()[0]:.5g} ± {choice + computed:.2g} nats, 95 %: {choice:.2g} for "
                f"the choice of the samples, {computed:.2g} for the computation",
                f"from {float(self.value.min()):.5g} to {float(self.value.max()):.5g}",
                f"the 95 % interval of one log-density is ± {half_width:.2g} nats on average"
                f"{which}",
            ]
        return "\n".join([*text, *parts])

    def _entries(self) -> dict[str, Any]:
        parts = {name: part.tolist() for name, part in self.parts.items()}
        entries = {"value": self.value.tolist(), "error": self.error.tolist(), "parts": parts}
        return {**entries, "nfe": self.nfe.tolist(), "dimensions": self.dimensions}

    def plot(self) -> Figure:
        """Draw log-densities with errors (more than 40 as a histogram), and the errors' parts.

        Raises:
            ShapeError: There is no log-density.
        """
        from scoresde.likelihood.picture import picture

        return picture(self)

    def mean(self) -> tuple[float, float]:
        """Return the mean over the batch, and its standard error for the mean over all data.

        The standard error is infinite for one sample.

        Raises:
            ShapeError: The batch is empty.
        """
        n = len(self.value)
        if n == 0:
            raise ShapeError("there is no log-density to average; give at least one sample")
        standard_error = float(self.value.std()) / math.sqrt(n) if n > 1 else math.inf
        return float(self.value.mean()), standard_error

    def spread(self) -> tuple[float, float]:
        """Return two 95 % half-widths of the mean; their sum accounts for both sources of error.

        The first is due to the random choice of the samples, and infinite for one sample. The
        second is due to the errors of the computation, which may all have the same sign.
        """
        return 1.96 * self.mean()[1], float(self.error.mean())

    def checked(self) -> LogProb:
        """Raise NonFiniteError if a value is NaN or infinite, else return the object itself."""
        if not self.value.isfinite().all():
            rows = (~self.value.isfinite()).nonzero().flatten().tolist()
            more = f" (the first 8 of {len(rows)})" if len(rows) > 8 else ""
            raise NonFiniteError(
                f"the log-density of samples {rows[:8]}{more} is NaN or infinite, for example "
                "since the point or the score there is so large that its square overflows; leave "
                "such points out"
            )
        return self

    @staticmethod
    def cat(batches: Sequence[LogProb]) -> LogProb:
        """Return the log-densities of several batches as one."""
        first = batches[0]
        return LogProb(
            torch.cat([batch.value for batch in batches]),
            {name: torch.cat([batch.parts[name] for batch in batches]) for name in first.parts},
            torch.cat([batch.nfe for batch in batches]),
            first.dimensions,
        )


def part_label(part: str) -> str:
    """Return the name of a part of the error and its meaning, for texts and pictures."""
    return f"{part}: {_PARTS[part]}" if part in _PARTS else part


def half_width(estimates: Tensor) -> Tensor:
    r"""Return the half-width `(B,)` of a 95 % interval for the mean of K estimates `(B, K)`.

    The half-width is that of Student's interval, $t_{K-1,\,.975}\; s / \sqrt K$. For fewer than 8
    estimates it is infinite: the estimates are not normal, and so few often miss a rare large one.
    """
    k = estimates.shape[1]
    if k < 8:
        return torch.full_like(estimates[:, 0], math.inf)
    # row by row, since the order of summation in torch.std depends on the batch
    rows = estimates.contiguous()
    square = (rows - rows.mean(1, keepdim=True)).square().sum(1)
    return quantile(square.new_tensor(k - 1)) * (square / (k * (k - 1))).sqrt()


def mean(estimates: Tensor) -> Tensor:
    """Return the mean `(B,)` of estimates `(K, B)`, rounded in the same way for every batch."""
    return estimates.T.contiguous().mean(1)


def quantile(freedom: Tensor) -> Tensor:
    """Return the 97.5 % quantile of Student's t distribution for these degrees of freedom."""
    from scipy.special import stdtrit

    return torch.as_tensor(stdtrit(freedom.cpu().double().numpy(), 0.975)).to(freedom.device)


@door
def effective_sample_size(log_weights: Tensor) -> float:
    r"""Return $(\sum w)^2 / \sum w^2$, the effective number of draws of importance sampling.

    For example, `x, found = sample_with_log_prob(...)` gives the logarithms of importance weights
    `target.log_prob(x) - found.value` for a target density that is known up to a factor (Kong
    1992).

    Args:
        log_weights: $\log w$, `(n,)`, up to an additive constant.

    Returns:
        A number from 1 to n.

    Raises:
        InvalidValueError: There are no weights, a log-weight is NaN or plus infinity, or all
            weights are zero.
    """
    log_w = log_weights.double().flatten()
    bad = log_w.isnan() | (log_w == math.inf)
    if len(log_w) == 0 or bad.any() or (log_w == -math.inf).all():
        raise InvalidValueError(
            f"log-weights must be finite or -inf, and not all -inf, got {log_w}; check the "
            "log-densities"
        )
    log_w = log_w - log_w.max()  # twice a large log-weight may overflow
    return float(torch.exp(2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)))

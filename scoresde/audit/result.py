"""Hold the result of an audit, and show it as a table, JSON, a picture and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from scoresde.audit.agreement import Agreement
from scoresde.audit.identities import ROUNDING, Estimate, Findings
from scoresde.precision import full_precision
from scoresde.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Audit", "Level", "Memory"]

# The probability that an audit of an exact score has a failed test.
_FALSE_ALARMS = 0.01
# For each test, the fault of a score that fails the test, in words.
_FAULTS = {
    "calibration": "misjudges its own error",
    "stein": "fails Stein's identity",
    "slope": "denoises with a slope other than 1",
    "bias": "has a mean other than 0",
    "linear": "loses to a linear denoiser",
    "memory": "has memorised its training data",
}
# An excess loss is called small if it costs fewer nats per dimension than this.
_SMALL = 0.01
# Two-sided tests, which fail if their result is much too large or much too small.
_TWO_SIDED = {"calibration", "stein", "slope"}


@dataclass(frozen=True)
class Memory:
    """Measure memorisation by the losses of training samples and of held-out samples.

    Attributes:
        loss: The loss of training samples.
        floor: The smallest possible loss on training samples, which is the loss of the exact score
            of their empirical distribution.
        gap: The loss of held-out samples minus `loss`; 0 without memorisation.
        share: `gap` divided by its largest possible value, the loss of held-out samples minus
            `floor`.
    """

    loss: Estimate
    floor: Estimate
    gap: Estimate
    share: Estimate


@dataclass(frozen=True)
class Level:
    r"""Hold the results at one noise scale.

    Losses are squared errors of the predicted noise, averaged over dimensions.

    Attributes:
        t: The time.
        ratio: $\sigma / \alpha$ at this time.
        log_snr: $\log(\alpha^2 / \sigma^2)$.
        loss: $E\|\sigma s + z\|^2$ of the held-out samples.
        findings: The tests that do not need the exact score.
        linear: The loss of a linear denoiser that is fitted to the other half of the samples.
        floor: The smallest possible loss, if the distribution of the data is known.
        fisher: $E\|\sigma (s - \nabla\log p_t)\|^2$, if the distribution of the data is known.
        memory: The measures of memorisation, if training data are given.
        agreement: The distance between samples of the reverse SDE and samples of the flow.
        z: The result of each test by name, about standard normal if the score is exact. That of
            "linear" is below 0 if the score is better than a linear denoiser.
        limit: A test fails if its result in `z` exceeds this number; a two-sided test fails if the
            absolute value exceeds it.
    """

    t: float
    ratio: float
    log_snr: float
    loss: Estimate
    findings: Findings
    linear: Estimate
    floor: Estimate | None
    fisher: Estimate | None
    memory: Memory | None
    agreement: Agreement
    z: Mapping[str, float]
    limit: float

    @property
    def failed(self) -> tuple[str, ...]:
        """Return the names of the tests that failed."""
        off = {k: abs(v) if k in _TWO_SIDED else v for k, v in self.z.items()}
        return tuple(name for name in _FAULTS if off[name] > self.limit)

    @property
    def excess(self) -> Estimate:
        """Return the loss minus the smallest possible loss, or a lower bound of this difference."""
        if self.fisher is not None:
            return self.fisher
        return max(self.findings.avoidable, self.findings.bias, key=lambda e: e.value)


@dataclass(frozen=True, repr=False)
class Audit(Result):
    """Hold the results at all noise scales, in order from the largest to the smallest.

    Attributes:
        levels: The result of each noise scale.
        sde: The process, as text.
        dimensions: The number of entries of one event.
        n: The number of held-out samples.
        samples: The number of samples drawn by the SDE, and again by the flow.
        nfe: The number of evaluations of the score for each drawn sample.
    """

    levels: tuple[Level, ...]
    sde: str
    dimensions: int
    n: int
    samples: int
    nfe: int

    @property
    def worst(self) -> Level | None:
        """Return the noise scale with the largest excess, or None.

        If only a lower bound of the excess is known, noise scales that pass all tests are ignored.
        """
        known = [a for a in self.levels if a.fisher is not None and a.fisher.value > ROUNDING]
        failed = [a for a in self.levels if a.failed]
        return max(known or failed, key=lambda a: a.excess.value, default=None)

    @property
    def parted(self) -> Level | None:
        """Return the largest noise scale at which the samples of SDE and flow differ, or None."""
        return next((a for a in self.levels if a.agreement.z > a.limit), None)

    @property
    @full_precision()
    def nats(self) -> float:
        r"""Return the likelihood lost in nats, $\tfrac12 D \int \text{excess}\, d\lambda$.

        The variational bound integrates the loss over the log-SNR $\lambda$ (Kingma et al. 2021,
        eq. 15, arXiv:2107.00630), here by the trapezoidal rule.
        """
        x = torch.tensor([a.log_snr for a in self.levels], dtype=torch.float64)
        y = torch.tensor([a.excess.value for a in self.levels], dtype=torch.float64)
        return 0.5 * self.dimensions * float(torch.trapezoid(y, x))

    def verdict(self) -> str:
        """Return a summary: is the score good, where is it worst, and do SDE and flow agree?

        A cost below .01 nats per dimension counts as small.
        """
        worst = self.worst
        if worst is None:
            text = "Good: no test failed; these samples show no error."
        else:
            why = ", ".join(_FAULTS[name] for name in worst.failed) or "passes the tests"
            bound = "" if worst.fisher else "at least "
            cost = max(self.nats, 0)
            small = cost < _SMALL * self.dimensions
            text = (
                f"{'Nearly right, but for' if small else 'Off in'} {self._where(worst)}: worst at "
                f"sigma/alpha = {worst.ratio:.3g}, where the score {why}; excess {bound}"
                f"{max(worst.excess.value, 0):.2g} of a loss of {worst.loss.value:.3g}. All noise "
                f"scales together cost {bound}about {cost:.2g} nats a sample, "
                f"{'which is little' if small else 'which samples may show'}."
            )
        parted = self.parted
        if parted is None:
            return f"{text} The SDE's samples and the flow's agree."
        return f"{text} The SDE's samples and the flow's differ from {parted.ratio:.3g} down."

    def _where(self, level: Level) -> str:
        """Name the feature of the samples that a noise scale determines."""
        first, last = self.levels[0].log_snr, self.levels[-1].log_snr
        place = (level.log_snr - first) / (last - first)
        what = ["the overall shape", "the shape at middle size", "the finest detail"]
        return f"{what[min(2, max(0, int(3 * place)))]} of the samples"

    def __str__(self) -> str:
        known, learnt = (v is not None for v in (self.levels[0].fisher, self.levels[0].memory))
        names = [
            "sigma/alpha", "loss", "floor" if known else "linear", "calibration", "Stein", "slope",
            "excess" if known else "excess >=", *["by heart"] * learnt, "SDE-ODE", "(floor)",
            "failed",
        ]  # fmt: skip
        rows = [names]
        for a in self.levels:
            f, below = a.findings, a.floor or a.linear
            rows.append(
                [
                    f"{a.ratio:.3g}", f"{a.loss.value:.3g}", f"{below.value:.3g}",
                    _pm(f.calibration), _pm(f.stein), _pm(f.slope), f"{a.excess.value:.1e}",
                    *([] if a.memory is None else [_pm(a.memory.share)]),
                    f"{a.agreement.value:.1e}", f"{a.agreement.floor:.1e}",
                    ", ".join(a.failed) or "-",
                ]
            )  # fmt: skip
        widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
        lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        head = (
            f"{self.sde}, {self.dimensions} dimensions; {self.n} samples of the data, "
            f"{self.samples} drawn with {self.nfe} evaluations each"
        )
        foot = (
            "loss: squared error of the predicted noise, good "
            f"{'at the floor' if known else 'at or below that of a linear denoiser'}; calibration, "
            "Stein and slope: 1 for an exact score, ± 95 %;\nexcess: the avoidable loss; SDE-ODE: "
            "the distance between samples of the SDE and of the flow, good below the (floor)"
        )
        return "\n".join([head, *lines, foot, self.verdict()])

    def _entries(self) -> dict[str, Any]:
        out = asdict(self)
        for entry, level in zip(out["levels"], self.levels, strict=True):
            entry |= {"failed": list(level.failed), "excess": asdict(level.excess)}
        worst = self.worst
        out |= {"worst": None if worst is None else worst.ratio, "nats": self.nats}
        return out | {"verdict": self.verdict()}

    def plot(self) -> Figure:
        """Draw five panels against sigma/alpha; see `scoresde.audit.picture`."""
        from scoresde.audit.picture import picture

        return picture(self)


def limit(levels: int) -> float:
    """Return the number above which a test fails; at most 1 % of exact scores fail some test."""
    count = levels * (len(_FAULTS) + len(_TWO_SIDED) + 1)
    share = torch.tensor(_FALSE_ALARMS / count, dtype=torch.float64)
    return -float(torch.special.ndtri(share))


def _pm(estimate: Estimate) -> str:
    return f"{estimate.value:.3f}±{1.96 * estimate.stderr:.3f}"

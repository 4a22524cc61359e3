r"""Compute log-densities of given samples, and draw samples together with their log-densities."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from scoresde.checks import (
    as_event,
    check_floating,
    check_integer,
    check_noise,
    check_range,
    door,
    named_device,
    outside,
)
from scoresde.data import Data
from scoresde.data.read_for import read_for
from scoresde.errors import InvalidValueError
from scoresde.likelihood.flow import Flow, error_of_two
from scoresde.likelihood.heat import to_data
from scoresde.likelihood.inputs import (
    check_density,
    check_input,
    moments_of,
    time,
    warn_of_units,
)
from scoresde.likelihood.percent import Percent
from scoresde.likelihood.prior import LawAtEnd, alike, read_moments
from scoresde.likelihood.result import LogProb, mean
from scoresde.likelihood.trace import ExactTrace, HutchinsonTrace, Trace
from scoresde.noise import Noise, seeds_of
from scoresde.ode import Tolerance
from scoresde.progress import showing
from scoresde.score import device_of, evaluating
from scoresde.sde import SDE, Condition, Moments, Score, expand, facts, process_of

__all__ = ["EXACT", "Check", "log_prob", "sample_with_log_prob"]

Method = Literal["auto", "exact", "hutchinson"]
Check = Literal["full", "estimate"]

# The largest dimension for which "auto" takes the exact trace, and the largest dimension for which
# moments are read from the score.
EXACT, _READABLE = 64, 1024


@door
def log_prob(
    score: Score,
    sde: SDE | None,
    x: Tensor | Data,
    *,
    t: float | None = None,
    method: Method = "auto",
    probes: int = 16,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    error: Check = "full",
    max_nfe: int = 10_000,
    seed: int = 0,
    first: int = 0,
    batch_size: int | None = None,
    condition: Mapping[str, Any] | None = None,
    moments: Moments | None = None,
    progress: bool | None = None,
) -> LogProb:
    r"""Return the log-density of samples with error bars, from the probability flow.

    Each sample has its own adaptive steps. So its value does not depend on the rest of the batch,
    up to the rounding of a network or of a product with a covariance. The error is the sum of four
    parts, each the half-width of a 95 % interval:

    - `"solver"`: the error of the ODE solver. The flow is solved a second time, by another method
      at four times the tolerance, with the first four probes. The error is a weighted sum of the
      difference of the two solutions and of the solver's own error estimate
      (`scoresde.likelihood.flow`). `error="estimate"` skips the second solution.
    - `"probes"`: the half-width of Student's interval over the random probes, infinite for fewer
      than 8 probes. It is reliable for 16 or more probes, if the Jacobian has full rank.
    - `"heat"`: the error of the correction from eps to the data (`scoresde.likelihood.heat`).
    - `"prior"`: the error of the density at `T`. This density is a Gaussian with the moments of the
      data, corrected by an integral of the score's deviation from that Gaussian
      (`scoresde.likelihood.prior`). The moments are the argument `moments`, or else the moments in
      the facts of the score, or else moments that are read from the score at `T`. They are not read
      from the score if there is a condition or if there are more than 1024 dimensions; then the
      Gaussian is `sde.prior()`. A warning is given if the correction (with a condition, the error
      of the correction) exceeds .05 nats times the square root of the number of dimensions.

    Args:
        score: A `ScoreModel`, or any callable `(x, t) -> score` that autograd can differentiate.
        sde: The process of the score; None takes the process in its facts.
        x: The points `(B, *)`, floating-point, in model units; the model is evaluated in their
            dtype. Or a `Data`: it is converted to model units, and its conditions are used.
        t: None for the density of the data; a time in [eps, T] for the density $p_t$.
        method: The method for the divergence. `"exact"` takes D vector-Jacobian products for each
            evaluation, `"hutchinson"` takes one product for each probe, and `"auto"` is exact up to
            64 dimensions. `"hutchinson"` with at least as many probes as dimensions is exact too.
        probes: The number of Rademacher probes, at least 1, which are fixed along the path.
        rtol: The solver's relative tolerance.
        atol: The absolute tolerance of the state (in units of its scale) and log-density (nats).
        error: `"full"` solves twice, at 1.8 times the cost; `"estimate"` is less reliable.
        max_nfe: The largest number of evaluations of a sample in one solution.
        seed: The seed of the probes; row i takes the probes of sample `first + i`.
        first: The sample index of the first row.
        batch_size: The number of rows computed at once, to limit memory; by default all.
        condition: The conditions that the score takes, one row for each sample.
        moments: The data's moments; by default as described for `"prior"`.
        progress: True shows a bar, False nothing; None shows a bar in a terminal or a notebook, and
            occasional lines elsewhere.

    Returns:
        Values, errors and evaluations. The 640 evaluations for the normalising constant at `T` are
        not counted. They are made once without a condition, and otherwise once for each different
        condition in a batch. The one evaluation that reads moments is not counted either.

    Raises:
        InvalidValueError, InvalidTypeError, ShapeError: An argument does not fit, or the score is
            guided, so that it is not the gradient of a log-density.
        NonFiniteError: `x`, the score or the result has a NaN or an infinity.
        ConvergenceError: A solution needs more than `max_nfe` evaluations.

    Warns:
        UserWarning: The correction at `T` is large; or `x` is so far from the data that it is
            probably in the user's units; or a network that was trained at levels is evaluated
            between them.

    Examples:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian([0.0, 1.0], std=[1.0, 0.5])
        >>> sde, x = scoresde.VPSDE(), torch.zeros(1, 2)
        >>> found = log_prob(target.at(sde), sde, x)
        >>> bool((found.value - target.log_prob(x)).abs() < found.error)
        True
    """
    check_density(score)
    x, condition = read_for(score, x, condition)
    sde, given = check_input(score, sde, x, condition)
    start = sde.eps if t is None else t
    check_range("t", start, f"[{sde.eps}, {sde.T}]")
    check_range("atol", atol, "(0, inf)")  # not 0, since a log-density may be 0
    check_integer("first", first, 0)
    size = len(x) if batch_size is None else check_integer("batch_size", batch_size, 1)
    solver, parts, gaps = Tolerance(rtol, atol, max_nfe), list[LogProb](), list[Tensor]()
    twice, of = error == "full", -(-len(x) // max(size, 1)) or 1
    with (
        evaluating(score),
        torch.no_grad(),
        showing(100, "log-densities", unit="percent", show=progress, delay=1.0) as bar,
    ):
        known = _moments(score, sde, x, given, moments)
        if t is None:
            warn_of_units(score, known, x)
        end = LawAtEnd.of(sde, known, x, seed)
        shared = None if given else end.constant(sde.reverse(score), x.dtype)
        for i in range(0, max(len(x), 1), max(size, 1)):
            rows = slice(i, i + size)
            some = None if given is None else given.rows(rows)
            by = _Divergence(method, probes, Noise.of(seed, len(x[rows]), first=first + i))
            trace = by.trace(x[rows], known)
            watch = Percent(bar, done=len(parts) / of, share=1 / of, twice=twice)
            flow = Flow(score, sde, some, known, x.dtype, trace, solver, watch=watch)
            part, gap = _log_prob(flow, end, shared, x[rows], t, twice=twice)
            parts.append(part)
            gaps.append(gap)
    found = LogProb.cat(parts).checked()
    # the data given a condition differ from the Gaussian of all data, so check only the error
    _check_end(found.parts["prior"] if given else torch.cat(gaps), math.prod(x.shape[1:]))
    return found


@door
def sample_with_log_prob(
    score: Score,
    sde: SDE | None,
    n: int = 1,
    *,
    shape: Sequence[int] | None = None,
    method: Method = "auto",
    probes: int = 16,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    error: Check = "full",
    max_nfe: int = 10_000,
    seed: int | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    first: int = 0,
    condition: Mapping[str, Any] | None = None,
    moments: Moments | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> tuple[Tensor, LogProb]:
    r"""Draw samples by the flow at eps, and compute their log-density there in the same solution.

    The log-density is that of the samples' distribution, the prior transported by the flow, also if
    the model is inexact. Importance weights need this density.

    Args:
        score: A score, as in `log_prob`.
        sde: The process of the score; None takes the process in its facts.
        n: The number of samples.
        shape: The shape of one sample; by default the shape in the score's facts.
        method: The method for the divergence, as in `log_prob`.
        probes: The number of probes of Hutchinson's estimate.
        rtol: The solver's relative tolerance.
        atol: The absolute tolerance, as in `log_prob`.
        error: As in `log_prob`, but the second solution runs from the draws back to the prior.
        max_nfe: The largest number of evaluations of a sample in one solution.
        seed: The seed; `scoresde.sample` with this seed starts from the same draws of the prior.
        generator: A generator in place of the seed, as in `scoresde.sample`.
        first: The sample index of the first row.
        condition: The conditions that the score takes, one row for each sample.
        moments: The data's moments, for the prior; by default as in `log_prob`.
        dtype: The dtype of the samples and of the evaluations.
        device: The device; by default the device of the score's networks.

    Returns:
        The samples `(n, *)` and their `LogProb`. Its error has only the parts `"solver"` and
        `"probes"`, since the draws at `T` follow the prior exactly.

    Raises:
        InvalidValueError: $\sigma = 0$ at eps, an argument is out of range, or the score is guided,
            so that it is not the gradient of a log-density.
        InvalidTypeError, ShapeError: An argument has a wrong type or shape.
        NonFiniteError: The score or the result has a NaN or an infinity.
        ConvergenceError: A solution needs more than `max_nfe` evaluations.
    """
    check_density(score)
    sde = process_of(score, sde)
    check_range("atol", atol, "(0, inf)")
    check_integer("n", n, 0)
    check_integer("first", first, 0)
    event: Any = facts(score).event_shape if shape is None else shape
    if event is None:
        raise InvalidValueError("the shape of a sample is unknown for this score; give shape=")
    event = as_event("shape", event)
    seeds, indices = seeds_of(n, seed, generator, first)
    noise = Noise(seeds, indices, horizon=sde.T)
    check_floating("dtype", dtype)
    check_noise(sde.sigma(time(sde.eps)), sde.eps, "choose eps > 0")
    where = device_of(score) if device is None else named_device(device)
    like = torch.empty(n, *event, dtype=dtype, device=where)
    _, given = check_input(score, sde, torch.zeros_like(like), condition)
    solver = Tolerance(rtol, atol, max_nfe)
    with evaluating(score), torch.no_grad():
        known = _moments(score, sde, like, given, moments)
        trace = _Divergence(method, probes, noise).trace(like, known)
        flow = Flow(score, sde, given, known, dtype, trace, solver)
        prior, t, last = sde.prior(known), time(sde.eps), time(sde.T)
        z = prior.sample(noise.normal(like.double(), math.inf))
        moved = flow.transport(z, last, t)
        values, solver_error, nfe = prior.log_prob(z) + moved.rise, moved.error, moved.nfe
        if error == "full":
            back = flow.at_lower_accuracy().transport(moved.x, t, last)
            other = prior.log_prob(back.x) - back.rise
            difference = mean(other - values[: len(other)])
            solver_error, nfe = error_of_two(solver_error, difference), nfe + back.nfe
    widths = {"solver": solver_error, "probes": trace.error(values.T)}
    return moved.x.to(dtype), LogProb(mean(values), widths, nfe, math.prod(event)).checked()


@dataclass(frozen=True)
class _Divergence:
    """Hold the settings of the method for the divergence of a score."""

    method: Method
    probes: int
    noise: Noise

    def __post_init__(self) -> None:
        check_integer("probes", self.probes, 1)

    def trace(self, x: Tensor, moments: Moments | None) -> Trace:
        """Return the method for samples `(B, *)`: exact, or Hutchinson's with their probes."""
        size, method = x.shape[1:].numel(), self.method
        if size <= self.probes or method == "exact" or (method == "auto" and size <= EXACT):
            return ExactTrace()
        independent = self.noise.fork(1)  # independent of the draw of the prior
        signs = [independent.normal(x, math.inf, k).sign() for k in range(self.probes)]
        return HutchinsonTrace(torch.stack(signs), moments)


def _moments(
    score: Score, sde: SDE, x: Tensor, condition: Condition | None, moments: Moments | None
) -> Moments | None:
    """Return the given moments, or else those in the score's facts, or read from the score."""
    known, event = moments_of(score, moments), tuple(x.shape[1:])
    if known is not None or condition or not 0 < math.prod(event) <= _READABLE:
        return known
    return read_moments(sde.reverse(score), event, x.dtype, x.device)


def _log_prob(
    flow: Flow, end: LawAtEnd, shared: Tensor | None, x: Tensor, t: float | None, *, twice: bool
) -> tuple[LogProb, Tensor]:
    """Return log-densities of samples `(B, *)`, and the deviation of p_T from its Gaussian."""
    sde, at, last = flow.sde, time(flow.sde.eps if t is None else t), time(flow.sde.T)
    data, size = x.double(), math.prod(x.shape[1:])
    y = data * expand(sde.alpha(at), data) if t is None else data
    moved = flow.transport(y, at, last)
    values, solver, nfe = end.law.log_prob(moved.x) - moved.rise, moved.error, moved.nfe
    if twice:
        rough = flow.at_lower_accuracy().transport(y, at, last)
        other = end.law.log_prob(rough.x) - rough.rise
        solver, nfe = error_of_two(solver, mean(other - values[: len(other)])), nfe + rough.nfe
    more, prior, gap, spent = end.correction(
        flow.reverse, shared, moved.x, x.dtype, alike(flow.condition)
    )
    values, nfe, heat = values + more, nfe + spent, torch.zeros_like(more)
    if t is None:
        correction, heat, spent = to_data(flow, data, at)
        values = values + correction + size * float(torch.log(sde.alpha(at)))
        nfe = nfe + spent
    probes = flow.trace.error(values.T)
    widths = {"solver": solver, "probes": probes, "heat": heat, "prior": prior}
    return LogProb(mean(values), widths, nfe, size), gap


# A warning is given if log p_T differs from the log-density of the Gaussian by more nats than this
# times sqrt(D). The difference is corrected, and the error bar includes the correction's error.
_OFF = 0.05


def _check_end(gap: Tensor, size: int) -> None:
    """Warn if log p_T differs from its Gaussian's, or is uncertain, by more than .05 sqrt(D) nats.

    If the difference has the root mean square g, the Kullback-Leibler divergence is about g² / 2.
    """
    worst = float(gap.max()) if len(gap) else 0.0
    if worst > _OFF * math.sqrt(size):
        warnings.warn(
            f"at the largest noise the log-density differs by {worst:.2g} nats from that of a "
            "Gaussian with the moments of the data, or its error is as large; either the largest "
            "noise (T or sigma_max) is too small for these data, or the moments are wrong, or "
            "the score is inaccurate there; train for longer or with larger noise, or give the "
            "moments",
            UserWarning,
            stacklevel=outside(),
        )

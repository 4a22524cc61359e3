r"""The front door: `log_prob` and `sample_with_log_prob`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from scoresde.checks import as_event, check_floating, check_integer, check_range, door, named_device
from scoresde.errors import InvalidValueError
from scoresde.likelihood.flow import Flow
from scoresde.likelihood.inputs import check_input, moments_of, time
from scoresde.likelihood.prior import heat_correction, read_moments
from scoresde.likelihood.result import LogProb
from scoresde.likelihood.trace import Exact, Probed, Trace
from scoresde.noise import Noise, seeds_of
from scoresde.ode import Tolerance
from scoresde.score import device_of, evaluating
from scoresde.sde import SDE, Condition, Moments, Score, expand, facts, process_of

__all__ = ["log_prob", "sample_with_log_prob"]

Method = Literal["auto", "exact", "hutchinson"]

# Dimensions up to which "auto" takes the exact trace, and the moments are read from the score.
_EXACT, _READABLE = 64, 1024


@door
def log_prob(
    score: Score,
    sde: SDE | None,
    x: Tensor,
    *,
    t: float | None = None,
    method: Method = "auto",
    probes: int = 16,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 10_000,
    seed: int = 0,
    first: int = 0,
    batch_size: int | None = None,
    condition: Mapping[str, Any] | None = None,
    moments: Moments | None = None,
) -> LogProb:
    r"""The log-density of samples, by the probability flow from eps to `T`.

    Three things are made explicit that are usually silent. The prior is the Gaussian with the
    moments of the data, those of `moments` or of the score, or else read from the score at `T`,
    unless that takes a condition or has more than 1024 dimensions: then it is `sde.prior()`. What
    lies between the data and eps is crossed by the heat equation (`heat_correction`), and its size
    reported. And each sample has adaptive steps of its own, so that its value does not depend on
    the batch, but for the rounding of a network or of a product with a covariance.

    Args:
        score: A `ScoreModel`, or any callable `(x, t) -> score` that autograd can differentiate.
        sde: The process whose score it is; None takes the one that the score knows.
        x: The points, `(B, *)`, floating point; the model is evaluated in their dtype.
        t: None for the density of the data; a time in [eps, T] for $p_t$ itself.
        method: `"exact"` takes D vector-Jacobian products for each evaluation, `"hutchinson"` one
            for each probe, `"auto"` the exact ones up to 64 dimensions. No fewer probes than
            dimensions are exact as well: they are then the axes.
        probes: Rademacher probes of Hutchinson's estimate, fixed along the path; at least 1.
        rtol: The solver's relative tolerance.
        atol: Its absolute tolerance, of the state in units of its scale and of the density in nats.
        max_nfe: The most evaluations of a sample.
        seed: The randomness of the probes; row i has those of number `first + i`.
        first: The number of the first row.
        batch_size: Rows at once, to bound memory; by default all.
        condition: What the score takes beside `(x, t)`, one row for each sample.
        moments: The data's moments; a `ScoreModel` knows its own.

    Raises:
        InvalidValueError, InvalidTypeError, ShapeError: An argument does not fit.
        NonFiniteError: `x` or the score has a NaN or an infinity.
        ConvergenceError: `max_nfe` is used up.

    Examples:
        >>> import scoresde
        >>> target = scoresde.targets.Gaussian([0.0, 1.0], std=[1.0, 0.5])
        >>> sde, x = scoresde.VPSDE(), torch.zeros(1, 2)
        >>> found = log_prob(target.at(sde), sde, x)
        >>> bool((found.value - target.log_prob(x)).abs() < 1e-3)
        True
    """
    sde, given = check_input(score, sde, x, condition)
    start = sde.eps if t is None else t
    check_range("t", start, f"[{sde.eps}, {sde.T}]")
    solver = Tolerance(rtol, atol, max_nfe)
    check_integer("first", first, 0)
    size = len(x) if batch_size is None else check_integer("batch_size", batch_size, 1)
    known = moments_of(score, moments)
    parts = []
    with evaluating(score), torch.no_grad():
        for i in range(0, max(len(x), 1), max(size, 1)):
            rows = slice(i, i + size)
            some = None if given is None else given.rows(rows)
            noise = Noise.of(seed, len(x[rows]), first=first + i)
            by = _Divergence(method, probes, noise)
            flow = _flow(score, sde, x[rows], some, known, by, solver)
            parts.append(_log_prob(flow, x[rows], start, of_data=t is None))
    return LogProb.cat(parts)


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
    max_nfe: int = 10_000,
    seed: int | None = None,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    first: int = 0,
    condition: Mapping[str, Any] | None = None,
    moments: Moments | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> tuple[Tensor, LogProb]:
    r"""Draws of the flow at eps and their log-density there, from one solve.

    The density is that of the draws themselves, whatever the model has learnt: the law of the
    prior, carried by the flow of the model. It is what importance weights need.

    Args:
        score: A score, as in `log_prob`.
        sde: The process whose score it is; None takes the one that the score knows.
        n: How many.
        shape: The shape of one sample; a `ScoreModel` knows its own.
        method: How the trace is found, as in `log_prob`.
        probes: Probes of Hutchinson's estimate.
        rtol: The solver's relative tolerance.
        atol: Its absolute tolerance.
        max_nfe: The most evaluations of a sample.
        seed: The randomness, as in `scoresde.sample`, whose prior draws these are.
        generator: In its place, likewise.
        first: The number of the first sample of the seed.
        condition: What the score takes beside `(x, t)`, one row for each sample.
        moments: The data's moments, for the prior.
        dtype: In which the model is evaluated and the samples are returned.
        device: Where; by default where the networks of the score are.

    Returns:
        The samples `(n, *)` and their `LogProb`.
    """
    sde = process_of(score, sde)
    check_integer("n", n, 0)
    check_integer("first", first, 0)
    event: Any = facts(score).event_shape if shape is None else shape
    if event is None:
        raise InvalidValueError("a bare score does not know its event shape; give shape=")
    event = as_event("shape", event)
    seeds, indices = seeds_of(n, seed, generator, first)
    noise = Noise(seeds, indices, horizon=sde.T)
    check_floating("dtype", dtype)
    where = device_of(score) if device is None else named_device(device)
    like = torch.empty(n, *event, dtype=dtype, device=where)
    _, given = check_input(score, sde, torch.zeros_like(like), condition)
    with evaluating(score), torch.no_grad():
        by, solver = _Divergence(method, probes, noise), Tolerance(rtol, atol, max_nfe)
        flow = _flow(score, sde, like, given, moments_of(score, moments), by, solver)
        prior = sde.prior(flow.moments)
        z = prior.sample(noise.normal(like.double(), math.inf))
        moved = flow.transport(z, time(sde.T), time(sde.eps))
    values = prior.log_prob(z) + moved.rise
    found = _summed(
        values, moved.solver_error, torch.zeros_like(values), moved.nfe, event, flow.trace
    )
    return moved.x.to(dtype), found


@dataclass(frozen=True)
class _Divergence:
    """How the divergence of a score is to be found."""

    method: Method
    probes: int
    noise: Noise

    def __post_init__(self) -> None:
        check_integer("probes", self.probes, 1)

    def trace(self, x: Tensor, moments: Moments | None) -> Trace:
        """Return the trace for samples `(B, *)`."""
        size, method = x.shape[1:].numel(), self.method
        if size <= self.probes or method == "exact" or (method == "auto" and size <= _EXACT):
            return Exact()
        own = self.noise.fork(1)  # the start of a sample of the same seed is another number
        signs = [own.normal(x, math.inf, k).sign() for k in range(self.probes)]
        return Probed(torch.stack(signs), moments)


def _flow(
    score: Score,
    sde: SDE,
    x: Tensor,
    condition: Condition | None,
    moments: Moments | None,
    by: _Divergence,
    solver: Tolerance,
) -> Flow:
    """Return the flow of samples like `x`, with its prior and its trace."""
    event = tuple(x.shape[1:])
    if moments is None and not condition and 0 < math.prod(event) <= _READABLE:
        moments = read_moments(sde.reverse(score), event, x.dtype, x.device)
    return Flow(score, sde, condition, moments, x.dtype, by.trace(x, moments), solver)


def _log_prob(flow: Flow, x: Tensor, start: float, *, of_data: bool) -> LogProb:
    sde, t, end = flow.sde, time(start), time(flow.sde.T)
    x, event = x.double(), tuple(x.shape[1:])
    correction = torch.zeros(flow.trace.count, len(x), dtype=torch.float64, device=x.device)
    if of_data:
        x = x * expand(sde.alpha(t), x)
    moved = flow.transport(x, t, end)
    values = sde.prior(flow.moments).log_prob(moved.x) - moved.rise
    nfe = moved.nfe
    if of_data:
        score, trace = flow.divergence(x, t, torch.arange(len(x)))
        correction = heat_correction(sde.sigma(t), score, trace)
        values = values + correction + math.prod(event) * float(torch.log(sde.alpha(t)))
        nfe = nfe + 1
    return _summed(values, moved.solver_error, correction, nfe, event, flow.trace)


def _summed(
    values: Tensor,
    solver_error: Tensor,
    correction: Tensor,
    nfe: Tensor,
    event: tuple[int, ...],
    trace: Trace,
) -> LogProb:
    """The mean over the probes `(K, B)`, and its standard error."""
    # row by row, so that the order of a sum does not depend on the batch, as it does in torch.std
    rows, corrections = values.T.contiguous(), correction.T.contiguous()
    mean, stderr = rows.mean(1), torch.zeros_like(values[0])
    if isinstance(trace, Probed):
        k = len(values)
        stderr = torch.full_like(stderr, math.inf)
        if k > 1:
            stderr = ((rows - mean[:, None]).square().sum(1) / (k * (k - 1))).sqrt()
    return LogProb(mean, stderr, solver_error, corrections.mean(1), nfe, math.prod(event))

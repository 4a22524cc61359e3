r"""Solve ODEs by adaptive Runge-Kutta methods, with separate step sizes for each sample.

A step of an embedded pair evaluates $k_i = f(t + c_i h,\; y + h \sum_{j<i} a_{ij} k_j)$ and takes

$$ y' = y + h \sum_i b_i k_i, \qquad e = h \sum_i (b_i - \hat b_i) k_i, \qquad
   \epsilon = \Big\| \frac{e}{\text{atol} + \text{rtol} \max(|y|, |y'|)} \Big\| $$

The step is accepted if $\epsilon \le 1$. The next step size is about
$0.9\,h\,\epsilon^{-3/16}\,\epsilon_\text{prev}^{1/32}$, but at least $h / 5$ and at most $10\,h$,
and at most $h$ after a rejected step.
This is a PI controller (Gustafsson 1991, *Control theoretic techniques for stepsize
selection*; Hairer, Nørsett & Wanner 1993, sections II.4 and IV.2). One call of $f$ evaluates all
samples that have not reached the last time; apart from this the samples are independent.

The solution of a sample should be the same, bit for bit, in any batch. If rounding changed a step
size, the solution would change within the tolerance. Two measures prevent this. The rounding of a
power function may depend on the position in the batch, so the exponents above are multiples of
1/32, which need only square roots. The rounding of a network depends on the size of the batch, so
the factor between step sizes is rounded to one of a few values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoresde.checks import check_integer
from scoresde.errors import ConvergenceError, InvalidValueError, NonFiniteError, ShapeError
from scoresde.precision import as_double, widest

__all__ = [
    "DOPRI5",
    "TSIT5",
    "Field",
    "Solution",
    "Tableau",
    "Tolerance",
    "Weigh",
    "check_ratio",
    "nearest_factor",
    "rms",
    "solve",
]

Field = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`f(t, y, rows)` returns the derivative `(b, *)` of the unfinished samples `rows` of the batch."""
Weigh = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""`weigh(t, y, k, error)` returns the error `(b, *)` that a step's local error causes in a result.

t, y and k are the time, the state and the derivative at the end of the step.
"""

_SAFETY = 0.9
_FACTORS = torch.tensor(
    [0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0],
    dtype=torch.float64,
)


@dataclass(frozen=True)
class Tableau:
    r"""Hold an embedded Runge-Kutta pair, whose last stage is the first stage of the next step.

    Attributes:
        order: The order of the solution.
        c: The nodes $c_i$ of the stages after the first.
        a: The weights $a_{ij}$ of the stages after the first, row by row; the last row is $b$.
        e: The weights of the error estimate, $b - \hat b$, over all stages.
    """

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    e: tuple[float, ...]

    @property
    def stages(self) -> int:
        """Return the number of evaluations of one step."""
        return len(self.c)


DOPRI5 = Tableau(
    order=5,
    c=(1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    a=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    e=(71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
)
"""Dormand & Prince (1980), *A family of embedded Runge-Kutta formulae*, order 5(4)."""

TSIT5 = Tableau(
    order=5,
    c=(0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    a=(
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401,
         -0.028269050394068383),
        (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
         2.324710524099774),
    ),
    e=(
        -0.00178001105222577714,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        0.015151515151515152,
    ),
)  # fmt: skip
"""Tsitouras (2011), *Computers & Mathematics with Applications* 62, order 5(4)."""


@dataclass(frozen=True, eq=False)
class Solution:
    """Hold the solution of a batch, and its cost.

    Attributes:
        y: The states `(B, *)` at the last time.
        error: The sum over accepted steps of $|w|$, where $w$ is the result of `weigh` for the
            local error of the step, `(B, *)`.
        nfe: The number of evaluations of each sample, `(B,)`.
        accepted: The number of accepted steps of each sample, `(B,)`.
        rejected: The number of rejected steps of each sample, `(B,)`.
    """

    y: Tensor
    error: Tensor
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor


def rms(y: Tensor) -> Tensor:
    """Return the root mean square over the event, `(B, *)` to `(B,)`, in float64 if possible."""
    size = math.prod(y.shape[1:])
    return (y.to(widest(y.device)).reshape(len(y), size).square().sum(1) / max(size, 1)).sqrt()


@dataclass(frozen=True, eq=False)
class Tolerance:
    """Hold the tolerances of a step, and the largest number of evaluations.

    Args:
        rtol: The tolerance relative to the state, >= 0; a tensor must broadcast to one event.
        atol: The absolute tolerance, in the same form. At least one of the two must be positive.
        max_nfe: The largest number of evaluations for a sample.
        norm: A function that maps scaled errors `(b, *)` to their norms `(b,)`, for example with
            different weights for the parts of an event.

    Raises:
        InvalidValueError: A tolerance is negative or not finite, both are 0, or `max_nfe` < 1.
    """

    rtol: float | Tensor = 1e-5
    atol: float | Tensor = 1e-5
    max_nfe: int = 10_000
    norm: Callable[[Tensor], Tensor] = rms

    def __post_init__(self) -> None:
        rtol, atol = (as_double(tol) for tol in (self.rtol, self.atol))
        if not ((rtol >= 0) & (atol >= 0) & (rtol + atol > 0) & (rtol + atol).isfinite()).all():
            raise InvalidValueError(
                "tolerances must be finite and >= 0, and at least one positive, got "
                f"rtol = {self.rtol}, atol = {self.atol}"
            )
        check_integer("max_nfe", self.max_nfe, 1)

    def like(self, y: Tensor) -> Tolerance:
        """Return the same tolerances in the dtype and on the device of `y`."""
        rtol, atol = (t.to(y) if isinstance(t, Tensor) else t for t in (self.rtol, self.atol))
        return replace(self, rtol=rtol, atol=atol)

    def measure(self, error: Tensor, size: Tensor) -> Tensor:
        """Return the norms `(b,)`, on the CPU, of errors `(b, *)` divided by the tolerance."""
        return self.norm(error / (self.atol + self.rtol * size)).detach().cpu()


def solve(
    f: Field,
    y: Tensor,
    t0: Tensor | float,
    t1: Tensor | float,
    tolerance: Tolerance | None = None,
    *,
    tableau: Tableau = DOPRI5,
    weigh: Weigh = lambda t, y, k, error: error,
    variable: str = "t",
    watch: Callable[[float], object] | None = None,
) -> Solution:
    r"""Solve $dy/dt = f(t, y)$ from `t0` to `t1`, forwards or backwards, separately per sample.

    Args:
        f: The derivative. For each sample it may depend only on the time and state of this sample.
        y: The states at `t0`, `(B, *)`, floating-point.
        t0: The first time, `()` or `(B,)`, finite.
        t1: The last time, `()` or `(B,)`, finite.
        tolerance: The tolerances; `max_nfe` must be at least `tableau.stages + 2` for one step.
        tableau: The method.
        weigh: A function that returns the error that a step's local error causes in the result of
            interest, for example in a log-density. By default it is the local error itself.
            `Solution.error` sums its absolute values over the accepted steps.
        variable: The name of t in messages.
        watch: A function that is called after each step with the completed share of the interval.

    Raises:
        InvalidValueError: A time is not finite.
        ShapeError: A time is neither `()` nor `(B,)`.
        NonFiniteError: The state or the derivative is NaN or infinite.
        ConvergenceError: More than `max_nfe` evaluations are needed, or a step is too small to
            change the time.
    """
    n = len(y)
    start, end = (_time(name, t, n) for name, t in (("t0", t0), ("t1", t1)))
    tolerance = (tolerance or Tolerance()).like(y)
    max_nfe = tolerance.max_nfe
    out, error = y.clone(), torch.zeros_like(weigh(start, y, y, y))
    nfe, accepted, rejected = (torch.zeros(n, dtype=torch.long) for _ in range(3))
    rows = (start != end).nonzero().flatten()
    if len(rows) == 0:
        return Solution(out, error, nfe, accepted, rejected)
    spent = 2
    y, t, end = y[rows], start[rows], end[rows]
    h, k = _first_step(f, y, t, end, rows, tolerance, variable)
    previous, retry = torch.ones_like(t), torch.zeros_like(t, dtype=torch.bool)
    while True:
        if spent + tableau.stages > max_nfe:
            raise ConvergenceError(
                f"sample {int(rows[0])} reached only {variable} = {float(t[0]):.6g} of "
                f"[{float(start[rows[0]]):.6g}, {float(end[0]):.6g}] in max_nfe = {max_nfe} "
                "evaluations; increase max_nfe, or rtol and atol"
            )
        if (t + h == t).any():
            raise ConvergenceError(
                f"the steps of sample {int(rows[(t + h == t).nonzero()[0]])} are too small to "
                f"change {variable}; increase rtol and atol, or use float64"
            )
        arriving = h.abs() >= (end - t).abs() * (1 - 1e-9)
        to = torch.where(arriving, end, t + h)
        width, stages, y_to = _column(to - t, y), [k], y
        for c, weights in zip(tableau.c, tableau.a, strict=True):
            y_to = y + width * _combine(weights, stages)
            stages.append(f(to if c == 1 else t + c * (to - t), y_to, rows))
        spent += tableau.stages
        local = width * _combine(tableau.e, stages)
        ratio = tolerance.measure(local, torch.maximum(y.abs(), y_to.abs()))
        check_ratio(ratio, t, rows, variable)
        ok = ratio <= 1
        h = (to - t) * _factor(ratio, previous, retry)
        previous, retry = torch.where(ok, ratio.clamp(min=1e-4), previous), ~ok
        accepted[rows] += ok
        rejected[rows] += ~ok
        taken, cost = _column(ok, y), weigh(to, y_to, stages[-1], local).abs()
        error[rows] += torch.where(_column(ok, cost), cost, 0)
        y, k = torch.where(taken, y_to, y), torch.where(taken, stages[-1], k)
        t = torch.where(ok, to, t)
        there = ok & arriving
        if watch is not None:
            watch(1 - float(((end - t) / (end - start[rows])).sum()) / n)
        if there.any():
            out[rows[there]], nfe[rows[there]] = y[there], spent
            if there.all():
                return Solution(out, error, nfe, accepted, rejected)
            rows, y, k, t, h, end = (v[~there] for v in (rows, y, k, t, h, end))
            previous, retry = previous[~there], retry[~there]


def _factor(ratio: Tensor, previous: Tensor, retry: Tensor) -> Tensor:
    """Return the factor between the next step size and this one, at most 1 after a rejection."""
    root = ratio.sqrt().sqrt().sqrt().sqrt()
    damp = previous.sqrt().sqrt().sqrt().sqrt().sqrt()
    factor = nearest_factor(_SAFETY * damp / (root * root * root))
    return torch.where(retry, factor.clamp(max=1.0), factor)


def nearest_factor(wish: Tensor) -> Tensor:
    """Round `wish` down to an allowed factor, between a fifth and ten."""
    return _FACTORS[torch.bucketize(wish, _FACTORS[1:], right=True)]


def _first_step(
    f: Field,
    y: Tensor,
    t: Tensor,
    end: Tensor,
    rows: Tensor,
    tolerance: Tolerance,
    variable: str,
) -> tuple[Tensor, Tensor]:
    """Return the first step size and stage, from two evaluations (Hairer et al. 1993, II.4)."""
    k, scale, span = f(t, y, rows), y.abs(), end - t
    size, slope = tolerance.measure(y, scale), tolerance.measure(k, scale)
    check_ratio(size + slope, t, rows, variable)
    probe = (0.01 * size / slope).nan_to_num(0.0, posinf=math.inf).clamp(min=1e-6)
    probe = span.sign() * torch.minimum(probe, span.abs())
    after = f(t + probe, y + _column(probe, y) * k, rows)
    bend = tolerance.measure(after - k, scale) / probe.abs()
    check_ratio(bend, t, rows, variable)
    # compute the power 3/16, nearly a fifth root, by square roots
    root = (0.01 / torch.maximum(slope, bend)).sqrt().sqrt().sqrt().sqrt()
    guess = torch.minimum(100 * probe.abs(), root * root * root)
    # round to a power of two, so that rounding errors hardly ever change the result
    exponent = torch.frexp(guess.clamp(max=1e100)).exponent
    guess = torch.ldexp(torch.ones_like(guess), exponent - 1)
    return span.sign() * torch.minimum(guess, span.abs()), k


def _combine(weights: tuple[float, ...], stages: list[Tensor]) -> Tensor:
    """Return the weighted sum of stages."""
    terms = [w * k for w, k in zip(weights, stages, strict=True) if w != 0]
    return sum(terms[1:], terms[0])


def _column(c: Tensor, y: Tensor) -> Tensor:
    """Return one number for each sample, reshaped to broadcast against `y`."""
    dtype = c.dtype if c.dtype == torch.bool else y.dtype
    return c.to(y.device, dtype).reshape(-1, *(1,) * (y.ndim - 1))


def _time(name: str, t: Tensor | float, n: int) -> Tensor:
    time = torch.as_tensor(t, dtype=torch.float64, device="cpu")
    if time.shape not in ((), (n,)):
        raise ShapeError(f"{name} must have shape () or ({n},), got {tuple(time.shape)}")
    if not time.isfinite().all():
        raise InvalidValueError(f"{name} must be finite, got {time}")
    return time.expand(n)


def check_ratio(ratio: Tensor, t: Tensor, rows: Tensor, variable: str = "t") -> None:
    """Raise NonFiniteError unless the scaled errors `(b,)` at times `(b,)` are finite."""
    if not ratio.isfinite().all():
        bad = ~ratio.isfinite()
        raise NonFiniteError(
            "the state or its derivative became NaN or infinite after "
            f"{variable} = {float(t[bad][0]):.6g}, in samples {rows[bad].tolist()[:8]}; "
            "check the size of the derivative there"
        )

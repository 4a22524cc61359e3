"""Calibrate conditional samples, given a simulator or pairs of parameters and data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scoresde.checks import check_integer, door, quoted, seeded
from scoresde.errors import DataError, InvalidTypeError
from scoresde.metrics.calibration.result import Calibration
from scoresde.metrics.calibration.study import Draw, LogDensity, Pairs, Study, checked

__all__ = ["calibrate", "calibrate_pairs"]

Simulate = Callable[[int, int], tuple[Tensor, Tensor]]
"""`simulate(n, seed)` returns parameters `(n, *event)` from the prior, and their data `(n, *)`."""

# The smallest number of data sets, and the factor by which a second run has more data sets.
_LEAST, _MORE = 20, 4


@door
def calibrate(
    draw: Draw,
    simulate: Simulate,
    *,
    n: int = 6000,
    draws: int = 99,
    log_likelihood: LogDensity | None = None,
    log_density: LogDensity | None = None,
    level: float = 0.01,
    rerun: bool = True,
    batch_size: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
    names: Sequence[str] = (),
) -> Calibration:
    r"""Test whether draws are from the posterior of a simulator.

    The tested quantities are up to 16 entries of the parameter, 8 random projections, the distance
    to a reference point that depends on y, and the log-likelihood. Each quantity has four tests: of
    the distribution of the ranks (a simultaneous band), of the sum of their squared normal deviates
    ($\chi^2$), and of the coverage of central 50 % and 90 % intervals. The p-values use no
    approximation for large samples. They are adjusted by Holm's method, so that the probability of
    any false alarm is at most `level`. After an
    alarm the tests are repeated with four times as many new data sets, and only the result of this
    second run counts.

    Args:
        draw: `draw(y, k, seed)`, which returns k samples `(m, k, *event)` for each row of y
            `(m, *)`.
        simulate: `simulate(n, seed)`, which returns parameters `(n, *event)` and their data
            `(n, *)`.
        n: The number of data sets, at least 20. With 6,000, an error is detected with a probability
            above .99 if draws are .9 times as wide as the posterior, or shifted by .1 of its width
            in one entry.
        draws: The number of draws for each data set, at least 2.
        log_likelihood: `f(theta, y)`, $\log p(y | \theta)$ up to a function of y, `(m,)`.
        log_density: `f(theta, y)`, the log-density of the tested posterior. Its mean at the true
            parameters is reported.
        level: The largest probability of an alarm in one run if the draws are right, in (0, 1).
        rerun: Repeat the tests after an alarm.
        batch_size: The number of data sets whose draws are made at once.
        seed: The seed of all randomness; `draw` and `simulate` receive seeds derived from it.
        progress: True shows a bar, False nothing; None shows a bar in a terminal or a notebook, and
            occasional lines elsewhere.
        names: The names of the parameter's entries, for the table and the picture.

    Raises:
        DataError: All parameters are equal.
        InvalidValueError: A number is out of range.
        InvalidTypeError, ShapeError: A function returned a wrong type or shape.
        NonFiniteError: A number is NaN or infinite, or its square overflows or underflows.

    Examples:
        >>> def simulate(n, seed):
        ...     g = torch.Generator().manual_seed(seed)
        ...     theta = torch.randn(n, 1, generator=g)
        ...     return theta, theta + torch.randn(n, 1, generator=g)
        >>> def draw(y, k, seed):  # of the exact posterior, N(y / 2, 1 / 2)
        ...     g = torch.Generator().manual_seed(seed)
        ...     return y[:, None] / 2 + 0.5**0.5 * torch.randn(len(y), k, 1, generator=g)
        >>> calibrate(draw, simulate, n=500).passed
        True
    """
    check_integer("n", n, _LEAST)
    study = Study(draw, draws, log_likelihood, log_density, level, batch_size, progress, names)

    def run(n: int, seed: int) -> Calibration:
        g = seeded(seed)
        of_tested, other = torch.randint(2**62, (2,), generator=g).tolist()
        return study.run(_simulated(simulate, n, of_tested), _simulated(simulate, n, other), g)

    first, second = torch.randint(2**62, (2,), generator=seeded(seed)).tolist()
    found = run(n, first)
    if found.passed or not rerun:
        return found
    return replace(run(_MORE * n, second), first=found)


@door
def calibrate_pairs(
    draw: Draw,
    theta: Tensor,
    y: Tensor,
    *,
    n: int | None = None,
    draws: int = 99,
    log_likelihood: LogDensity | None = None,
    log_density: LogDensity | None = None,
    level: float = 0.01,
    batch_size: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
    names: Sequence[str] = (),
) -> Calibration:
    r"""Test whether draws are from p(theta | y), with pairs of theta and y instead of a simulator.

    The tests are those of `calibrate`, on randomly chosen pairs. The other pairs give the reference
    points. There is no second run, since there are no more pairs.

    Args:
        draw: `draw(y, k, seed)`, which returns k samples `(m, k, *event)` for each row of y
            `(m, *)`.
        theta: `(N, *event)`, independent rows that were not used for training.
        y: `(N, *)`, the data of each theta.
        n: The number of pairs to test; None takes half of the pairs. At least 20 pairs must be
            tested, and at least 20 must remain.
        draws: The number of draws for each pair, at least 2.
        log_likelihood: `f(theta, y)`, $\log p(y | \theta)$ up to a function of y, `(m,)`.
        log_density: `f(theta, y)`, the log-density of the tested posterior.
        level: The largest probability of an alarm if the draws are right, in (0, 1).
        batch_size: The number of pairs whose draws are made at once.
        seed: The seed of all randomness; `draw` receives seeds derived from it.
        progress: True shows a bar, False nothing; None shows a bar in a terminal or a notebook, and
            occasional lines elsewhere.
        names: The names of the parameter's entries, for the table and the picture.

    Raises:
        DataError: There are too few pairs, or all parameters are equal.
        InvalidValueError: A number is out of range.
        InvalidTypeError, ShapeError: The pairs, or the results of a function, have a wrong type or
            shape.
        NonFiniteError: A number is NaN or infinite, or its square overflows or underflows.

    Examples:
        >>> g = torch.Generator().manual_seed(0)
        >>> theta, noise = torch.randn(2, 400, 1, generator=g)
        >>> def draw(y, k, seed):  # of the exact posterior, N(y / 2, 1 / 2)
        ...     g = torch.Generator().manual_seed(seed)
        ...     return y[:, None] / 2 + 0.5**0.5 * torch.randn(len(y), k, 1, generator=g)
        >>> calibrate_pairs(draw, theta, theta + noise).passed
        True
    """
    study = Study(draw, draws, log_likelihood, log_density, level, batch_size, progress, names)
    theta, y = checked(theta, y, "theta and y must be")
    n = len(theta) // 2 if n is None else check_integer("n", n, _LEAST)
    if min(n, len(theta) - n) < _LEAST:
        raise DataError(
            f"at least {_LEAST} pairs must be tested and at least {_LEAST} others must remain, got "
            f"{n} of {len(theta)}; give more pairs, or another n"
        )
    g = seeded(seed)
    order = torch.randperm(len(theta), generator=g)
    tested, other = ((theta[rows], y[rows]) for rows in (order[:n], order[n:]))
    return study.run(tested, other, g)


def _simulated(simulate: Simulate, n: int, seed: int) -> Pairs:
    """Call a simulator, and return its parameters and data after checking them."""
    found = simulate(n, seed)
    if not isinstance(found, tuple) or len(found) != 2:
        raise InvalidTypeError(
            f"simulate(n, seed) must return parameters and data, got {quoted(found)}"
        )
    return checked(*found, f"simulate({n}, seed) must return", n)

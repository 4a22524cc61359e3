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
"""`simulate(n, seed)`: parameters `(n, *event)` of the prior, and data `(n, *)` for each."""

# The smallest number of data sets, and the factor by which a second run has more than the first.
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

    The tested quantities are up to 16 entries of the parameter and 8 random projections, the
    distance to a point that depends on y, and the log-likelihood. Each has four tests: the
    distribution of the ranks (a simultaneous band), the sum of the squares of their normal deviates
    ($\chi^2$), and the coverage of central intervals of 50 and 90 %. All are exact, and Holm's
    adjustment makes `level` the probability of any false alarm. An alarm is followed by a second
    run, with four times as many new data sets, whose result counts.

    Args:
        draw: `draw(y, k, seed)`, k samples for each row of y `(m, *)`, `(m, k, *event)`.
        simulate: `simulate(n, seed)`, parameters `(n, *event)` and their data `(n, *)`.
        n: Data sets, at least 20. With 6,000, draws that are .9 times as wide as the posterior, or
            shifted by .1 of its width in one entry, are detected with a probability above .99.
        draws: Draws for each data set, at least 2.
        log_likelihood: `f(theta, y)`, $\log p(y | \theta)$ up to a function of y, `(m,)`.
        log_density: `f(theta, y)`, the log-density of the tested posterior, whose mean at the true
            parameters measures its sharpness.
        level: The probability that draws from the posterior raise an alarm, in (0, 1).
        rerun: Follow an alarm by a second run.
        batch_size: Data sets for which draws are made at once.
        seed: The seed of all randomness; `draw` and `simulate` get seeds made of it.
        progress: True shows a bar, False nothing; None shows a bar in a terminal or a notebook, and
            occasional lines elsewhere.
        names: The names of the parameter's entries, for the table and the picture.

    Raises:
        InvalidValueError: A number is out of range.
        InvalidTypeError, ShapeError, NonFiniteError: A function returned a wrong type, shape or
            number.

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

    The tests are those of `calibrate`, on randomly chosen pairs. The other pairs give the points
    that depend on y. There is no second run, since there are no more pairs.

    Args:
        draw: `draw(y, k, seed)`, k samples for each row of y `(m, *)`, `(m, k, *event)`.
        theta: `(N, *event)`, independent rows, which the sampler was not trained on.
        y: `(N, *)`, the data of each theta.
        n: Pairs that are tested, at least 20, with at least 20 others left; None for half of them.
        draws: Draws for each pair, at least 2.
        log_likelihood: `f(theta, y)`, $\log p(y | \theta)$ up to a function of y, `(m,)`.
        log_density: `f(theta, y)`, the log-density of the tested posterior.
        level: The probability that draws from p(theta | y) raise an alarm, in (0, 1).
        batch_size: Pairs for which draws are made at once.
        seed: The seed of the choice of pairs and of `draw`.
        progress: True shows a bar, False nothing; None shows a bar in a terminal or a notebook, and
            occasional lines elsewhere.
        names: The names of the parameter's entries, for the table and the picture.

    Raises:
        DataError: There are too few pairs.
        InvalidValueError: A number is out of range.
        InvalidTypeError, ShapeError, NonFiniteError: Pairs or a function are something else.

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
            f"at least {_LEAST} pairs must be tested, and at least {_LEAST} others left, got {n} "
            f"of {len(theta)}; give more pairs, or another n"
        )
    g = seeded(seed)
    order = torch.randperm(len(theta), generator=g)
    tested, other = ((theta[rows], y[rows]) for rows in (order[:n], order[n:]))
    return study.run(tested, other, g)


def _simulated(simulate: Simulate, n: int, seed: int) -> Pairs:
    """Return parameters and data of a simulator, checked."""
    found = simulate(n, seed)
    if not isinstance(found, tuple) or len(found) != 2:
        raise InvalidTypeError(
            f"simulate(n, seed) must return parameters and data, got {quoted(found)}"
        )
    return checked(*found, f"simulate({n}, seed) must return", n)

r"""Define the problems of the arena: distributions with known scores.

The scores are exact, so all errors are errors of the sampler. The eight problems of `TUNING` may be
used to choose the settings of a sampler. The problems of `HELD_OUT` are never used for this; they
show how the choice generalises to other data and other SDEs.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scoresde.arena.problem import Problem, generator_of, rotation
from scoresde.arena.reference import RungeKutta4
from scoresde.checks import check_integer, check_range, door
from scoresde.score import Wrapped, load
from scoresde.sde import EDMSDE, SDE, VESDE, VPSDE, Condition, CosineSDE, FlowSDE, SubVPSDE
from scoresde.targets import (
    EightGaussians,
    Gaussian,
    GaussianMixture,
    Rings,
    SongMixture,
    Spiral,
    Target,
    TwoMoons,
)

__all__ = ["HELD_OUT", "TUNING", "digits", "tuning"]


@door
def digits(evaluations: int = 10_000, labels: int = 10) -> Problem:
    """Return the problem of the packaged model of handwritten digits: a learned score, in float32.

    Args:
        evaluations: The number of evaluations of the network in the reference flow map, at least 4.
            It is computed by Runge-Kutta's method of order four.
        labels: The number of classes, from 1 to 10; sample i shows the digit i modulo `labels`.

    Raises:
        InvalidValueError: A number is out of range.
    """
    check_integer("evaluations", evaluations, 4)
    check_range("labels", labels, "[1, 10]")
    model = load("mnist")

    class Labelled(Wrapped):
        """Evaluate the score for the classes 0, 1, ..., labels - 1, 0, 1, ... of the samples."""

        def __call__(self, x: Tensor, t: Tensor, condition: Condition | None = None) -> Tensor:
            return self.ask(self.score, x, t, Condition({"label": torch.arange(len(x)) % labels}))

    return Problem(
        "digits/VESDE",
        Labelled(model),
        model.sde,
        model.event_shape,
        model.moments,
        flow=RungeKutta4(evaluations // 4),
        dtype=torch.float32,
    )


def _blobs() -> Target:
    """Return four modes in the plane, of unequal weights and widths."""
    weights = [0.4, 0.3, 0.2, 0.1]
    means = [[-2.0, -1.0], [2.0, 0.5], [0.0, 2.5], [1.0, -2.5]]
    return GaussianMixture(weights, means, stds=[0.5, 0.25, 0.1, 0.05])


def _gaussian() -> Target:
    """Return a Gaussian in 16 dimensions with variances .01 to 4 along rotated axes."""
    g = generator_of(16)
    q = rotation(16, g)
    variances = torch.logspace(math.log10(0.01), math.log10(4), 16, dtype=torch.float64)
    return Gaussian(torch.randn(16, generator=g, dtype=torch.float64), cov=(q * variances) @ q.T)


def _images() -> Target:
    """Return eight modes in 64 dimensions with spectra that fall as 1 / k^2, as for images."""
    g = generator_of(64)
    spectrum = torch.arange(1, 65, dtype=torch.float64) ** -2
    bases = [rotation(64, g) for _ in range(8)]
    means = 0.5 * torch.randn(8, 64, generator=g, dtype=torch.float64)
    weights = torch.arange(1, 9, dtype=torch.float64)
    return GaussianMixture(
        weights / weights.sum(), means, torch.stack([(q * spectrum) @ q.T for q in bases])
    )


def _planes() -> Target:
    """Return five modes in 32 dimensions, each wide in four dimensions and .05 wide in the rest."""
    g = generator_of(32)
    spectrum = torch.cat([torch.tensor([1.0, 0.7, 0.5, 0.3]), torch.full((28,), 0.0025)]).double()
    bases = [rotation(32, g) for _ in range(5)]
    means = torch.randn(5, 32, generator=g, dtype=torch.float64)
    return GaussianMixture(
        [0.3, 0.25, 0.2, 0.15, 0.1], means, torch.stack([(q * spectrum) @ q.T for q in bases])
    )


def _grid() -> Target:
    """Return twenty-five modes on a square grid, whose width is a tenth of their distance."""
    axis = torch.arange(-2.0, 3.0, dtype=torch.float64)
    return GaussianMixture([0.04] * 25, torch.cartesian_prod(axis, axis), stds=[0.1] * 25)


def _nested() -> Target:
    """Return a narrow mode within a wide mode, in eight dimensions."""
    return GaussianMixture([0.5, 0.5], torch.zeros(2, 8, dtype=torch.float64), stds=[1.0, 0.1])


def _waves() -> Target:
    """Return a mixture of six signals of 32 numbers, with smooth deviations and a little noise."""
    g, at = generator_of(6), torch.linspace(0, 1, 32, dtype=torch.float64)
    gap = at[:, None] - at
    smooth = torch.exp(-0.5 * (gap / 0.15) ** 2) + 1e-4 * torch.eye(32, dtype=torch.float64)
    means = torch.randn(6, 32, generator=g, dtype=torch.float64) @ torch.linalg.cholesky(smooth).T
    return GaussianMixture([1 / 6] * 6, means, torch.stack([0.05 * smooth] * 6))


_TUNED: dict[str, Callable[[], Target]] = {
    "blobs": _blobs,
    "gaussian": _gaussian,
    "images": _images,
    "moons": TwoMoons,
}


def tuning(sde: SDE) -> tuple[Problem, ...]:
    """Return the problems of the four distributions of `TUNING` under any SDE."""
    return tuple(
        Problem.of(make(), sde, f"{name}/{type(sde).__name__}") for name, make in _TUNED.items()
    )


TUNING: tuple[Problem, ...] = tuning(VESDE()) + tuning(VPSDE())
"""The problems for choosing settings: four distributions under two SDEs.

`blobs` is a mixture in the plane of unequal weights and widths, `gaussian` a correlated Gaussian in
16 dimensions, `images` a mixture in 64 dimensions with falling spectra, `moons` two curved modes;
each under `VESDE(.01, 50)` and `VPSDE(.1, 20)`.
"""

HELD_OUT: tuple[Problem, ...] = (
    Problem.of(Rings(), SubVPSDE()),
    Problem.of(Spiral(), EDMSDE()),
    Problem.of(_planes(), CosineSDE(), "planes/CosineSDE"),
    Problem.of(EightGaussians(), FlowSDE()),
    Problem.of(_grid(), SubVPSDE(), "grid/SubVPSDE"),
    Problem.of(_waves(), EDMSDE(), "waves/EDMSDE"),
    Problem.of(_nested(), CosineSDE(), "nested/CosineSDE"),
    Problem.of(SongMixture(), FlowSDE()),
)
"""The problems for final comparisons, with other distributions and SDEs than `TUNING`.

The first four are two rings under the sub-VP SDE, a spiral under EDM's, a mixture of five low-rank
Gaussians in 32 dimensions under the cosine schedule, and eight Gaussians under the straight flow.
The results on these four were known when the constants of the fast sampler were last set. The
results on the other four were not known: a grid of 25 modes, smooth signals of 32 numbers, a narrow
mode within a wide mode in eight dimensions, and two distant modes of unequal weight, under the same
SDEs.
"""

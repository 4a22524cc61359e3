r"""What samplers are judged on: laws whose score is known, so that every error is the sampler's.

A problem is a score, the SDE whose score it is, and the data's moments. The eight of `TUNING` may
be looked at while a sampler's settings are chosen; those of `HELD_OUT` never are, and say how
the choice carries over to other shapes of data and other SDEs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.arena.reference import DOP853, FlowMap, RungeKutta4
from scoresde.errors import InvalidValueError
from scoresde.score import load
from scoresde.sde import (
    EDMSDE,
    SDE,
    VESDE,
    VPSDE,
    CosineSDE,
    FlowSDE,
    Moments,
    ReverseSDE,
    SubVPSDE,
)
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

__all__ = ["HELD_OUT", "TUNING", "Problem", "digits", "tuning"]


@dataclass(frozen=True, eq=False)
class Problem:
    r"""A score to sample from.

    `Problem.of(target, sde)` makes one of a target; a model or a user's own score is named by all
    of the first five fields.

    Args:
        name: what tables call it.
        score: a callable `(x, t) -> score`, with a `denoise` of its own where it has one.
        sde: the SDE whose score it is.
        shape: the shape of one sample, without the batch.
        data: the data's moments; the start is drawn from the prior that has them.
        target: the law itself, where it is known: then starts are drawn from the exact $p_T$, and
            samples can be judged by their law.
        flow: how the exact flow map is computed.
        dtype: in which the score is evaluated.
    """

    name: str
    score: Any
    sde: SDE
    shape: tuple[int, ...]
    data: Moments
    target: Target | None = None
    flow: FlowMap = field(default_factory=DOP853)
    dtype: torch.dtype = torch.float64

    @classmethod
    def of(cls, target: Target, sde: SDE, name: str | None = None) -> Problem:
        """The problem of sampling from `target` under `sde`; both give the name without one."""
        name = name or f"{type(target).__name__}/{type(sde).__name__}"
        return cls(name, target.at(sde), sde, target.event_shape, target.moments(), target)

    @property
    def scale(self) -> float:
        """The root mean square of the data's standard deviations, the unit of every error."""
        if self.data.cov is not None:
            return float(self.data.cov.diagonal().mean().sqrt())
        return float(torch.as_tensor(self.data.var, dtype=torch.float64).mean().sqrt())

    def reverse(self) -> ReverseSDE:
        """The reverse SDE, which counts evaluations."""
        return self.sde.reverse(self.score, data=self.data)

    def start(self, n: int, seed: int) -> Tensor:
        """`n` draws of $p_T$, `(n, *)`."""
        generator = _generator(seed, 0)
        if self.target is not None:
            draws = self.target.sample(
                n, self.sde, self.sde.T, generator=generator, dtype=torch.float64
            )
        else:
            z = torch.randn(n, *self.shape, generator=generator, dtype=torch.float64)
            draws = self.sde.prior(self.data).sample(z)
        return draws.to(self.dtype)

    @torch.no_grad()
    def finish(self, x: Tensor) -> Tensor:
        r"""$E[x_0 | x_\epsilon]$: with it every run ends, at the price of one evaluation."""
        return self.reverse().denoise(x, self.sde.eps)

    def exact(self, n: int, seed: int, part: int = 0) -> Tensor:
        r"""`n` draws of what a perfect sampler returns: Tweedie's estimate at exact $x_\epsilon$.

        Args:
            n: how many.
            seed: the randomness, which is not that of `start`.
            part: another number, other draws: independent sets of one seed.

        Raises:
            InvalidValueError: The problem has no target.
        """
        if self.target is None:
            raise InvalidValueError(
                f"the law of {self.name} is not known; judge it by='flow', or give a target"
            )
        generator = _generator(seed, 1 + part)
        return self.finish(
            self.target.sample(n, self.sde, self.sde.eps, generator=generator, dtype=torch.float64)
        )

    def rho(self, t: Tensor | float) -> Tensor:
        r"""$\rho = \sigma_t / \alpha_t$, float64."""
        return torch.exp(-0.5 * self.sde.log_snr(torch.as_tensor(t, dtype=torch.float64)))

    @torch.no_grad()
    def denoise(self, y: Tensor, rho: Tensor | float) -> Tensor:
        r"""The denoiser of $y = x_t / \alpha_t$ at $\rho = \sigma_t / \alpha_t$.

        Every SDE is the variance-exploding one after this rescaling (Karras et al. 2022,
        arXiv:2206.00364, appendix B), whose denoiser is what most libraries sample with.

        Args:
            y: rescaled states, `(B, *)`.
            rho: the noise level, a number between those at `eps` and at `T`.
        """
        level = torch.as_tensor(rho, dtype=torch.float64)
        t = self.sde.time(-2 * level.log()).clamp(self.sde.eps, self.sde.T)
        x = (self.sde.alpha(t) * y).to(self.dtype)
        return self.reverse().denoise(x, t).to(y.dtype)


def digits(evaluations: int = 10_000, labels: int = 10) -> Problem:
    """The packaged model of handwritten digits: a learned score, in float32.

    Sample i shows the digit i modulo `labels`. The reference flow map takes `evaluations` of the
    network, by Runge-Kutta's method of order four.
    """
    model = load("mnist")

    class Labelled:
        """The score of samples whose classes go round."""

        def __call__(self, x: Tensor, t: Tensor) -> Tensor:
            score: Tensor = model(x, t, self._labels(x))
            return score

        def denoise(self, x: Tensor, t: Tensor) -> Tensor:
            """$E[x_0 | x_t]$."""
            return model.denoise(x, t, self._labels(x))

        def _labels(self, x: Tensor) -> dict[str, Tensor]:
            return {"label": torch.arange(len(x)) % labels}

    return Problem(
        "digits/VESDE",
        Labelled(),
        model.sde,
        model.event_shape,
        model.data,
        flow=RungeKutta4(evaluations // 4),
        dtype=torch.float32,
    )


def _generator(*key: int) -> torch.Generator:
    """A generator for each key; torch's own seeds keep 32 bits, in which sums of numbers meet."""
    (state,) = np.random.SeedSequence(key).generate_state(1)
    return torch.Generator().manual_seed(int(state))


def _rotation(d: int, generator: torch.Generator) -> Tensor:
    z = torch.randn(d, d, generator=generator, dtype=torch.float64)
    q: Tensor = torch.linalg.qr(z)[0]
    return q


def _blobs() -> Target:
    """Four modes in the plane, of unequal weights and widths."""
    weights = [0.4, 0.3, 0.2, 0.1]
    means = [[-2.0, -1.0], [2.0, 0.5], [0.0, 2.5], [1.0, -2.5]]
    return GaussianMixture(weights, means, stds=[0.5, 0.25, 0.1, 0.05])


def _gaussian() -> Target:
    """Sixteen dimensions, variances from .01 to 4 along rotated axes, a mean that is not zero."""
    g = _generator(16)
    q = _rotation(16, g)
    variances = torch.logspace(math.log10(0.01), math.log10(4), 16, dtype=torch.float64)
    return Gaussian(torch.randn(16, generator=g, dtype=torch.float64), cov=(q * variances) @ q.T)


def _images() -> Target:
    """Eight modes in 64 dimensions with spectra that fall like those of images, k to the -2."""
    g = _generator(64)
    spectrum = torch.arange(1, 65, dtype=torch.float64) ** -2
    bases = [_rotation(64, g) for _ in range(8)]
    means = 0.5 * torch.randn(8, 64, generator=g, dtype=torch.float64)
    weights = torch.arange(1, 9, dtype=torch.float64)
    return GaussianMixture(
        weights / weights.sum(), means, torch.stack([(q * spectrum) @ q.T for q in bases])
    )


def _planes() -> Target:
    """Five modes in 32 dimensions, each on a plane of four dimensions but for a width of .05."""
    g = _generator(32)
    spectrum = torch.cat([torch.tensor([1.0, 0.7, 0.5, 0.3]), torch.full((28,), 0.0025)]).double()
    bases = [_rotation(32, g) for _ in range(5)]
    means = torch.randn(5, 32, generator=g, dtype=torch.float64)
    return GaussianMixture(
        [0.3, 0.25, 0.2, 0.15, 0.1], means, torch.stack([(q * spectrum) @ q.T for q in bases])
    )


def _grid() -> Target:
    """Twenty-five modes on a square grid, as wide as a tenth of their distance."""
    axis = torch.arange(-2.0, 3.0, dtype=torch.float64)
    return GaussianMixture([0.04] * 25, torch.cartesian_prod(axis, axis), stds=[0.1] * 25)


def _nested() -> Target:
    """A narrow mode within a wide one, in eight dimensions."""
    return GaussianMixture([0.5, 0.5], torch.zeros(2, 8, dtype=torch.float64), stds=[1.0, 0.1])


def _waves() -> Target:
    """Signals of 32 numbers: smooth deviations, and a little noise, about six smooth means."""
    g, at = _generator(6), torch.linspace(0, 1, 32, dtype=torch.float64)
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
    """The four laws of `TUNING` under any SDE."""
    return tuple(
        Problem.of(make(), sde, f"{name}/{type(sde).__name__}") for name, make in _TUNED.items()
    )


TUNING: tuple[Problem, ...] = tuning(VESDE()) + tuning(VPSDE())
"""The problems on which settings may be chosen: four laws under two SDEs.

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
"""The problems on which no setting was or may be chosen: other laws, under other SDEs.

Two rings under the sub-VP SDE, a spiral under EDM's, a mixture of five low-rank Gaussians in 32
dimensions under the cosine schedule, and eight Gaussians under the straight flow; the figures of
these four were seen when the constants of the fast sampler were last set. Those of the others were
not: a grid of 25 modes, smooth signals of 32 numbers, a narrow mode within a wide one in eight
dimensions, and two distant modes of unequal weight, under the same SDEs.
"""

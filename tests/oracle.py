"""Compute the exact distribution of a sampler's output for Gaussian data: the affine oracle.

With the exact score of Gaussian data every step of every sampler here is x' = A x + b + C z. The
real code is run once, in float64, on a batch whose rows are x = 0, then x = 1, and then, for each
standard normal number that the sampler asks for, x = 0 with that number alone set to one (a second
time, with more rows, where it asks for more numbers than were foreseen). Out come b, A + b and
b + C, and with them the exact mean and variance of the output. A number that is asked for twice
under one name is one number: reuse of noise shows as a wrong variance.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scoresde.samplers import Sampler
from scoresde.sde import SDE, ReverseSDE
from scoresde.targets import Gaussian, TargetScore


@dataclass(frozen=True)
class Probe:
    """Define a source of noise that is zero but for one number in each row from the third on."""

    names: dict = field(default_factory=dict)
    path: tuple = ()

    def normal(self, like: Tensor, t: Tensor | float, k: int = 0) -> Tensor:
        return self._unit(like, ("normal", float(t), k))

    def increment(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        return self._unit(like, ("increment", float(s), float(t)))

    def area(self, like: Tensor, s: Tensor | float, t: Tensor | float) -> Tensor:
        return self._unit(like, ("area", float(s), float(t)))

    def fork(self, k: int) -> "Probe":
        return Probe(self.names, (*self.path, k))

    def _unit(self, like: Tensor, name: tuple) -> Tensor:
        row = 2 + self.names.setdefault((self.path, name), len(self.names))
        z = torch.zeros_like(like)
        z[row : row + 1] = 1
        return z


@dataclass(frozen=True)
class Affine:
    """x' = A x + b + C z, separately in each of D dimensions: `(D,)`, `(D,)` and `(M, D)`."""

    a: Tensor
    b: Tensor
    c: Tensor

    def __call__(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the output, from those of the input."""
        return self.a * mean + self.b, self.a**2 * var + self.variance

    @property
    def variance(self) -> Tensor:
        """Return the variance of the noise."""
        return (self.c**2).sum(0)


def affine(
    function: Callable[[Tensor, Probe], Tensor], dimensions: int = 1, numbers: int = 4
) -> Affine:
    """A, b and C of an affine `function(x, noise)` of states `(B, dimensions)`.

    `numbers` are the draws of noise to foresee.
    """
    probe = Probe()
    while True:
        x = torch.zeros(2 + numbers, dimensions, dtype=torch.float64)
        x[1] = 1
        out = function(x, probe)
        if len(probe.names) <= numbers:
            return Affine(out[1] - out[0], out[0], out[2 : 2 + len(probe.names)] - out[0])
        numbers = len(probe.names)


def step(sampler: Sampler, rsde: ReverseSDE, t: Tensor, s: Tensor, dimensions: int = 1) -> Affine:
    """One step of a sampler."""
    return affine(lambda x, noise: sampler.step(rsde, x, t, s, noise), dimensions)


def run(
    sampler: Sampler, score: TargetScore, times: Tensor, *, denoise: bool = False
) -> tuple[Tensor, Tensor]:
    """Exact mean and variance `(D,)` of a whole run from the exact law at `times[0]`."""
    rsde = score.sde.reverse(score, moments=score.facts.moments)

    def function(x: Tensor, noise: Probe) -> Tensor:
        for state in sampler.trajectory(rsde, x, times, noise):
            x = state.x
        return rsde.denoise(x, times[-1]) if denoise else x

    start = law(score, times[0])
    return affine(function, len(start[0]), 2 * len(times))(*start)


def gaussian(sde: SDE, mean, var) -> TargetScore:
    """Return the exact score of data N(mean, var), independent in each of D dimensions."""
    mean, var = (torch.as_tensor(v, dtype=torch.float64).reshape(-1) for v in (mean, var))
    mean, var = torch.broadcast_tensors(mean, var)
    return Gaussian(mean, var=var).at(sde)


def law(score: TargetScore, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance `(D,)` of p_t."""
    alpha, sigma = score.sde.alpha(t), score.sde.sigma(t)
    return (
        alpha * score.facts.moments.mean.flatten(),
        alpha**2 * score.facts.moments.var.flatten() + sigma**2,
    )


def tweedie(score: TargetScore, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance `(D,)` of E[x_0 | x_t] for x_t from p_t: m^2 v_0^2 / V, below v_0."""
    var = score.facts.moments.var.flatten()
    return score.facts.moments.mean.flatten(), score.sde.alpha(t) ** 2 * var**2 / law(score, t)[1]

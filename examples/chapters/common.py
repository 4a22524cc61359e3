"""Define options, data, small networks and their training for all chapters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

import scoresde.nn
from scoresde import SDE, Moments, ReverseSDE, ScoreModel, dsm_loss
from scoresde.noise import Noise
from scoresde.samplers import Sampler, correct
from scoresde.targets import GaussianMixture

BOX = 8.0  # the chains of Song's mixture start in [-8, 8]^2


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the picture goes."""
    short: bool = False
    """A run of seconds, too short to be good."""


class Objective(Protocol):
    """Define a loss of a batch, which is minimised."""

    def __call__(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Map `(B, *)` to `(B,)`."""


def seeded(seed: int) -> torch.Generator:
    """Return a new generator with a seed."""
    return torch.Generator().manual_seed(seed)


def three_modes() -> GaussianMixture:
    """Return the density of the first chapters."""
    means = [[-1.5, -1.0], [1.8, -0.5], [0.0, 1.8]]
    return GaussianMixture([0.5, 0.3, 0.2], means, stds=[0.6, 0.8, 0.5])


def network(width: int = 64, seed: int = 0) -> nn.Module:
    """Return a network from the plane to the plane, without a noise level."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
        nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2),
    )  # fmt: skip


class OneLevel(nn.Module):
    """Define a network for one noise level, with three hidden layers.

    The width w is the largest for which 2 w^2 + (2 size + 3) w + size is at most `parameters`.
    """

    def __init__(self, size: int, parameters: float) -> None:
        super().__init__()
        b = 2 * size + 3
        width = int((math.sqrt(b**2 + 8 * (parameters - size)) - b) / 4)
        layers: list[nn.Module] = []
        for inputs in (size, width, width):
            layers += [nn.Linear(inputs, width), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Linear(width, size))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map `(B, *)` to `(B, *)`; `c` is not used."""
        return self.body(x.flatten(1)).reshape(x.shape)


def weights_of(net: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(p.numel() for p in net.parameters())


def levels_for(d: int, low: float, high: float) -> int:
    """Return the number of levels by technique 2 of Song & Ermon (2020, arXiv:2006.09011).

    Neighbouring levels of ratio r overlap by Phi(sqrt(2 d) (r - 1) + 3 r) - Phi(sqrt(2 d) (r - 1) -
    3 r), which should be about a half.
    """
    a, b = 1.0, 10.0
    for _ in range(60):
        r = (a + b) / 2
        shift = math.sqrt(2 * d) * (r - 1)
        overlap = torch.special.ndtr(torch.tensor([shift + 3 * r, shift - 3 * r])).diff().abs()
        a, b = (r, b) if overlap > 0.5 else (a, r)
    return math.ceil(1 + math.log(high / low) / math.log(a))


def batches(data: Tensor, loss: Objective, size: int = 512) -> Callable[[torch.Generator], Tensor]:
    """Return a function of a generator that computes the loss of a random batch, for `train`."""
    return lambda g: loss(data[torch.randint(len(data), (size,), generator=g)], generator=g)


def teach(
    data: Tensor, sde: SDE, hidden: tuple[int, ...], steps: int, lr: float = 2e-3
) -> ScoreModel:
    """Return a model of points of the plane, trained by denoising score matching."""
    moments = Moments(data.mean(0), var=float(data.var(0).mean()))
    model = ScoreModel(scoresde.nn.MLP(2, hidden=hidden), sde, (2,), moments=moments)
    train(model, batches(data, partial(dsm_loss, model, sde)), steps=steps, lr=lr)
    return model


def train(
    net: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    *,
    steps: float = math.inf,
    seconds: float = math.inf,
    lr: float = 2e-3,
    seed: int = 0,
) -> int:
    """Minimise `loss(generator)` by Adam for some steps or seconds; return the number of steps.

    The learning rate falls to 0 as a cosine of the used share of steps or seconds.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    start, done, used = time.process_time(), 0, 0.0
    while used < 1:
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * used))
        optimizer.zero_grad()
        loss(generator).mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        done += 1
        used = max(done / steps, (time.process_time() - start) / seconds)
    return done


@torch.no_grad()
def relative_error(score: Tensor, exact: Tensor) -> float:
    """Return E |s_model - s|^2 / E |s|^2 over the batch."""
    return float((score - exact).pow(2).sum() / exact.pow(2).sum())


class Unit:
    """Return constant noise, to determine A, b and C of a step x' = A x + b + C z."""

    def __init__(self, z: float) -> None:
        self.z = z

    def normal(self, like: Tensor, t: Tensor, k: int = 0) -> Tensor:
        """Return the constant in place of a draw."""
        return torch.full_like(like, self.z)

    def increment(self, like: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Return the constant in place of an increment."""
        return torch.full_like(like, self.z)


def step_moments(
    sampler: Sampler, rsde: ReverseSDE, t: Tensor, s: Tensor, mean: float, var: float
) -> tuple[float, float]:
    """Return the exact mean and variance of a Gaussian after an affine step."""
    zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    b = sampler.step(rsde, zero, t, s, Unit(0.0))
    a = sampler.step(rsde, one, t, s, Unit(0.0)) - b
    c = sampler.step(rsde, zero, t, s, Unit(1.0)) - b
    return float(a * mean + b), float(a**2 * var + c**2)


@torch.no_grad()
def chains(
    score: Callable, sde: SDE, sampler: Sampler, steps: int, x: Tensor, t: float | Tensor, seed: int
) -> Tensor:
    """Make Langevin steps at the noise level of time t from every point of x."""
    return correct(sampler, steps, sde.reverse(score), x, t, Noise.of(seed, len(x)))


def in_the_box(n: int) -> Tensor:
    """Return uniform points of the box, from which chains start."""
    return BOX * (2 * torch.rand(n, 2, generator=seeded(2)) - 1)


def upper(x: Tensor) -> float:
    """Return the share of points above the diagonal between the modes of Song's mixture."""
    return float((x.sum(1) > 0).float().mean())


def interval(share: float, n: int) -> float:
    """Return half the width of a 95 % interval of a share of n."""
    return 1.96 * math.sqrt(max(share * (1 - share), 1 / n) / n)

"""Adapt azula's samplers of posteriors."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

# The noise levels of the benchmark.
LOW, HIGH = 0.02, 30.0


def exact(problem: Any) -> Any:
    """Return the exact denoiser as one of azula's."""
    denoise, noise = import_module("azula.denoise"), import_module("azula.noise")

    class Exact(denoise.Denoiser):
        schedule = noise.VESchedule(LOW, HIGH)

        def forward(self, x: Tensor, t: Tensor, **kwargs: Any) -> Any:
            _, sigma = self.schedule(t)
            return denoise.DiracPosterior(problem.prior.denoise(x, sigma))

    return Exact()


def start(problem: Any, sampler: Any) -> Tensor:
    """Draw the states at the largest noise."""
    shape = (problem.n, *problem.prior.facts.event_shape)
    return sampler.init(shape, dtype=torch.float64)


def stacked(problem: Any) -> Tensor:
    """Return the measurement once for each sample."""
    return problem.y.expand(problem.n, *problem.y.shape)


def mmps(iterations: int, kind: str = "HeunSampler", calls: int = 2) -> Callable[[Any], Tensor]:
    """Return MMPS with a sampler that makes `calls` calls in a step."""

    def draw(problem: Any) -> Tensor:
        guidance, sample = import_module("azula.guidance"), import_module("azula.sample")
        cov = import_module("azula.linalg.covariance")
        std = float(problem.scanner.std)
        given = guidance.MMPSDenoiser(
            exact(problem), stacked(problem), problem.scanner,
            cov.IsotropicCovariance(torch.tensor(std**2).double()), iterations=iterations,
        )  # fmt: skip
        cost = 1 + 2 * (iterations + 1)
        steps = max(problem.budget // (calls * cost), 1)
        sampler = getattr(sample, kind)(given, steps=steps, silent=True, dtype=torch.float64)
        return sampler(start(problem, sampler))

    return draw


def pigdm(problem: Any) -> Tensor:
    """Draw by its PiGDM, which knows no noise of the measurement, with eta = 1 as in the paper."""
    guidance = import_module("azula.guidance")
    event = problem.prior.facts.event_shape
    eye = torch.eye(torch.Size(event).numel(), dtype=torch.float64).reshape(-1, *event)
    inverse = torch.linalg.pinv(problem.scanner(eye).flatten(1).T)

    def back(y: Tensor) -> Tensor:
        return (y.flatten(1) @ inverse.T).reshape(-1, *event)

    sampler = guidance.PGDMSampler(
        exact(problem), stacked(problem), problem.scanner, back, eta=1.0,
        steps=max(problem.budget // 3, 1), silent=True, dtype=torch.float64,
    )  # fmt: skip
    return sampler(start(problem, sampler))


def dps(zeta: float) -> Callable[[Any], Tensor]:
    """Return DPS, whose step is divided by the norm of the residuals of the whole batch."""

    def draw(problem: Any) -> Tensor:
        guidance = import_module("azula.guidance")
        sampler = guidance.DPSSampler(
            exact(problem), stacked(problem), problem.scanner, zeta=zeta * problem.n**0.5,
            steps=max(problem.budget // 3, 1), silent=True, dtype=torch.float64,
        )  # fmt: skip
        return sampler(start(problem, sampler))

    return draw


def tds(problem: Any) -> Tensor:
    """Draw by its twisted sequential Monte Carlo, all samples the particles of one run."""
    guidance = import_module("azula.guidance")
    std = float(problem.scanner.std)

    def twist(x0: Tensor, sigma: Tensor) -> Tensor:
        var = std**2 + sigma**2 / (1 + sigma**2)
        gap = (problem.y - problem.scanner(x0)).flatten(1)
        return -((gap**2 / var + var.log()).sum(1)) / 2

    sampler = guidance.TDSSampler(
        exact(problem), twist, steps=max(problem.budget // 3, 1), silent=True, dtype=torch.float64
    )
    return sampler(start(problem, sampler))


AZULA: dict[str, Callable[[Any], Tensor]] = {
    "MMPS, 1 iteration": mmps(1),
    "MMPS, 3": mmps(3),
    "MMPS, 1, multistep": mmps(1, "xEABSampler", 1),
    "MMPS, 2, multistep": mmps(2, "xEABSampler", 1),
    "MMPS, 3, multistep": mmps(3, "xEABSampler", 1),
    "MMPS, 6, multistep": mmps(6, "xEABSampler", 1),
    "PiGDM": pigdm,
    "DPS, zeta .3": dps(0.3),
    "DPS, zeta 1": dps(1.0),
    "TDS": tds,
}

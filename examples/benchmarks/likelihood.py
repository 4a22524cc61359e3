"""Compare the errors of log-densities with those of the usual method.

The targets have known scores and densities: eight modes in the plane, and a Gaussian in 16
dimensions with a full covariance. The usual method is scipy's RK45 at rtol = atol = 1e-5, on the
whole batch in x and t, from eps = 1e-5 to T, with the prior of the SDE. Both methods are compared
with the exact log-density at their own eps, with the exact trace and with K Rademacher probes.

    python examples/benchmarks/likelihood.py          # a minute
"""

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from scoresde import SDE, VESDE, VPSDE, SubVPSDE, log_prob
from scoresde.divergence import divergence, hutchinson
from scoresde.targets import Gaussian, GaussianMixture
from scoresde.targets.target import Target

# With it our evaluations are about as many as those of the usual recipe.
TOLERANCE = 1.5e-5


def targets() -> dict[str, Target]:
    """Return the two problems."""
    angle = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    ring = 4 * torch.stack([angle.cos(), angle.sin()], 1)
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64))
    variances = torch.logspace(-2, 0.5, 16, dtype=torch.float64)
    return {
        "8 modes": GaussianMixture([1 / 8] * 8, ring, stds=0.3),
        "Gaussian, 16-d": Gaussian(torch.linspace(-1, 1, 16), (basis * variances) @ basis.T),
    }


def classical(
    target: Target, sde: SDE, x: Tensor, eps: float = 1e-5, probes: Tensor | None = None
) -> tuple[Tensor, int]:
    """Return the log-densities `(B,)` of the usual method, and its evaluations of the batch."""
    score, shape, size = target.at(sde), x.shape, x[0].numel()

    def field(t: float, state: object) -> object:
        y = torch.as_tensor(state)[: x.numel()].reshape(shape)
        time = torch.tensor(min(t, sde.T), dtype=torch.float64)
        f, g2 = (float(v) for v in sde.coefficients(time))
        at = time.expand(len(x))
        if probes is None:
            value, trace = divergence(lambda u: score(u, at), y)
        else:
            value, estimates = hutchinson(lambda u: score(u, at), y, probes)
            trace = estimates.mean(0)
        drift, rise = f * y - 0.5 * g2 * value, f * size - 0.5 * g2 * trace
        return torch.cat([drift.flatten(), rise]).numpy()

    start = torch.cat([x.flatten(), x.new_zeros(len(x))]).numpy()
    found = solve_ivp(field, (eps, sde.T), start, method="RK45", rtol=1e-5, atol=1e-5)
    end = torch.from_numpy(found.y[:, -1])
    return sde.prior_log_prob(end[: x.numel()].reshape(shape)) + end[x.numel() :], found.nfev


@dataclass(frozen=True)
class Row:
    """Hold the results of one problem under one SDE; errors are in nats per sample."""

    target: str
    sde: str
    probes: int | None
    error: float
    nfe: float
    bar: float
    usual_error: float
    usual_nfe: int


def compare(n: int, probes: tuple[int, ...] = (1, 4, 16)) -> Iterator[Row]:
    """Yield a row for every problem, SDE and trace (exact or with K probes)."""
    for name, target in targets().items():
        for sde in (VESDE(), VPSDE(), SubVPSDE()):
            generator = torch.Generator().manual_seed(1)
            data = target.sample(n, generator=generator, dtype=torch.float64)
            noise = torch.randn(data.shape, generator=generator, dtype=torch.float64)
            ours, usual = (sde.perturb(data, eps, noise) for eps in (sde.eps, 1e-5))
            exact = target.log_prob(ours, sde, sde.eps)
            usual_exact = target.log_prob(usual, sde, 1e-5)
            for k in (None, *probes):
                found = log_prob(
                    target.at(sde), sde, ours, t=sde.eps, probes=k or 1, seed=2,
                    method="hutchinson" if k else "exact", rtol=TOLERANCE, atol=TOLERANCE,
                    error="estimate",
                )  # fmt: skip
                signs = None
                if k:
                    signs = torch.randn(k, *data.shape, generator=generator).double().sign()
                other, usual_nfe = classical(target, sde, usual, probes=signs)
                gaps = found.value - exact, other - usual_exact
                # with probes the root mean square, where single values matter
                errors = [
                    float(g.abs().mean() if k is None else (g**2).mean().sqrt()) for g in gaps
                ]
                yield Row(
                    name, type(sde).__name__, k, errors[0], float(found.nfe.double().mean()),
                    float(found.error.mean()), errors[1], usual_nfe,
                )  # fmt: skip


def data_density(n: int) -> Iterator[tuple[str, str, float, float]]:
    """Yield the mean error of log p_0 and its mean bar, for every problem and SDE."""
    for name, target in targets().items():
        x = target.sample(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        for sde in (VESDE(), VPSDE(), SubVPSDE()):
            found = log_prob(target.at(sde), sde, x)
            error = (found.value - target.log_prob(x)).abs().mean()
            yield name, type(sde).__name__, float(error), float(found.error.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=64, help="points of each target")
    parser.add_argument("--short", action="store_true", help="few points, to see that all runs")
    options = parser.parse_args()
    n = min(options.n, 4) if options.short else options.n
    print(f"{'':34}{'scoresde':>28}{'the usual recipe':>22}")
    print(
        f"{'target':16}{'SDE':10}{'trace':8}{'error':>10}{'bar':>9}{'nfe':>9}{'error':>14}{'nfe':>8}"
    )
    for row in compare(n):
        trace = "exact" if row.probes is None else f"K = {row.probes}"
        print(
            f"{row.target:16}{row.sde:10}{trace:8}{row.error:10.1e}{row.bar:9.1e}{row.nfe:9.0f}"
            f"{row.usual_error:14.1e}{row.usual_nfe:8}"
        )
    print("\nlog p_0, the density of the data themselves: error and bar")
    for name, sde, error, bar in data_density(n):
        print(f"{name:16}{sde:10}{error:10.1e}{bar:10.1e}")


if __name__ == "__main__":
    main()

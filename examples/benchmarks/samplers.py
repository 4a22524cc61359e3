r"""Compare samplers of this package with those of azula, diffusers and k-diffusion.

There are three comparisons; `--short` runs all of them in seconds, to see that they work:

1. by default, the error at equal numbers of evaluations, on problems whose exact score is known:
   `scoresde bench samplers --peers`, whose other options are described there;
2. `--pc`, the errors of the variance and of the modes' shares by predictor-corrector sampling as
   published (Song et al. 2021, algorithm 1 and appendix G, arXiv:2011.13456), with a Langevin step
   from norms averaged over the batch, and by `sampler="pc"` with at most as many evaluations;
3. `--cost`, the time of a loop besides its network, as a ratio to the time of a minimal loop of
   DPM-Solver++(2M) written by hand.

    pip install 'scoresde[peers]' && pip install --no-deps k-diffusion
    python examples/benchmarks/samplers.py            # the tuning set: a quarter of an hour
    python examples/benchmarks/samplers.py --pc       # ten minutes
    python examples/benchmarks/samplers.py --cost     # a minute
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from scoresde import SAMPLERS, sample
from scoresde.arena import Problem
from scoresde.arena.peers import peers
from scoresde.cli.bench import Bench
from scoresde.errors import MissingExtraError
from scoresde.metrics import mean_interval
from scoresde.score import from_denoiser
from scoresde.sde import EDMSDE, VESDE, VPSDE
from scoresde.targets import GaussianMixture, SongMixture


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    pc: bool = False
    """Compare predictor-corrector sampling with the published algorithm."""
    cost: bool = False
    """Compare what the loops cost besides the network."""
    n: int = 50_000
    """Samples with `--pc`, in batches of 2,000."""
    out: Path | None = None
    """The folder in which the errors of the samplers are written and drawn."""
    short: bool = False
    """Seconds instead of minutes."""


# --- predictor-corrector sampling as published ----------------------------------------------------


def published(problem: Problem, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Draw samples by Langevin steps with snr .16 and batch-mean norms, and reverse diffusion.

    The grid is `linspace(T, eps, N)`. The predictor makes N steps: for VE to the next level, the
    last one to no noise, and for VP with beta(t) / N each. The last step adds no noise.
    """
    sde, mean = problem.sde, x
    times = torch.linspace(sde.T, sde.eps, steps, dtype=torch.float64)
    exploding = type(sde) is VESDE
    for i, t in enumerate(times):
        score = problem.score(x, t)
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        ratio = 0.16 * z.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
        beta = 0.0 if exploding else float(sde.beta_min + t * (sde.beta_max - sde.beta_min)) / steps
        step = 2 * ratio**2 * (1 - beta)
        x = x + step * score + (2 * step).sqrt() * z
        score = problem.score(x, t)
        if exploding:
            below = sde.sigma(times[i + 1]) if i + 1 < steps else 0.0
            scale, variance = 1.0, float(sde.sigma(t) ** 2 - below**2)
        else:
            scale, variance = 2 - math.sqrt(1 - beta), beta
        mean = scale * x + variance * score
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        x = mean + math.sqrt(variance) * z
    return mean


def own(problem: Problem, x: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Draw samples by `sampler="pc"` with at most as many evaluations."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return sample(problem.score, problem.sde, "pc", x=x, nfe=2 * steps, seed=seed, progress=False)


def compare_pc(options: Options) -> None:
    """Print the errors of the variance, the variance within modes and the first mode's share."""
    blobs = GaussianMixture(
        [0.4, 0.3, 0.2, 0.1], [[-2.0, -1.0], [2.0, 0.5], [0.0, 2.5], [1.0, -2.5]],
        stds=[0.5, 0.25, 0.2, 0.15],
    )  # fmt: skip
    batch = 200 if options.short else 2000
    batches = 2 if options.short else max(2, options.n // batch)
    print(f"{batch * batches} samples, a batch of {batch} at a time; [95 % intervals]\n")
    print(f"{'problem':24}{'evaluations':>12}  {'sampler':10}", end="")
    print("".join(f"{title:>24}" for title in ("variance, %", "within modes, %", "share, %")))
    for target in (blobs,) if options.short else (SongMixture(), blobs):
        for sde in (VESDE(), VPSDE()):
            problem = Problem.of(target, sde)
            for steps in (30,) if options.short else (100, 300, 1000):
                for name, run in (("published", published), ("pc", own)):
                    figures = _pc_errors(problem, run, steps, batch, batches)
                    print(
                        f"{problem.name:24}{2 * steps:>12}  {name:10}"
                        + "".join(f"{figure:>24}" for figure in figures),
                        flush=True,
                    )


def _pc_errors(
    problem: Problem, run: Callable[..., Tensor], steps: int, batch: int, batches: int
) -> list[str]:
    """Errors in per cent, as text: means over batches of what each estimates without bias."""
    exact = _facts(problem, problem.exact(2**18, 0))
    errors = []
    for i in range(batches):
        generator = torch.Generator().manual_seed(i)
        x = run(problem, problem.start(batch, i), steps, generator).double()
        total, within, share = _facts(problem, x)
        errors.append([total / exact[0] - 1, within / exact[1] - 1, share - exact[2]])
    texts = []
    for values in 100 * torch.tensor(errors).T:
        low, high = mean_interval(values)
        texts.append(f"{float(values.mean()):.2f} [{low:.2f}, {high:.2f}]")
    return texts


def _facts(problem: Problem, x: Tensor) -> tuple[float, float, float]:
    """Return mean squared distances to the data's mean and the modes, and a mode's share."""
    mode = problem.target.assign(x)
    total = (x - problem.moments.mean).square().sum(1).mean()
    within = (x - problem.target.means[mode]).square().sum(1).mean()
    return float(total), float(within), float((mode == 0).double().mean())


# --- what a loop costs besides its network --------------------------------------------------------


def by_hand(denoiser: Callable[..., Tensor], rho: Tensor, y: Tensor) -> Tensor:
    """Run DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095) in a minimal loop."""
    h = (rho[:-1] / rho[1:]).log().tolist()
    shrink = (rho[1:] / rho[:-1]).tolist()
    levels, before = rho.unbind(), None
    for i, factor in enumerate(shrink):
        denoised = denoiser(y, levels[i])
        blend = denoised
        if before is not None:
            half = h[i] / h[i - 1] / 2
            blend = (1 + half) * denoised - half * before
        y = factor * y + (1 - factor) * blend
        before = denoised
    return y


def compare_cost(options: Options) -> None:
    """Print median times over interleaved repeats, and ratios to the loop written by hand."""
    torch.set_num_threads(1)  # so that the time of this thread is the whole time
    steps, repeats = 50, 3 if options.short else 41
    sde = EDMSDE()
    rho = sde.times(steps)

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        return 0.5 * x

    score = from_denoiser(denoiser, sde)
    loops: dict[str, Callable[[Tensor], Tensor]] = {
        "by hand, DPM++(2M)": lambda x: by_hand(denoiser, rho, x)
    }
    for name, sampler in SAMPLERS.items():
        if sampler.steps_for(steps) == steps:
            loops[name] = lambda x, name=name: sample(
                score, sde, name, x=x, steps=steps, denoise=False, seed=0, progress=False
            )
    for library, name in (("k_diffusion", "dpmpp_2m"), ("diffusers", "DPM++2M")):
        try:
            method = peers([library])[f"{library}:{name}@karras"].method
        except MissingExtraError as error:
            print(error)
            continue
        loops[f"{library}:{name}"] = lambda x, run=method.run: run(denoiser, rho, x)
    for shape in ((1, 2),) if options.short else ((1, 2), (64, 3, 32, 32)):
        x = 80 * torch.randn(shape)
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        with torch.no_grad():
            for _ in range(repeats):
                for name, loop in loops.items():
                    if sum(seconds[name]) > 3 <= len(seconds[name]):
                        continue  # its median is known well enough
                    start = time.thread_time()
                    loop(x)
                    seconds[name].append(time.thread_time() - start)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        least = medians["by hand, DPM++(2M)"]
        print(f"\nbatch {shape}, float32, {steps} steps of x -> x / 2")
        print(f"{'':24}{'µs a step':>12}{'ratio':>8}")
        for name, median in sorted(medians.items(), key=lambda item: item[1]):
            print(f"{name:24}{1e6 * median / steps:>12.1f}{median / least:>8.2f}")


def main(options: Options) -> None:
    if options.pc or options.short:
        compare_pc(options)
    if options.cost or options.short:
        compare_cost(options)
    if options.short or not (options.pc or options.cost):
        Bench(peers=True, short=options.short, out=options.out).run()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__.splitlines()[0]))

r"""Compare `"fast"` with samplers of other libraries, on densities of images and in low dimensions.

All samplers start from the same draws of p_T. The error is the distance to the exact flow map in
units of the data's standard deviation, the root mean square over samples. The worst tenth of the
samples is left out, since a single sample that ends at another image would determine the mean. A
second figure is the share of samples that end at another mode than the exact flow.

`"fast"` knows the mean and one variance. It measures its pilot and chooses its settings on 32
starts of its own. The peers are the 15 settings below. The "best peer" has the smallest error for a
problem and a budget; the "peer chosen on other starts" had the smallest error on the first third of
the starts. All errors are measured on the other starts. Ratios are geometric means over the
problems, with 95 % intervals from resampled problems and starts.

    pip install 'scoresde[peers]' && pip install --no-deps k-diffusion
    python examples/benchmarks/densities.py                    # the judging half, half an hour
    python examples/benchmarks/densities.py --part tuning
    python examples/benchmarks/densities.py --noise            # laws of samplers with noise
    python examples/benchmarks/densities.py --short            # a minute
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import tyro
from torch import Tensor

from scoresde import arena
from scoresde.arena import FAST, Contender, Problem
from scoresde.arena.judges import flow_errors
from scoresde.arena.peers import peers
from scoresde.errors import MissingExtraError, NonFiniteError
from scoresde.sde import EDMSDE, VESDE, VPSDE, FlowSDE
from scoresde.targets import GaussianMixture

PEERS = {
    "diffusers:DEIS-3": ("exp", "karras", "time"),
    "diffusers:UniPC-2": ("exp", "karras", "time"),
    "diffusers:UniPC-3-full": ("exp", "karras", "time"),
    "diffusers:DPM++2M": ("exp", "time"),
    "azula:REAB-3": ("exp",),
    "azula:xEAB-3": ("exp",),
    "azula:zEAB-3": ("exp",),
    "k_diffusion:dpmpp_3m-eta0": ("exp",),
}
"""The peers on their grids: on the tuning half eleven came within .1 % of the best of 28."""
TWO = (
    (0.5, 0.0015, VESDE()), (0.5, 0.0015, VPSDE()), (0.5, 0.005, EDMSDE()), (0.5, 0.0005, VESDE()),
    (0.8, 0.0015, FlowSDE()), (0.2, 0.0015, VPSDE()),
)  # fmt: skip
"""Two modes: the weight of the mode of width .5, the width of the other mode, and the SDE."""
_OWN = ("fast", "fast, no fit", "fast, no choice", "fast, no pilot")
# The share of samples left out, and of starts on which a peer is chosen.
_LEFT_OUT, _FIRST = 0.1, 1 / 3


@dataclass(frozen=True)
class Options:
    """Choose what to run."""

    part: Literal["tuning", "judging"] = "judging"
    """The half of the problems."""
    n: int = 96
    """Starts."""
    budgets: tuple[int, ...] = (5, 10, 20, 50)
    """Evaluations of the score for each sample."""
    noise: bool = False
    """Instead of this, compare the laws of "fast_sde" and "dpmpp_2m_sde"."""
    resamples: int = 1000
    """Resamples of problems and starts, for the intervals."""
    short: bool = False
    """One problem of each kind, few starts."""


@dataclass(frozen=True)
class Run:
    """Hold squared errors of a contender, and 1 for samples that end in another mode, `(n,)`."""

    squares: Tensor
    other: Tensor


def contenders() -> tuple[dict[str, Contender], dict[str, Contender]]:
    """Return ours, and the peers that are installed."""
    own = {name: FAST[name] for name in _OWN} | arena.contenders(["dpmpp_2m"])
    found: dict[str, Contender] = {}
    for library in ("azula", "diffusers", "k_diffusion"):
        try:
            found |= peers([library])
        except MissingExtraError as error:
            print(f"without {library}: {error}")
    names = [f"{method}@{grid}" for method, grids in PEERS.items() for grid in grids]
    return own, {name: found[name] for name in names if name in found}


def run(problem: Problem, contender: Contender, n: int, budget: int) -> Run:
    """Return the errors of a contender; infinite where it fails or the budget is too small."""
    x = problem.start(n, 0)
    try:
        found = contender(problem, x.clone(), budget, 0)
    except NonFiniteError:
        found = None
    if found is None or not found[0].isfinite().all():
        return Run(torch.full((n,), math.inf, dtype=torch.float64), torch.ones(n))
    exact = problem.finish(problem.flow(problem, x)) if n not in _ends(problem) else None
    if exact is not None:
        _ends(problem)[n] = exact
    if problem.target is None:
        return Run(flow_errors(problem, found[0], n, 0), torch.full((n,), math.nan))
    modes = [problem.target.assign(part.double()) for part in (found[0], _ends(problem)[n])]
    return Run(flow_errors(problem, found[0], n, 0), (modes[0] != modes[1]).double())


_KEPT: dict[str, dict[int, Tensor]] = {}


def _ends(problem: Problem) -> dict[int, Tensor]:
    return _KEPT.setdefault(problem.name, {})


def error(squares: Tensor) -> Tensor:
    """Return the root mean square of `(..., n)`, of all but the worst tenth."""
    kept = squares.sort(-1).values[..., : max(round((1 - _LEFT_OUT) * squares.shape[-1]), 1)]
    return kept.mean(-1).sqrt().clamp(min=1e-9)


def geometric(
    ours: list[Tensor], theirs: list[Tensor], resamples: int
) -> tuple[float, float, float]:
    """Return the geometric mean of ratios of errors, and its 95 % interval.

    Args:
        ours: The squared errors of each problem, `(n,)`.
        theirs: Those of one peer, `(n,)`, or of several, `(K, n)`, of which the best counts.
        resamples: The number of resamples of problems and starts.
    """
    g = torch.Generator().manual_seed(0)
    logs = []
    for own, other in zip(ours, theirs, strict=True):
        rows = torch.randint(len(own), (resamples + 1, len(own)), generator=g)
        rows[0] = torch.arange(len(own))
        best = torch.stack([error(peer[rows]) for peer in torch.atleast_2d(other)]).amin(0)
        logs.append((error(own[rows]) / best).log())
    table = torch.stack(logs)
    chosen = torch.randint(len(table), (resamples, len(table)), generator=g)
    means = torch.stack([table[pick, i + 1].mean() for i, pick in enumerate(chosen)]).exp()
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return float(table[:, 0].mean().exp()), low, high


def report(name: str, problems: Sequence[Problem], options: Options) -> None:
    """Print the tables of a group of problems."""
    own, rivals = contenders()
    first = round(_FIRST * options.n)
    print(f"\n{name}, {len(problems)} problems, {options.n - first} starts")
    table: dict[tuple[str, int], dict[str, Run]] = {}
    for problem in problems:
        for budget in options.budgets:
            table[problem.name, budget] = {
                who: run(problem, contender, options.n, budget)
                for who, contender in {**own, **rivals}.items()
            }
        cells = []
        for budget in options.budgets:
            runs = table[problem.name, budget]
            best = min(float(error(runs[who].squares[first:])) for who in rivals)
            mine = runs["fast"]
            cells.append(
                f"{budget:3}: {float(error(mine.squares[first:])):.2e} peer {best:.2e} "
                f"ratio {float(error(mine.squares[first:])) / best:5.2f}"
            )
        print(f"  {problem.name:32} " + "  ".join(cells), flush=True)
    ratios = _ratios(table, problems, own, rivals, first, options)
    for line in ratios:
        print(line)


def _ratios(
    table: dict[tuple[str, int], dict[str, Run]],
    problems: Sequence[Problem],
    own: dict[str, Contender],
    rivals: dict[str, Contender],
    first: int,
    options: Options,
) -> list[str]:
    def cells(make: Callable[[int], str]) -> str:
        return "".join(f"{make(budget):>22}" for budget in options.budgets)

    def ratio(who: str, budget: int, chosen: bool) -> str:
        ours, theirs = [], []
        for problem in problems:
            runs = table[problem.name, budget]
            ours.append(runs[who].squares[first:])
            names = list(rivals)
            if chosen:
                names = [min(names, key=lambda name: float(error(runs[name].squares[:first])))]
            theirs.append(torch.stack([runs[name].squares[first:] for name in names]))
        mean, low, high = geometric(ours, theirs, options.resamples)
        return f"{mean:.2f} [{low:.2f}, {high:.2f}]"

    def median(who: str, budget: int) -> str:
        found = [table[p.name, budget][who].squares[first:].median().sqrt() for p in problems]
        return f"{float(torch.stack(found).clamp(min=1e-9).log().mean().exp()):.2e}"

    def share(who: str, budget: int) -> str:
        found = [table[p.name, budget][who].other[first:].mean() for p in problems]
        return f"{100 * float(torch.stack(found).mean()):.1f} %"

    def peers_share(budget: int) -> str:
        least = []
        for p in problems:
            runs = table[p.name, budget]
            best = min(rivals, key=lambda name: float(error(runs[name].squares[first:])))
            least.append(runs[best].other[first:].mean())
        return f"{100 * float(torch.stack(least).mean()):.1f} %"

    lines = [f"{'evaluations':36}" + cells(str)]
    for who in own:
        for chosen in (False, True):
            what = "peer chosen on other starts" if chosen else "best peer"
            lines.append(
                f"{who + ' / ' + what:36}"
                + cells(lambda b, who=who, chosen=chosen: ratio(who, b, chosen))
            )
        lines.append(f"{who + ', median error':36}" + cells(lambda b, who=who: median(who, b)))
        lines.append(f"{who + ', another mode':36}" + cells(lambda b, who=who: share(who, b)))
    return [*lines, f"{'best peer, another mode':36}" + cells(peers_share)]


def noise(short: bool) -> None:
    """Print the errors of the laws of two samplers with noise, of exact samples in brackets."""
    two = [
        Problem.of(
            GaussianMixture([wide, 1 - wide], [[-1.0, 0.0], [1.0, 0.0]], stds=[0.5, narrow]),
            sde, f"two widths, {narrow}, {1 - wide:.1f}/{type(sde).__name__}",
        )
        for wide, narrow, sde in TWO
    ]  # fmt: skip
    kinds = ("hopper-colour-8-0.2", "widths-128-1", "terrain-8-0.2", "sheets-0")
    judging = [p for p in arena.image_densities("judging") if p.name.split("/")[0] in kinds]
    entered = {"fast_sde": FAST["fast_sde"], "dpmpp_2m_sde": "dpmpp_2m_sde"}
    for problem in two[:1] if short else [*two, *arena.TUNING, *judging]:
        n = 50 if short else 2000 if problem in judging else 4000
        found = arena.compare(entered, [problem], (10, 20), by="law", n=n, repeats=2)
        for budget, who in itertools.product((10, 20), entered):
            energy, spread, modes = (
                found.get(who, problem.name, budget, metric)
                for metric in ("energy", "spread", "modes")
            )
            parts = [f"{1e4 * v:.1f}" for v in (energy.value, energy.low, energy.high)]
            print(
                f"{problem.name:28} {budget:3} {who:14} energy {parts[0]} [{parts[1]}, {parts[2]}] "
                f"spread {100 * spread.value:.1f} ({100 * (spread.floor or 0):.1f}) "
                f"modes {100 * modes.value:.1f} ({100 * (modes.floor or 0):.1f})",
                flush=True,
            )


def main(options: Options) -> None:
    """Print the tables."""
    if options.noise:
        noise(options.short)
        return
    images = arena.image_densities(options.part)
    low = arena.TUNING if options.part == "tuning" else arena.HELD_OUT
    if options.short:
        options = Options(options.part, n=12, budgets=(5, 10), resamples=20)
        kinds = {
            problem.name.split("-")[0]: problem for problem in images if "16" not in problem.name
        }
        images, low = tuple(kinds.values())[:3], low[:1]
    report("densities of images and many dimensions", images, options)
    report("low dimensions", low, options)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

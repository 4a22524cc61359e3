r"""Count how often error bars of log-densities contain the exact value, and measure their width.

Each quantity with an error bar is computed at many points in many settings with a known exact
value. A row of the table has the share of bars that contain the exact value, its one-sided lower 99
% bound (Clopper & Pearson 1934), the smallest share of a single setting, and the median of the bar
over the error. If 95 % bars have the right length, this median is about 3. The constants of the
error bars were chosen on other problems.

A new row is a function that yields a `Setting` for each of its settings, and a name in
`LIKELIHOODS`.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from scipy.stats import beta
from torch import Tensor

from scoresde import EDMSDE, SDE, VESDE, VPSDE, CosineSDE, SubVPSDE, log_prob
from scoresde.likelihood import LogProb, elbo
from scoresde.targets import Gaussian, GaussianMixture, Rings, SongMixture
from scoresde.targets.target import Target


@dataclass(frozen=True)
class Setting:
    """Hold for each point of a setting whether the bar contains the value, and bar / error."""

    name: str
    held: Tensor
    ratio: Tensor

    @classmethod
    def of(cls, name: str, bar: Tensor, error: Tensor) -> "Setting":
        """Return the setting for half-widths and errors of the points, `(n,)` each."""
        error = error.abs().clamp(min=1e-300)
        return cls(name, bar >= error, bar / error)


@dataclass(frozen=True)
class Row:
    """Hold the results of all settings of a quantity."""

    quantity: str
    settings: int
    pairs: int
    coverage: float
    bound: float
    least: float
    where: str
    ratio: float

    @classmethod
    def of(cls, quantity: str, settings: list[Setting]) -> "Row":
        """Return the row of a quantity from its settings."""
        held = torch.cat([setting.held for setting in settings]).double()
        n, k = len(held), int(held.sum())
        least = min(settings, key=lambda setting: float(setting.held.double().mean()))
        return cls(
            quantity=quantity,
            settings=len(settings),
            pairs=n,
            coverage=k / n,
            bound=float(beta.ppf(0.01, k, n - k + 1)) if k else 0.0,
            least=float(least.held.double().mean()),
            where=least.name,
            ratio=float(torch.cat([setting.ratio for setting in settings]).median()),
        )


# --- likelihoods ----------------------------------------------------------------------------------


def skewed(d: int, seed: int) -> GaussianMixture:
    """Return three modes in d dimensions, with covariances that are not diagonal."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(3, d, d, generator=generator, dtype=torch.float64) / math.sqrt(d)
    scale = torch.tensor([0.4, 0.8, 1.2], dtype=torch.float64)[:, None, None]
    means = 0.7 * torch.randn(3, d, generator=generator, dtype=torch.float64)
    return GaussianMixture([0.2, 0.3, 0.5], means, scale * a @ a.mT + 0.05 * torch.eye(d))


def targets(short: bool) -> dict[str, Target]:
    """Return the problems, of one to six dimensions."""
    line = GaussianMixture([0.1, 0.6, 0.3], [[-2.0], [0.0], [1.2]], stds=[0.2, 0.5, 0.1])
    if short:
        return {"three modes": line}
    return {
        "three modes": line,
        "rings": Rings(),
        "desert": SongMixture(),
        "skewed, 3-d": skewed(3, 1),
        "Gaussian, 6-d": Gaussian(torch.linspace(-2, 2, 6), var=torch.logspace(-2, 1, 6)),
    }


def sdes(short: bool) -> dict[str, SDE]:
    """Return the processes."""
    some: dict[str, SDE] = {"VP": VPSDE()}
    return some if short else some | {"VE": VESDE(), "EDM": EDMSDE(), "cosine": CosineSDE()}


def compared(name: str, found: LogProb, truth: Tensor) -> Setting:
    """Return a setting of log-densities with known exact values."""
    return Setting.of(name, found.error, found.value - truth)


def draws(target: Target, n: int, seed: int, *at: object) -> Tensor:
    """Draw points from a target, or from its p_t."""
    generator = torch.Generator().manual_seed(seed)
    return target.sample(n, *at, generator=generator, dtype=torch.float64)


def solver(short: bool) -> Iterator[Setting]:
    """Yield densities at eps, where only the solver has an error, at several tolerances."""
    for target_name, target in targets(short).items():
        for sde_name, sde in sdes(short).items():
            x = draws(target, 100, 1, sde, sde.eps)
            truth = target.log_prob(x, sde, sde.eps)
            for tol in (1e-3, 1e-5) if short else (1e-3, 1e-4, 1e-5, 1e-6):
                found = log_prob(target.at(sde), sde, x, t=sde.eps, rtol=tol, atol=tol)
                yield compared(f"{target_name}, {sde_name}, {tol:g}", found, truth)


def data(short: bool) -> Iterator[Setting]:
    """Yield densities of the data, for two values of eps."""
    for target_name, target in targets(short).items():
        x = draws(target, 100, 2)
        truth = target.log_prob(x)
        for kind in (VPSDE,) if short else (VPSDE, SubVPSDE, EDMSDE):
            for sde in (kind(), kind(eps=8e-3)):
                found = log_prob(target.at(sde), sde, x)
                yield compared(f"{target_name}, {kind.__name__}, {sde.eps}", found, truth)


def prior(short: bool) -> Iterator[Setting]:
    """Yield densities at T of processes that end too early; each point has its own seed."""
    for target_name, target in targets(short).items():
        if len(target.weights) == 1:
            continue  # a Gaussian's prior is exact
        for T in (0.5,) if short else (0.7, 0.5, 0.3):
            sde, parts = VPSDE(T=T), []
            x = draws(target, 40 if short else 170, 3, sde, T)
            for i in range(len(x)):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a warning says that T is too small
                    parts.append(log_prob(target.at(sde), sde, x[i : i + 1], t=T, seed=i))
            truth = target.log_prob(x, sde, T)
            yield compared(f"{target_name}, T = {T}", LogProb.cat(parts), truth)


def probes(short: bool) -> Iterator[Setting]:
    """Yield densities at eps with a random trace, whose error is larger than the solver's."""
    n, dimensions = (60, (20,)) if short else (300, (20, 40))
    for d in dimensions:
        target = skewed(d, 7)
        for sde_name, sde in ({"VP": VPSDE()} if short else {"VP": VPSDE(), "VE": VESDE()}).items():
            x = draws(target, n, 4, sde, sde.eps)
            truth = target.log_prob(x, sde, sde.eps)
            for k in (16,) if short else (8, 16, 32):
                if k >= d:
                    continue
                options = dict(method="hutchinson", probes=k, t=sde.eps, rtol=1e-3, atol=1e-3)
                found = log_prob(target.at(sde), sde, x, **options)
                yield compared(f"{d}-d, {sde_name}, K = {k}", found, truth)


def bound(short: bool) -> Iterator[Setting]:
    """Yield variational bounds, which are tight for exact scores."""
    for target_name, target in targets(short).items():
        for sde_name, sde in sdes(short).items():
            x = draws(target, 200, 5)
            truth = target.log_prob(x)
            for count in (16,) if short else (16, 64):
                found = elbo(target.at(sde), sde, x, draws=count)
                yield compared(f"{target_name}, {sde_name}, {count} draws", found, truth)


LIKELIHOODS: dict[str, Callable[[bool], Iterator[Setting]]] = {
    "solver": solver,
    "data": data,
    "prior": prior,
    "probes": probes,
    "bound": bound,
}


def likelihood_rows(short: bool = False) -> list[Row]:
    """Return the rows of log-densities."""
    return [Row.of(name, list(found(short))) for name, found in LIKELIHOODS.items()]


def table(short: bool, settings: bool) -> Iterator[str]:
    """Yield the lines of the table, each followed by those of its settings if `settings`."""
    yield "| quantity | settings | pairs | held | at least | least | where | bar / error |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, found in LIKELIHOODS.items():
        all_ = list(found(short))
        row = Row.of(name, all_)
        yield (
            f"| {name} | {row.settings} | {row.pairs} | {row.coverage:.3f} | {row.bound:.3f} "
            f"| {row.least:.2f} | {row.where} | {row.ratio:.1f} |"
        )
        for one in all_ if settings else []:
            held, ratio = one.held.double().mean(), one.ratio.median()
            yield f"    {one.name:40}{held:8.3f}{ratio:8.1f}"

"""Test the adaptive reverse SDE: distributions, convergence to paths, independent samples."""

import itertools
import math
import runpy
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from strategies import SDES
from torch.testing import assert_close

from scoresde import EDMSDE, VESDE, VPSDE, FlowSDE, sample, trajectory
from scoresde.errors import ConvergenceError
from scoresde.noise import Noise
from scoresde.samplers import AdaptiveSDE
from scoresde.targets import Gaussian, GaussianMixture

DOUBLE = torch.float64


def ends(sde):
    return torch.tensor(sde.T, dtype=DOUBLE), torch.tensor(sde.eps, dtype=DOUBLE)


@dataclass(frozen=True)
class Spy:
    """Noise that records the intervals of its increments, and its first row in each."""

    noise: Noise
    record: list = field(default_factory=list)

    def increments(self, like, s, t):
        z = self.noise.increments(like, s, t)
        rows = zip(
            self.noise.indices, s.tolist(), t.tolist(), z.flatten(1)[:, 0].tolist(), strict=True
        )
        self.record.extend(row for row in rows if row[1] < row[2])
        return z


class Walk:
    """Paths that are random walks of many steps: cheap, for many samples."""

    STEPS = 2**13

    def __init__(self, n, size, horizon):
        self.horizon = horizon
        generator = torch.Generator().manual_seed(0)
        self.paths = torch.randn(n, self.STEPS + 1, size, generator=generator).cumsum(1)

    def increments(self, like, s, t):
        i, j = ((time / self.horizon * self.STEPS).round().long() for time in (s, t))
        rows, n = torch.arange(len(like)), (j - i).clamp(min=1).sqrt()[:, None]
        return (self.paths[rows, j] - self.paths[rows, i]).to(like) / n.to(like)


@pytest.mark.long
@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), FlowSDE()], ids=repr)
def test_samples_of_one_number_are_as_wide_as_the_data(sde):
    """One noisy error that nearly vanishes by chance must not let a huge step through."""
    path = Path(__file__).parents[1] / "examples/benchmarks/adaptive.py"
    benchmark = runpy.run_path(str(path))
    n = 8000
    found, _, _ = benchmark["bias"](sde, 1, AdaptiveSDE(), n, 0.5)
    assert abs(found - 1) < 0.02 + 5 * math.sqrt(2 / n)


@pytest.mark.long
def test_the_modes_of_a_mixture_keep_their_weights_and_widths():
    sde, n = VESDE(), 800
    target = GaussianMixture([0.2, 0.8], [[-2.0], [1.0]], stds=0.3)
    t, s = ends(sde)
    start = target.sample(n, sde, t, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    x = AdaptiveSDE().step(sde.reverse(target.at(sde)), start, t, s, Walk(n, 1, sde.T))
    share = float((target.assign(x) == 0).double().mean())
    assert abs(share - 0.2) < 5 * math.sqrt(0.16 / n)
    width = float((x - target.means[target.assign(x)]).std())
    assert abs(width / 0.3 - 1) < 0.05 + 5 / math.sqrt(2 * n)


@pytest.mark.parametrize("name", [name for name, sde in SDES.items() if sde.levels is None])
def test_standard_normal_data_cost_few_evaluations_where_the_flow_is_constant(name):
    sde = SDES[name]
    *_, end = trajectory(Gaussian([0.0, 0.0], var=1.0).at(sde), sde, "adaptive", seed=0, n=2)
    # steps of .5 in log-SNR at least, even if no two errors agree; from .1 on they grow by a half
    span = float(sde.log_snr(torch.tensor([sde.T, max(sde.eps, 1e-4 * sde.T)])).diff())
    assert end.nfe <= 2 * (math.ceil(span / 0.5) + math.ceil(math.log(5) / math.log(1.5))) + 1


@pytest.mark.long
def test_a_seed_determines_one_path_and_the_runs_converge_to_it():
    sde = VESDE(0.05, 5)
    target = Gaussian([1.3], var=[0.25])
    t, s = ends(sde)
    x = target.sample(8, sde, t, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)

    def run(tol, seed=0):
        noise = Noise.of(seed, 8, horizon=sde.T)
        return AdaptiveSDE(tol, tol).step(sde.reverse(target.at(sde)), x, t, s, noise)

    fine = run(2e-3)
    errors = [float((run(tol) - fine).pow(2).mean().sqrt()) for tol in (0.2, 0.05, 0.01)]
    assert errors[0] > errors[1] > errors[2]
    spread = float((run(0.01, seed=1) - fine).pow(2).mean().sqrt())
    assert spread > 0.3
    assert errors[2] < 0.2 * spread


@pytest.mark.slow
def test_one_step_is_the_formula_with_the_score_at_both_ends():
    sde = VPSDE()
    score = Gaussian([0.5, -1.0], var=[0.25, 1.0]).at(sde)
    t = torch.tensor(0.4, dtype=DOUBLE)
    s = sde.time(sde.log_snr(t) + 0.09)
    # small beside its noise, so that the end of a step is the larger state
    x = 0.1 * torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    noise = Noise.of(0, 3)
    found = AdaptiveSDE(1e3, 1e3).step(sde.reverse(score), x, t, s, noise)
    # under VP z is x; the increments are those of the path
    tan, (cos, sin) = (sde.sigma(t) / sde.alpha(t)), (sde.alpha(t), sde.sigma(t))
    tan_s, (cos_s, sin_s) = (sde.sigma(s) / sde.alpha(s)), (sde.alpha(s), sde.sigma(s))
    a, w = cos / cos_s, 2 * (sin - sin_s) / cos_s
    base = a * x + (1 - a**2).sqrt() * noise.increment(x, s, t)
    first = base + w * tan * (x + score(x, t))
    second = base + w * tan_s * (first + score(first, s))
    assert_close(found, (first + second) / 2, rtol=1e-9, atol=1e-9)
    # it is taken where half the difference is within the tolerance of the larger of both states
    size = torch.maximum(x.abs(), first.abs())
    ratio = ((first - second) / 2 / (1 + size)).square().mean(1).sqrt().max()
    for share, taken in ((1.001, True), (0.999, False)):
        rsde, tol = sde.reverse(score), float(share * ratio)
        AdaptiveSDE(tol, tol).step(rsde, x, t, s, noise)
        assert (rsde.nfe == 2) == taken


def test_the_last_step_of_an_interval_is_never_a_hundredth_of_a_step():
    sde, t = VPSDE(), torch.tensor(0.4, dtype=DOUBLE)
    for stretch, evaluations in ((0.1005, 2), (0.1015, 4)):
        rsde = sde.reverse(Gaussian([0.5], var=[0.25]).at(sde))
        s = sde.time(sde.log_snr(t) + stretch)
        AdaptiveSDE(1e3, 1e3).step(rsde, torch.ones(1, 1).double(), t, s, Noise.of(0, 1))
        assert rsde.nfe == evaluations


@pytest.mark.slow
def test_a_rejected_step_is_repeated_on_a_part_of_the_same_increment():
    sde = VPSDE()
    target = GaussianMixture([0.5, 0.5], [[-2.0], [1.0]], stds=0.05)
    spy, (t, s) = Spy(Noise.of(3, 4)), ends(sde)
    x = target.sample(4, sde, t, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    AdaptiveSDE(0.005, 0.005).step(sde.reverse(target.at(sde)), x, t, s, spy)
    rejected = 0
    for i in range(4):
        own = [(low, high) for index, low, high, _ in spy.record if index == i]
        assert own[0][1] == sde.T
        assert own[-1][0] == sde.eps
        for (low, high), (next_low, next_high) in itertools.pairwise(own):
            again = next_high == high
            rejected += again
            assert again or next_high == low
            assert next_low > low or not again
    assert rejected > 0
    # and what was seen are increments of the path of the seed
    for index, low, high, z in spy.record[:20]:
        path = Noise.of(3, 1, first=index)
        own = path.increment(torch.zeros(1, 1, dtype=DOUBLE), low, high)
        assert z == pytest.approx(float(own), abs=1e-9)


@pytest.mark.long
def test_an_outlier_in_the_batch_changes_no_bit_of_the_others():
    sde = VPSDE()
    target = GaussianMixture([0.5, 0.5], [[-2.0, 0.0], [1.0, 0.0]], stds=0.3)
    t, s = ends(sde)
    x = target.sample(5, sde, t, generator=torch.Generator().manual_seed(0))
    x[0] = 200.0
    rsde, method = sde.reverse(target.at(sde)), AdaptiveSDE()
    whole = method.step(rsde, x, t, s, Noise.of(7, 5))
    for i in range(1, 5):
        alone = method.step(rsde, x[i : i + 1], t, s, Noise.of(7, 1, first=i))
        assert torch.equal(alone[0], whole[i])


def test_the_budget_of_evaluations_is_kept_and_its_end_is_an_error():
    sde, (t, s) = VPSDE(), ends(VPSDE())
    rsde = sde.reverse(GaussianMixture([0.5, 0.5], [[-2.0], [1.0]], stds=0.05).at(sde))
    method = AdaptiveSDE(0.01, 0.01, max_nfe=31)
    with pytest.raises(ConvergenceError, match=r"max_nfe = 31 .* increase max_nfe"):
        method.step(rsde, torch.ones(2, 1), t, s, Noise.of(0, 2))
    assert rsde.nfe == 30


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VPSDE(eps=0.0), EDMSDE(eps=0.0)], ids=repr)
def test_a_run_can_end_at_zero_noise(sde):
    """The last step of all is infinitely long in the log-SNR that the others are measured in."""
    score, n = GaussianMixture([0.5, 0.5], [[-2.0], [1.0]], stds=[0.1, 0.2]).at(sde), 6
    method = AdaptiveSDE(0.005, 0.005)
    x = sample(score, sde, method, n=n, times=ends(sde), seed=0, denoise=False).double()
    deviation = (x - score.target.means.T).abs() / torch.tensor([0.1, 0.2], dtype=DOUBLE)
    assert deviation.amin(1).max() < 5
    assert 0 < deviation.argmin(1).sum() < n


def test_an_interval_of_length_zero_takes_no_step():
    sde, (_, s) = VPSDE(), ends(VPSDE())
    rsde, x = sde.reverse(Gaussian([0.0], var=1.0).at(sde)), torch.ones(2, 1, dtype=DOUBLE)
    assert_close(AdaptiveSDE().step(rsde, x, s, s, Noise.of(0, 2)), x)
    assert rsde.nfe == 0

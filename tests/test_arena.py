"""Test the arena: exact references, known errors, and equal counts of evaluations."""

import csv
import itertools
import math
from dataclasses import dataclass, field

import oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods import ADAPTIVE

from scoresde import SAMPLERS, arena
from scoresde.arena import Problem, Results, Row
from scoresde.arena.judges import law_errors, law_interval
from scoresde.arena.peers import peers
from scoresde.arena.peers.peer import GRIDS, Method, Peer
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    MissingExtraError,
    NonFiniteError,
    UnknownNameError,
)
from scoresde.samplers import PC, Ancestral, EulerMaruyama
from scoresde.sampling.learn import PilotRun
from scoresde.sde import EDMSDE, VESDE, VPSDE, CosineSDE, FlowSDE, SubVPSDE
from scoresde.targets import Gaussian, GaussianMixture, SongMixture, TwoMoons

SDES = [VESDE(), VPSDE(), SubVPSDE(), CosineSDE(), EDMSDE(), FlowSDE()]
PLANE = GaussianMixture([0.3, 0.7], [[1.0, -1.0], [-0.5, 0.5]], stds=[0.3, 0.1])
TILTED = Gaussian([1.0, -2.0], cov=[[1.0, 0.6], [0.6, 0.5]])
LINE = Gaussian([0.5], var=0.25)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def flow_of_gaussian(problem, x, budget, seed):
    """Return the exact flow map of Gaussian data, in closed form, and then Tweedie's estimate."""
    sde, (mean, cov) = problem.sde, (problem.moments.mean, problem.moments.cov)
    var, basis = torch.linalg.eigh(problem.moments.var[None] if cov is None else cov)
    ends = torch.tensor([sde.T, sde.eps], dtype=torch.float64)
    alpha, sigma = sde.alpha(ends), sde.sigma(ends)
    first, last = alpha[:, None] ** 2 * var + sigma[:, None] ** 2
    y = (x - alpha[0] * mean) @ basis * (last / first).sqrt()
    return problem.finish(y @ basis.T + alpha[1] * mean), budget


# --- problems and references ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_the_reference_is_the_closed_form_flow_of_a_gaussian(sde):
    problem = Problem.of(TILTED, sde)
    row = arena.compare({"exact": flow_of_gaussian}, [problem], (2,), n=8).get(
        "exact", problem.name, 2
    )
    assert row.value < 2e-9


@pytest.mark.slow
@given(st.sampled_from(SDES), st.floats(0.001, 0.999), st.integers(0, 2**32))
def test_every_sde_is_the_exploding_one_after_rescaling(sde, u, seed):
    problem = Problem.of(PLANE, sde)
    t = torch.tensor(sde.eps + u * (sde.T - sde.eps), dtype=torch.float64)
    rho = problem.rho(t)
    y = rho * randn(5, 2, seed=seed)
    want = PLANE.denoise(sde.alpha(t) * y, sde, t)
    assert torch.allclose(problem.denoise(y, rho), want, rtol=1e-6, atol=1e-8)


@pytest.mark.long
def test_the_two_references_agree_and_the_fixed_one_is_of_fourth_order():
    problem = Problem.of(PLANE, VPSDE())
    x = problem.start(16, 3)
    exact = arena.DOP853()(problem, x)
    errors = [float((arena.RungeKutta4(n)(problem, x) - exact).norm()) for n in (100, 200)]
    assert errors[1] < 1.6e-4
    assert errors[1] < errors[0] / 12


@pytest.mark.slow
@pytest.mark.parametrize("problem", arena.TUNING + arena.HELD_OUT, ids=lambda p: p.name)
def test_the_problems_of_the_arena_start_and_end_in_their_own_law(problem):
    x = problem.start(4000, 0)
    assert torch.equal(x[:5], problem.start(4000, 0)[:5])
    known = problem.moments
    mean = torch.as_tensor(known.mean, dtype=torch.float64)
    cov = known.cov
    end = torch.tensor(problem.sde.T, dtype=torch.float64)
    alpha, sigma = problem.sde.alpha(end), problem.sde.sigma(end)
    var = alpha**2 * cov.diagonal() + sigma**2
    assert ((x.mean(0) - alpha * mean).abs() < 5.5 * (var / 4000).sqrt()).all()
    # Tweedie's estimates have the data's mean, and a variance a little below theirs
    ends = problem.exact(4000, 0)
    assert ((ends.mean(0) - mean).abs() < 5.5 * (cov.diagonal() / 4000).sqrt()).all()
    assert float(ends.var(0).sum() / cov.trace()) == pytest.approx(1, abs=0.1)


def test_tuning_and_held_out_problems_are_different_laws_under_different_sdes():
    names = [p.name for p in arena.TUNING + arena.HELD_OUT]
    assert len(set(names)) == len(names) == 16
    assert not {type(p.sde) for p in arena.TUNING} & {type(p.sde) for p in arena.HELD_OUT}


def test_the_laws_for_tuning_are_available_under_any_sde():
    problems = arena.tuning(FlowSDE())
    assert [p.name for p in problems] == [
        p.name.replace("VESDE", "FlowSDE") for p in arena.TUNING[:4]
    ]
    for problem, other in zip(problems, arena.TUNING, strict=False):
        assert torch.equal(problem.target.means, other.target.means)


@pytest.mark.slow
def test_a_score_of_the_user_is_a_problem():
    sde = VPSDE()
    exact = LINE.at(sde)
    problem = Problem("mine", lambda x, t: exact(x, t), sde, (1,), LINE.moments())
    assert problem.scale == pytest.approx(0.5)
    results = arena.compare({"em": EulerMaruyama(eta=0.0)}, [problem], (50,), n=4)
    same = arena.compare({"em": EulerMaruyama(eta=0.0)}, [Problem.of(LINE, sde)], (50,), n=4)
    # the prior is exact for a Gaussian, but it is drawn otherwise
    assert results.rows[0].value == pytest.approx(same.rows[0].value, rel=2)
    with pytest.raises(InvalidValueError, match="distribution of mine is unknown"):
        arena.compare({"em": EulerMaruyama()}, [problem], (50,), by="law", n=4)


def test_the_flow_of_a_score_with_networks_takes_a_fixed_number_of_evaluations():
    sde = VPSDE()

    class Learned(torch.nn.Module):
        """The exact score, as a network gives it."""

        calls = 0

        def forward(self, x, t):
            self.calls += 1
            return TILTED.at(sde)(x, t)

    net = Learned()
    learned = Problem("learned", lambda x, t: net(x, t), sde, (2,), TILTED.moments())
    exact = Problem.of(TILTED, sde)
    x = exact.start(8, 0)
    found = learned.flow(learned, x)
    assert net.calls == 1000
    torch.testing.assert_close(found, exact.flow(exact, x), rtol=1e-6, atol=1e-6)
    assert torch.equal(exact.flow(exact, x), arena.DOP853()(exact, x))


# --- known errors ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VESDE(sigma_max=5.0), VPSDE()], ids=["VE", "VP"])
def test_the_flow_error_of_a_known_affine_map_is_its_distance_to_the_exact_one(sde):
    problem = Problem.of(Gaussian([0.5], cov=[[0.25]]), sde)
    sampler, steps = EulerMaruyama(eta=0.0), 40
    times = sde.times(steps)
    rsde = problem.reverse()

    def function(x, noise):
        for state in sampler.trajectory(rsde, x, times, noise):
            x = state.x
        return rsde.denoise(x, times[-1])

    found = oracle.affine(function)
    x = problem.start(64, 0)
    want, _ = flow_of_gaussian(problem, x, 2, 0)
    rms = float((found.a * x + found.b - want).square().mean().sqrt()) / problem.scale
    results = arena.compare({"flow": sampler}, [problem], (steps + 1,), n=64)
    row = results.rows[0]
    assert row.nfe == steps + 1
    assert row.value == pytest.approx(rms, rel=1e-6)
    assert row.low < row.value < row.high


@pytest.mark.long
def test_the_law_errors_of_ancestral_sampling_are_those_of_the_affine_oracle():
    sde = VESDE(sigma_max=5.0)
    problem = Problem.of(LINE, sde)
    mean, var = oracle.run(Ancestral(), LINE.at(sde), sde.times(32), denoise=True)
    exact_var = oracle.tweedie(LINE.at(sde), torch.tensor(sde.eps))[1]
    n, repeats = 3000, 4
    rows = arena.compare(
        {"ancestral": Ancestral()}, [problem], (33,), by="law", n=n, repeats=repeats
    )
    # within five standard errors, of the samples and of the pool of exact ones
    error = rows.get("ancestral", problem.name, 33, "cov").value
    noise = 5 * math.sqrt(2 / (n * repeats) + 2 / 2**14)
    assert error == pytest.approx(abs(float(var / exact_var - 1)), abs=noise)
    assert error > 1.5 * noise  # otherwise nothing was measured
    spread = rows.get("ancestral", problem.name, 33, "spread").value
    assert spread == pytest.approx(abs(0.5 * math.log(var / exact_var)), abs=noise)
    mean_error = rows.get("ancestral", problem.name, 33, "mean")
    assert mean_error.value < abs(float(mean) - 0.5) / 0.5 + 5 / math.sqrt(n)


def test_starts_exact_samples_and_noise_floors_are_independent_of_each_other():
    problem = Problem.of(Gaussian([0.0], var=1.0), VPSDE())
    sets = [torch.stack([problem.start(64, s) for s in range(20)]).flatten()] + [
        torch.stack([problem.exact(64, s, part) for s in range(20)]).flatten() for part in (0, 1, 2)
    ]
    correlation = torch.stack(sets).corrcoef() - torch.eye(4)
    assert correlation.abs().max() < 5 / math.sqrt(len(sets[0]))


def perfect(problem, x, budget, seed):
    """Exact samples, whatever the budget."""
    return problem.exact(len(x), seed, part=3), budget


@pytest.mark.slow
def test_the_error_of_exact_samples_is_the_noise_floor():
    problem = Problem.of(TwoMoons(), VESDE())
    results = arena.compare({"exact": perfect}, [problem], (5,), by="law", n=1000, repeats=6)
    assert results.metrics == arena.LAW
    for row in results.rows:
        if row.metric in ("energy", "sliced"):
            assert abs(row.value) < 5e-3
        else:
            assert row.value < 2 * row.floor
        assert row.low <= row.value <= row.high


@dataclass(frozen=True, eq=False)
class Asked(Problem):
    """Define a problem that records which exact samples are drawn."""

    asked: list = field(default_factory=list)

    def exact(self, n, seed, part=0):
        self.asked.append((part, n))
        return super().exact(n, seed, part)


def test_references_floors_and_the_facts_of_a_law_are_independent_draws():
    problem = Asked("asked", PLANE.at(VPSDE()), VPSDE(), (2,), PLANE.moments(), PLANE)
    arena.compare({"exact": perfect}, [problem], (5,), by="law", n=50, repeats=2)
    counts = dict(problem.asked)
    # the references, the floors, the facts, and what competes
    assert [part for part, _ in problem.asked].count(2) == 1
    assert counts == {0: 50, 1: 50, 2: 2**14, 3: 50}


def test_the_errors_of_a_law_are_in_units_of_the_data(monkeypatch):
    monkeypatch.setattr("scoresde.arena.judges._POOL", 512)
    means, stds = torch.tensor([[1.0, -1.0], [-0.5, 0.5]]), torch.tensor([0.3, 0.1])
    found = []
    for c in (1.0, 50.0):
        target = GaussianMixture([0.3, 0.7], c * means, stds=c * stds)
        problem = Problem.of(target, VESDE(0.01 * c, 50 * c))
        wrong = 1.1 * problem.exact(100, 3, part=3) + 0.2 * c
        found.append(law_errors(problem, wrong, 0, 4))
    for name in arena.LAW:
        assert torch.allclose(found[0][name], found[1][name], rtol=1e-6, atol=1e-9), name


def test_one_run_has_an_interval_and_four_a_shorter_one():
    problem = Problem.of(PLANE, VPSDE())
    widths = []
    for repeats in (1, 4):
        rows = arena.compare({"x": perfect}, [problem], (5,), by="law", n=100, repeats=repeats).rows
        assert all(row.low < row.high for row in rows)
        assert all(row.low <= row.value <= row.high for row in rows)
        widths.append(torch.tensor([row.high - row.low for row in rows]))
    # where an end is cut off at 0, by less than the square root of four
    assert 0.3 < float((widths[1] / widths[0]).median()) < 0.8


def test_the_spread_of_a_mean_of_runs_is_that_of_one_over_the_root_of_their_number():
    runs = 100 + randn(9, 2001, seed=1)
    one, nine = law_interval("modes", runs[:1], 10**6), law_interval("modes", runs, 10**6)
    assert nine.value == pytest.approx(float(runs[:, 0].mean()))
    assert one.high - one.value == pytest.approx(1.96, rel=0.05)
    assert nine.high - nine.value == pytest.approx(1.96 / 3, rel=0.05)
    assert law_interval("modes", runs / 0, 9) == (math.inf,) * 3


def lose_a_mode(problem, x, budget, seed):
    """Exact samples of one mode alone."""
    samples = problem.exact(4 * len(x), seed, part=3)
    return samples[problem.target.assign(samples) == 0][: len(x)], budget


def test_a_lost_mode_is_detected_by_every_measure_of_the_law():
    problem = Problem.of(SongMixture(), VPSDE())
    rows = arena.compare({"lost": lose_a_mode}, [problem], (5,), by="law", n=400, repeats=2).rows
    errors = {row.metric: row.value for row in rows}
    assert errors["modes"] == pytest.approx(0.2, abs=0.01)
    assert errors["energy"] > 0.1
    assert errors["sliced"] > 0.1
    assert errors["mean"] == pytest.approx(2 / problem.scale, rel=0.1)  # (5 - 3) in both
    assert errors["cov"] > 0.9
    assert errors["spread"] < 0.1


# --- fairness -------------------------------------------------------------------------------------


def wrong(problem, x, budget, seed):
    """Return a sampler with a sign error in its last step."""
    states = list(
        EulerMaruyama(eta=0.0).trajectory(problem.reverse(), x, problem.sde.times(budget - 1), None)
    )
    return -problem.finish(states[-1].x), budget


def diverging(problem, x, budget, seed):
    return x * math.inf, budget


def raising(problem, x, budget, seed):
    raise NonFiniteError("no")


@pytest.mark.slow
def test_a_broken_sampler_ranks_last_and_a_diverging_one_behind_it():
    problem = Problem.of(PLANE, VPSDE())
    results = arena.compare(
        {"nan": diverging, "raises": raising, "wrong": wrong, "right": EulerMaruyama(eta=0.0)},
        [problem], (30,), n=16,
    )  # fmt: skip
    names = [line.split()[0] for line in results.table().splitlines()[1:]]
    assert names[:2] == ["right", "wrong"]
    assert all(math.isinf(row.value) for row in results.of("nan", "raises").rows)


@pytest.mark.slow
def test_stochastic_samplers_are_not_judged_by_the_flow():
    problem = Problem.of(PLANE, VPSDE())
    results = arena.compare({"em": "em", "flow": EulerMaruyama(eta=0.0)}, [problem], (8,), n=4)
    assert results.samplers == ("flow",)


def test_a_sampler_that_is_stochastic_at_many_steps_alone_is_not_judged_by_the_flow():
    def late(problem, x, budget, seed):
        return x + seed * (budget > 10), budget

    with pytest.raises(InvalidValueError, match="all of these add noise: late"):
        arena.compare({"late": late}, [Problem.of(PLANE, VPSDE())], (5, 10, 20), n=4)


def test_a_budget_includes_the_last_evaluation_and_is_not_exceeded():
    problem = Problem.of(PLANE, VPSDE())
    results = arena.compare({"pc": PC()}, [problem], (2, 3, 4, 9), by="law", n=4, repeats=1)
    assert {row.budget: row.nfe for row in results.rows} == {3: 3, 4: 3, 9: 9}


@pytest.mark.parametrize("unlucky", [0, 1])
def test_a_budget_that_is_too_small_for_one_of_the_runs_has_no_row(unlucky):
    def sampler(problem, x, budget, seed):
        return None if budget < 9 and seed == unlucky else (x, budget)

    problem = Problem.of(PLANE, VPSDE())
    results = arena.compare({"it": sampler}, [problem], (5, 9), by="law", n=4, repeats=2)
    assert {row.budget for row in results.rows} == {9}


def test_one_pilot_run_serves_all_budgets(monkeypatch):
    measured, measure = [], PilotRun.measure
    monkeypatch.setattr(PilotRun, "measure", lambda run: measured.append(run) or measure(run))
    problem = Problem.of(LINE, VPSDE())
    for budget in (3, 4, 30):
        arena.FAST["fast"](problem, problem.start(4, 0), budget, 0)
    assert len(measured) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_named_sampler_can_compete(name):
    problem = Problem.of(PLANE, VPSDE())
    enough = 300 if name in ADAPTIVE else 31
    results = arena.compare([name], [problem], (4, enough), by="law", n=8, repeats=1)
    assert {row.budget for row in results.rows} >= {enough}
    assert all(row.nfe <= row.budget for row in results.rows if row.budget == enough)
    assert all(math.isfinite(row.value) for row in results.rows if row.budget == enough)


def test_a_comparison_is_reproducible_and_leaves_the_global_generator_alone():
    problem = Problem.of(PLANE, VPSDE())
    runs = [
        arena.compare(["ancestral"], [problem], (6,), by="law", n=16, repeats=2, seed=s).rows
        for s in (0, 0, 1)
    ]
    values = [[row.value for row in rows] for rows in runs]
    assert values[0] == values[1]
    assert values[0] != values[2]


# --- peers ----------------------------------------------------------------------------------------


def euler_in_rho(denoiser, rho, y):
    for now, then in itertools.pairwise(rho):
        y = denoiser(y, now) + then / now * (y - denoiser(y, now))
    return y


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_peer_goes_from_start_to_end_on_its_grid(sde, grid):
    def method(denoiser, rho, y):
        want = sde.times(6, spacing=GRIDS[grid])
        assert torch.allclose(rho, (-sde.log_snr(want) / 2).exp())
        assert (rho.diff() < 0).all()
        return euler_in_rho(denoiser, rho, y)

    problem = Problem.of(TILTED, sde)
    peer = Peer(Method(method, lambda evaluations: evaluations // 2), GRIDS[grid])
    samples, nfe = peer(problem, problem.start(3, 0), 14, 0)
    assert (nfe, samples.shape) == (13, (3, 2))
    assert peer(problem, problem.start(3, 0), 2, 0) is None


@pytest.mark.long
def test_a_peer_that_is_called_correctly_converges_to_the_reference():
    peer = Peer(Method(euler_in_rho, lambda evaluations: evaluations // 2), GRIDS["karras"])
    for sde in (VESDE(), VPSDE()):
        problem = Problem.of(TILTED, sde)
        rows = arena.compare({"euler": peer}, [problem], (101, 401), n=16).rows
        assert rows[1].value == pytest.approx(rows[0].value / 4, rel=0.15)


@pytest.mark.peers
@pytest.mark.long
@pytest.mark.parametrize("library", ["azula", "diffusers", "k_diffusion"])
def test_every_peer_of_an_installed_library_converges(library):
    """Of first order at least, or to the right law."""
    try:
        found = peers([library])
    except MissingExtraError as error:
        pytest.skip(str(error))
    found = {name: peer for name, peer in found.items() if name.endswith("@exp")}
    problem = Problem.of(TILTED, VPSDE())
    results = arena.compare(found, [problem], (25, 100), n=4)
    assert len(results.samplers) >= 8
    for name in results.samplers:
        coarse, fine = (results.get(name, problem.name, budget).value for budget in (25, 100))
        assert fine < coarse / 3, name
        assert fine < 0.1, name
    rest = {name: peer for name, peer in found.items() if name not in results.samplers}
    laws = arena.compare(rest, [problem], (80,), by="law", n=300, repeats=1)
    for name in rest:
        assert laws.get(name, problem.name, 80, "mean").value < 0.3, name
        assert laws.get(name, problem.name, 80, "cov").value < 0.4, name


@pytest.mark.parametrize("bad", ["state", "level"])
def test_a_peer_that_leaves_the_finite_numbers_has_an_infinite_error(bad):
    def broken(denoiser, rho, y):
        y = denoiser(y, rho[0])
        return denoiser(y * math.nan, rho[1]) if bad == "state" else denoiser(y, rho[1] * math.nan)

    problem = Problem.of(TILTED, VPSDE())
    results = arena.compare({"broken": Peer(Method(broken), GRIDS["exp"])}, [problem], (5,), n=4)
    assert math.isinf(results.rows[0].value)


@pytest.mark.long
def test_the_learned_problem_is_solved_by_its_own_reference():
    problem = arena.digits(evaluations=48)
    results = arena.compare(
        {"reference": lambda p, x, budget, seed: (p.finish(p.flow(p, x)), budget)},
        [problem], (5,), n=2,
    )  # fmt: skip
    assert results.rows[0].value < 1e-6
    assert problem.scale == pytest.approx(float(problem.moments.var.double().mean().sqrt()))
    # sample i is of class i modulo ten: the score of another row is another
    x = torch.zeros(11, 1, 28, 28)
    scores = problem.reverse().score(x, 0.5)
    assert torch.allclose(scores[0], scores[10], atol=1e-4)
    assert not torch.allclose(scores[0], scores[1], atol=1e-2)


def test_unknown_libraries_are_named():
    with pytest.raises(UnknownNameError, match="unknown library 'azul'; did you mean 'azula'"):
        peers(["azul"])


# --- results --------------------------------------------------------------------------------------


def row(sampler, problem, budget, value, nfe=None, metric="flow"):
    nfe = budget if nfe is None else nfe
    return Row(problem, sampler, budget, nfe, metric, value, value / 2, value * 2, None, 0.0)


TABLE = Results(
    (
        row("own", "a", 10, 1.0), row("own", "b", 10, 4.0), row("own", "c", 10, 1e-9),
        row("x", "a", 10, 2.0), row("x", "b", 10, 3.0), row("x", "c", 10, 1.0),
        row("y", "a", 10, 5.0), row("y", "b", 10, 1.0), row("y", "c", 10, 2.0),
    )
)  # fmt: skip


def test_ratios_are_geometric_means_against_the_best_of_each_problem():
    (ratio,) = TABLE.ratios(["x", "y"])
    assert (ratio.sampler, ratio.budget, ratio.problems, ratio.wins) == ("own", 10, 3, 2)
    # 1 / 2, 4 / 1 and the clip .1
    assert ratio.mean == pytest.approx((0.5 * 4 * 0.1) ** (1 / 3))
    assert ratio.worst == 4
    (unclipped,) = TABLE.ratios(["x", "y"], clip=1e-12)
    assert unclipped.mean == pytest.approx((0.5 * 4 * 1e-9) ** (1 / 3))


def test_a_run_counts_at_larger_budgets_and_not_at_smaller_ones():
    more = Results((*TABLE.rows, row("x", "a", 20, 9.0), row("own", "a", 20, 0.5, nfe=25)))
    ratio = {r.budget: r for r in more.ratios(["x", "y"])}[20]
    # at 20 the best of the others on "a" is still the run at 10, and so is one's own
    assert ratio.mean == pytest.approx((0.5 * 4 * 0.1) ** (1 / 3))


def test_a_sampler_that_cannot_run_where_others_can_has_an_infinite_ratio():
    rows = (row("x", "a", 10, 1.0), row("x", "b", 10, 1.0), row("own", "a", 10, 0.5))
    assert math.isinf(Results(rows).ratios(["x"])[0].mean)
    diverged = (row("x", "a", 10, 1.0), row("own", "a", 10, 2.0), row("own", "b", 10, 1.0))
    assert Results((*diverged, row("x", "b", 10, math.inf))).ratios(["x"])[0].problems == 1


def test_the_table_ranks_by_error_and_marks_what_is_over_budget():
    lines = TABLE.table(top=2).splitlines()
    assert lines[0].split() == ["a", "flow", "10"]
    assert [line.split() for line in lines[1:3]] == [["own", "1"], ["x", "2"]]
    dear = Results((row("own", "a", 10, 0.5, nfe=12),))
    assert "0.5+" in dear.table()


def test_all_figures_survive_the_csv_file(tmp_path):
    path = TABLE.to_csv(tmp_path / "new" / "rows.csv")
    with path.open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["sampler"], line["problem"], float(line["value"])) for line in lines] == [
        (r.sampler, r.problem, r.value) for r in TABLE.rows
    ]
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidValueError, match="cannot write"):
        TABLE.to_csv(tmp_path / "file" / "rows.csv")


def test_the_picture_shows_the_best_of_the_others_as_one():
    drawn = TABLE.plot(against=["x", "y"])
    shown = {line.get_label() for axes in drawn.axes for line in axes.lines}
    assert {name for name in shown if name.startswith("best of")} == {"best of x", "best of y"}
    assert not shown & {"x", "y"}
    assert [axes.get_title() for axes in drawn.axes] == list(TABLE.problems)
    with pytest.raises(InvalidValueError, match="empty"):
        Results(()).plot()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: arena.compare(["pcc"]), UnknownNameError, "did you mean 'pc'"),
        (lambda: arena.compare({"x": 3}), InvalidTypeError, "'x' must be a sampler"),
        (lambda: arena.compare("pc", by="low"), UnknownNameError, "choose from flow, law"),
        (lambda: arena.compare("pc", n=1), InvalidValueError, "n must be an integer >= 2, got 1"),
        (
            lambda: arena.compare("pc", by="law", n=3),
            InvalidValueError,
            "n must be an integer >= 4, got 3",
        ),
        (
            lambda: arena.compare("pc", budgets=(1,)),
            InvalidValueError,
            "each budget must be an integer >= 2",
        ),
        (lambda: arena.compare("pc", seed=2**64), InvalidValueError, "seed must lie in"),
        (lambda: TABLE.table(top=0), InvalidValueError, "top must be an integer >= 1, got 0"),
        (lambda: arena.compare([], by="law"), InvalidValueError, "at least one sampler"),
        (lambda: arena.compare("pc", []), InvalidValueError, "one problem"),
        (lambda: arena.compare("pc", budgets=()), InvalidValueError, "and one budget"),
        (lambda: arena.RungeKutta4(0), InvalidValueError, "steps must be an integer >= 1, got 0"),
        (lambda: arena.RungeKutta4(1.5), InvalidValueError, "steps must be an integer >= 1"),
        (lambda: arena.DOP853(rtol=-1), InvalidValueError, "rtol must be positive"),
        (lambda: arena.digits(labels=0), InvalidValueError, r"labels must lie in \[1, 10\], got 0"),
        (lambda: arena.image_densities("half"), UnknownNameError, "unknown part 'half'"),
        (lambda: Problem.of(3, VESDE()), InvalidTypeError, "target must be a Target, got 3"),
        (lambda: arena.TUNING[0].start(2, -1), InvalidValueError, "seed must be an integer >= 0"),
        (lambda: Results(()).ratios([], clip=math.nan), InvalidValueError, "clip must be positive"),
        (lambda: Results(()).ratios(["x"]), UnknownNameError, "unknown sampler 'x'"),
        (lambda: Results(()).ratios([]), InvalidValueError, "empty"),
        (lambda: TABLE.ratios(["x"], "law"), UnknownNameError, "unknown metric"),
        (lambda: TABLE.get("x", "a", 11), InvalidValueError, "no row"),
        (
            lambda: Results((row("x", "a", 5, -1.0),)).ratios([]),
            InvalidValueError,
            "negative",
        ),
    ],
)
def test_bad_inputs_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()

"""Test pilot runs, their covariance, and the fast sampler that uses them."""

import contextlib
import copy
import math
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SDES, generators, sdes
from torch.testing import assert_close

from scoresde import Facts, Moments, Pilot, Wrapped, pilot, sample, trajectory
from scoresde.arena import FAST, TUNING, Problem
from scoresde.arena.judges import law_errors
from scoresde.errors import (
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ScoreSDEError,
    ShapeError,
)
from scoresde.guidance import Linear, posterior
from scoresde.nn import MLP
from scoresde.quadrature import gauss_legendre
from scoresde.samplers import PC, DPMSolverPP, Fast, Langevin, Restart, UniPC
from scoresde.samplers.multistep.fast import SETTINGS, step_errors, usual_setting
from scoresde.samplers.multistep.interpolation import Measured
from scoresde.sampling import learn
from scoresde.sampling.learn import PilotRun
from scoresde.score import ScoreModel, Setting, from_network
from scoresde.score.pilot_file import weights_of
from scoresde.sde import EDMSDE, VESDE, VPSDE
from scoresde.targets import Gaussian, GaussianMixture

MIXTURE = GaussianMixture(
    [0.5, 0.3, 0.2], [[1.0, -0.5], [-1.0, 0.3], [0.2, 1.2]], stds=[0.3, 0.5, 0.2]
)
STANDARD = Moments(0.0, var=1.0)
DTYPE = torch.float64


@st.composite
def pilots(draw):
    """Any covariance at any levels."""
    generator, k = draw(generators()), draw(st.integers(6, 30))
    gaps = 0.1 + torch.rand(k, generator=generator, dtype=DTYPE)
    residuals = torch.randn(draw(st.integers(1, 40)), k, generator=generator, dtype=DTYPE)
    return Pilot.measure(gaps.cumsum(0) - 6, residuals, STANDARD, k)


@pytest.fixture(scope="module")
def known():
    return pilot(MIXTURE.at(VPSDE()), VPSDE(), seed=3)


# The covariance and its best prediction


@given(pilots())
def test_features_have_the_measured_covariance_as_inner_products(p):
    unseen = Pilot(p.ell, p.factor, p.moments, p.nfe, unseen=0.0)
    features = unseen.features(p.ell)
    assert_close(features @ features.T, p.factor.T @ p.factor, rtol=1e-9, atol=1e-12)
    # beyond the measured levels nothing changes
    outside = unseen.features(torch.stack((p.ell[0] - 5, p.ell[-1] + 5)))
    assert_close(outside, features[[0, -1]])


@given(generators(), st.integers(1, 60), st.integers(6, 20))
def test_the_factor_is_the_square_root_of_the_mean_product_of_residuals(generator, m, k):
    residuals = torch.randn(m, k, generator=generator, dtype=DTYPE)
    p = Pilot.measure(torch.arange(k, dtype=DTYPE), residuals, STANDARD, k)
    assert_close(p.factor.T @ p.factor, residuals.T @ residuals / m)


FADES = st.sampled_from([0.0, 0.18, 2.0])


@given(pilots(), FADES, st.data())
def test_a_level_among_the_nodes_is_predicted_by_its_own_value(p, fade, data):
    nodes = data.draw(st.lists(st.integers(0, len(p.ell) - 1), min_size=1, max_size=4, unique=True))
    nodes = p.ell[nodes]
    # up to the share of rounding
    own = torch.eye(len(nodes), dtype=DTYPE)
    assert_close(p.predict(nodes, nodes, fade), own, rtol=0, atol=1e-3)


@given(pilots(), FADES, generators(), st.integers(1, 5))
def test_other_weights_have_a_larger_error_under_the_covariance(p, fade, generator, m):
    low, high = p.ell[0], p.ell[-1]
    nodes, at = (
        low + (high - low) * torch.rand(k, generator=generator, dtype=DTYPE) for k in (m, 3)
    )
    levels, features = torch.cat((at, nodes)), p.features(torch.cat((at, nodes)))
    covariance = features @ features.T * torch.exp(-fade * (levels[:, None] - levels).abs())

    def error(weights):
        gap = torch.cat((torch.eye(3, dtype=DTYPE), -weights), 1)
        # what is minimised counts rounding in the nodes too
        rounding = 1e-12 * covariance[3:, 3:].diagonal().mean() * weights.square().sum(-1)
        return (gap @ covariance * gap).sum(-1) + rounding

    best = p.predict(nodes, at, fade)
    for size in (1e-3, 1e-1, 1.0):
        other = best + size * torch.randn(best.shape, generator=generator, dtype=DTYPE)
        least = error(best)
        assert (error(other) >= least - 1e-9 * least - 1e-13 * covariance.diagonal().max()).all()


@pytest.mark.parametrize("variance", [None, 1.0])
def test_weights_reproduce_cubics_in_the_limit_of_small_steps(variance):
    p, powers, worst = Pilot.prior(-5.0, 5.0, variance), torch.arange(4), []
    for h in (0.4, 0.2, 0.1, 0.05):
        nodes = 0.3 - h * torch.arange(4, dtype=DTYPE)
        at = 0.3 + h * torch.linspace(0, 1, 5, dtype=DTYPE)
        known, wanted = (nodes[:, None] - 0.3) ** powers, (at[:, None] - 0.3) ** powers
        worst.append(float((p.predict(nodes, at) @ known - wanted).abs().max()))
    assert all(fine < coarse / 3 for coarse, fine in pairwise(worst)), worst
    assert worst[-1] < 1e-3


@pytest.mark.parametrize("c", [0.3, 4.0])
def test_the_default_pilot_is_the_mean_over_gaussians_of_all_variances(c):
    """What their denoisers leave of N(0, c) along the flow, which keeps x / sqrt(v + rho^2)."""
    p, sde = Pilot.prior(-3.0, 2.0, c), EDMSDE()
    rho = torch.exp(-p.ell)
    residuals = []
    for v in (c * torch.logspace(-4, 1, 24, dtype=DTYPE)).tolist():
        x = (v + rho**2).sqrt()[:, None]
        denoised = [Gaussian([0.0], var=var).denoise(x, sde, rho) for var in (v, c)]
        residuals.append((denoised[0] - denoised[1])[:, 0])
    expected = torch.stack(residuals).T @ torch.stack(residuals) / 24
    assert_close(p.factor.T @ p.factor, expected, rtol=1e-9, atol=1e-12)
    assert (p.moments.mean, p.moments.var) == (0.0, c)


@given(st.floats(0, 2), st.floats(-2, 2), st.floats(-2, 2))
def test_noise_fades_a_residual_of_the_second_degree_twice_as_fast_as_the_state(tau, node, at):
    """Mehler: correlated by r = exp(-tau^2 |l - l'|), z^2 - 1 is correlated by r^2."""
    levels = torch.linspace(-3, 3, 9, dtype=DTYPE)
    p = Pilot(levels, torch.ones(1, 9, dtype=DTYPE), STANDARD, 0, unseen=0.0)
    one, other = (torch.tensor([[level]], dtype=DTYPE) for level in (node, at))
    found = Measured(p, tau).matrix(one, other)
    assert float(found) == pytest.approx(math.exp(-(tau**2) * abs(at - node)) ** 2, rel=1e-9)


@pytest.mark.slow
def test_a_gaussian_of_known_moments_leaves_no_residual():
    for data in (
        Gaussian([0.5, -1.0], var=[0.3, 2.0]),
        Gaussian([0.5, -1.0], cov=[[1.0, 0.4], [0.4, 0.5]]),
        Gaussian([0.5, -1.0], cov=[[1.0, 1.0], [1.0, 1.0]]),
        Gaussian([0.5, -1.0], var=[0.0, 1.0]),
        Gaussian([0.5, -1.0], var=[0.0, 0.0]),
    ):
        for sde in (VPSDE(), VESDE(), EDMSDE()):
            p = pilot(data.at(sde), sde)
            # of states of single precision
            assert p.factor.abs().max() < 1e-4


# The run


class Counted:
    """Define a score that counts."""

    def __init__(self, score):
        self.score, self.calls = score, 0

    def __call__(self, x, t):
        self.calls += 1
        return self.score(x, t)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, sde in SDES.items() if sde.levels != 5])
def test_a_pilot_counts_its_evaluations_and_repeats_under_every_sde(name):
    sde = SDES[name]
    score = Counted(MIXTURE.at(sde))
    p = pilot(score, sde, shape=(2,), n=4, steps=9)
    assert score.calls == p.nfe == len(p.ell) == min(10, sde.levels or 10)
    again = pilot(score, sde, shape=(2,), n=4, steps=9)
    other = pilot(score, sde, shape=(2,), n=4, steps=9, seed=1)
    assert torch.equal(again.factor, p.factor)
    assert not torch.equal(other.factor, p.factor)
    out = sample(score, sde, Fast(pilot=p), shape=(2,), n=3, steps=4, seed=0)
    assert out.isfinite().all()


def test_a_model_and_its_condition_are_evaluated_together():
    class Shifted:
        facts = Facts(event_shape=(2,))

        def __init__(self, sde):
            self.gaussian = Gaussian([0.0, 0.0], var=[0.5, 0.5]).at(sde)

        def __call__(self, x, t, condition):
            return self.gaussian(x - VPSDE().alpha(t)[:, None] * condition["to"], t)

    sde, to = VPSDE(), torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    p = pilot(Shifted(sde), sde, n=8, condition={"to": to}, moments=Moments(0.0, var=0.5))
    assert p.factor.isfinite().all()
    # the residual of N(to, c) less N(0, c): to * rho^2 / (c + rho^2)
    rho2 = torch.exp(-2 * p.ell)
    kernel = rho2 / (0.5 + rho2)
    expected = float(to.double().square().mean()) * kernel[:, None] * kernel
    assert_close(p.factor.T @ p.factor, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), EDMSDE()])
def test_unknown_moments_are_estimated_from_the_run(sde):
    n, d, mean, c = 64, 400, 3.0, 0.49
    score = Gaussian([mean] * d, var=[c] * d).at(sde)
    p = pilot(lambda x, t: score(x, t), sde, shape=(d,), n=n)
    # y_T is N(0, spread), the flow shrinks y - mean by U_eps / U_T, a denoiser by c / U^2
    ends = torch.tensor([sde.T, sde.eps], dtype=DTYPE)
    u_first, u_last = (c + torch.exp(-sde.log_snr(ends))).sqrt().tolist()
    spread = (sde.prior_std / float(sde.alpha(ends[0]))) ** 2
    first, last = c / u_first**2, c / (u_first * u_last)
    gap = p.moments.mean - mean * (1 - first)
    assert float(gap.abs().max()) < 6 * first * math.sqrt(spread / n)
    noise = spread * (last**2 - (2 * last * first - first**2) / n)
    expected = mean**2 * (last - first) ** 2 + noise
    assert_close(p.moments.mean_variance(), expected, rtol=6 * math.sqrt(2 / (n * d)), atol=0)


def test_a_last_level_without_noise_is_allowed():
    sde = EDMSDE(eps=0.0)
    p = pilot(MIXTURE.at(sde), sde)
    assert p.ell.isfinite().all()
    out = sample(MIXTURE.at(sde), sde, Fast(pilot=p), n=4, steps=8, seed=0, denoise=False)
    assert out.isfinite().all()


# Fast


def end_of(sampler, score, x, n):
    """Where the sampler ends from x in n steps of its own grid."""
    sde = score.sde
    rsde = sde.reverse(score, moments=score.facts.moments)
    *_, end = sampler.trajectory(rsde, x, sampler.times(sde, n, rsde.moments), None)
    return end.x


def draws(sde, n=16, target=MIXTURE):
    end = torch.tensor(sde.T, dtype=DTYPE)
    return target.sample(n, sde, end, generator=torch.Generator().manual_seed(1), dtype=DTYPE)


@pytest.mark.slow
@given(st.data())
def test_the_grid_of_fast_decreases_from_T_to_eps(data):
    sde = data.draw(sdes())
    most = sde.levels - 1 if sde.levels else 40
    n = data.draw(st.integers(1, min(most, 40)))
    moments = data.draw(st.sampled_from([None, STANDARD, Moments(0.0, var=1e-4)]))
    order, corrector = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 6))
    t = Fast(order=order, corrector=corrector).times(sde, n, moments)
    assert t.shape == (n + 1,)
    assert (float(t[0]), float(t[-1])) == (sde.T, sde.eps)
    assert (t.diff() < 0).all()
    if sde.levels:
        assert set(t.tolist()) <= set(sde.times().tolist())


@pytest.mark.slow
@given(pilots(), st.integers(1, 6), st.integers(0, 6), st.integers(1, 9))
def test_a_predicted_error_is_that_of_the_best_prediction_integrated_over_its_step(
    p, order, corrector, n
):
    grid = torch.linspace(float(p.ell[0]), float(p.ell[-1]), n + 1, dtype=DTYPE)
    expected = []
    for i in range(n):
        new = corrector > 0 and i < n - 1
        first = max(i + 1 - (corrector if new else order), 0)
        nodes = grid[first : i + 1 + new]
        at, weight = gauss_legendre(grid[i].reshape(1, 1), grid[i + 1].reshape(1, 1))
        gap = p.features(at[0]) - p.predict(nodes, at[0]) @ p.features(nodes)
        expected.append((weight[0] / (1 + torch.exp(-2 * at[0])).sqrt() @ gap).norm())
    assert_close(
        step_errors(p, grid, order, corrector), torch.stack(expected), rtol=1e-6, atol=1e-9
    )


def test_a_model_without_any_residual_costs_no_more_than_another():
    calls = []

    class Counted(Pilot):
        def unpredicted(self, nodes, at):
            calls.append(at)
            return super().unpredicted(nodes, at)

    levels = torch.linspace(-5, 5, 64, dtype=DTYPE)
    p = Counted(levels, torch.zeros(2, 64, dtype=DTYPE), STANDARD, 64)
    assert not step_errors(p, torch.linspace(-5, 5, 301, dtype=DTYPE), 4, 3).any()
    assert len(calls) == 4
    t = Fast(pilot=p).times(VPSDE(), 10_000)
    assert len(t) == 10_001
    assert (t.diff() < 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("corrector", [0, 3])
def test_the_steps_share_the_error_nearly_equally_and_it_falls_with_their_number(known, corrector):
    known, sde, sums = replace(known, growth=1.5), VPSDE(), []
    sampler = Fast(order=3, pilot=known, corrector=corrector)
    for n in (8, 16, 32, 64):
        grid = sde.log_snr(sampler.times(sde, n)) / 2
        even = sde.log_snr(sde.times(n, spacing="log_snr")) / 2
        errors, others = (
            (known.moments.mean_variance() + torch.exp(-2 * levels[1:])) ** 0.75
            * step_errors(known, levels, sampler.order, corrector)
            for levels in (grid, even)
        )
        assert errors.sum() <= others.sum()
        assert errors.max() < 5 * errors.mean()
        sums.append(float(errors.sum()))
    assert all(fine < coarse / 2 for coarse, fine in pairwise(sums)), sums


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VPSDE(), VESDE(), EDMSDE()])
def test_at_ten_steps_fast_is_many_times_nearer_to_the_flow_than_its_peers(sde):
    score, x = MIXTURE.at(sde), draws(sde, 32)
    exact = end_of(UniPC(), score, x, 400)
    methods = Fast(pilot=pilot(score, sde)), Fast(), UniPC(), DPMSolverPP()
    with_pilot, without, unipc, dpm = (
        float((end_of(method, score, x, 10) - exact).square().mean().sqrt()) for method in methods
    )
    assert with_pilot < without / 2.5
    assert with_pilot < unipc / 6
    assert with_pilot < dpm / 12
    # without a pilot it equals this method: it has no measurements to improve on it
    assert without == dpm


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.3, 0.5])
def test_noise_does_not_spoil_the_spread_of_modes_in_many_dimensions(tau):
    """Residuals that fresh noise has faded are not to be continued like those of a flow."""
    (problem,) = (p for p in TUNING if p.name == "images/VESDE")
    contender = replace(FAST["fast_sde"], sampler=Fast(tau=tau))
    x, nfe = contender(problem, problem.start(400, 0), 10, 0)
    assert nfe == 10
    assert float(law_errors(problem, x, 0)["spread"]) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VESDE(), EDMSDE()])
def test_noise_does_not_move_mass_between_modes_of_different_widths(sde):
    """Noise as for the mean variance, added within a step, moved a tenth of the mass under VE.

    Under EDM a correction that counted on a residual with other noise moved nine tenths.
    """
    two = GaussianMixture([0.5, 0.5], [[-1.0, 0.0], [1.0, 0.0]], stds=[0.5, 0.0015])
    problem = Problem.of(two, sde)
    x, _ = FAST["fast_sde"](problem, problem.start(2000, 0), 10, 0)
    assert float(law_errors(problem, x, 0)["modes"]) < 0.04


@pytest.mark.slow
def test_with_the_pilot_of_another_target_fast_still_converges():
    sde = VPSDE()
    score, x, sizes = MIXTURE.at(sde), draws(sde), (10, 20, 40, 80, 160)
    exact = end_of(UniPC(), score, x, 800)
    other = Gaussian([4.0, 4.0], var=[0.01, 30.0]).at(sde)
    wrong = Fast(pilot=pilot(lambda x, t: other(x, t), sde, shape=(2,), moments=STANDARD))
    scaled = [n**2 * float((end_of(wrong, score, x, n) - exact).abs().max()) for n in sizes]
    assert max(scaled[-2:]) <= max(scaled[:3]) / 2, scaled


class Model(Wrapped):
    """Define a score that may have a pilot."""

    pilot = None

    @property
    def facts(self):
        return replace(super().facts, pilot=self.pilot)


def test_fast_by_name_uses_the_pilot_of_the_score(known):
    model, sde = Model(MIXTURE.at(VPSDE())), VPSDE()
    plain = sample(model, sde, "fast", n=3, steps=5, seed=0)
    model.pilot = known
    own = sample(model, sde, "fast", n=3, steps=5, seed=0)
    assert torch.equal(own, sample(model, sde, Fast(pilot=known), n=3, steps=5, seed=0))
    assert not torch.equal(own, plain)


@pytest.mark.slow
@pytest.mark.parametrize(
    "around",
    [
        lambda fast: Restart(fast),
        lambda fast: PC(fast, Langevin()),
        lambda fast: PC(PC(fast, k=0), Langevin()),
        lambda fast: Restart(PC(fast, k=0)),
    ],
)
def test_a_sampler_within_another_uses_the_pilot_of_the_score(known, around):
    model, sde = Model(MIXTURE.at(VPSDE())), VPSDE()
    plain = sample(model, sde, around(Fast()), n=3, steps=5, seed=0)
    model.pilot = known
    own = sample(model, sde, around(Fast()), n=3, steps=5, seed=0)
    assert torch.equal(own, sample(model, sde, around(Fast(pilot=known)), n=3, steps=5, seed=0))
    assert not torch.equal(own, plain)


@pytest.mark.global_rng  # as networks begin
def test_a_stored_model_has_the_whole_pilot(tmp_path):
    model = ScoreModel(MLP(2, hidden=(4,)), VPSDE(), (2,))
    levels, factor = LEVELS.float().double(), FACTOR
    chosen = {5: Setting(2, 1, 0.0), 10: Setting(4, 0, 1.5)}
    model.pilot = Pilot(levels, factor, STANDARD, 8, unseen=0.25, growth=0.5, choices=chosen)
    model.save_pretrained(tmp_path)
    found = ScoreModel.from_pretrained(tmp_path).pilot
    numbers = found.numbers()
    assert numbers.pop("choices") == {"5": [2, 1, 0.0], "10": [4, 0, 1.5]}
    assert numbers == {"version": 1, "nfe": 8, "unseen": 0.25, "growth": 0.5, "fits": {}}
    assert found.choices == chosen
    assert torch.equal(found.ell, levels)
    assert torch.equal(found.factor, factor)


@pytest.mark.slow
def test_a_full_covariance_is_used_for_data_that_are_nearly_gaussian_alone():
    cov = torch.tensor([[1.0, 0.5, 0.0], [0.5, 0.3, 0.0], [0.0, 0.0, 0.01]], dtype=DTYPE)
    one = Gaussian([0.0, 1.0, 2.0], cov=cov)
    two = GaussianMixture(
        [0.5, 0.5], torch.eye(3, dtype=DTYPE)[:2], torch.stack([cov, cov.flip(0, 1)])
    )
    for target, full in ((one, True), (two, False)):
        moments = target.moments()
        assert moments.cov is not None
        found = pilot(target.at(VPSDE()), n=8, moments=moments, dtype=DTYPE).moments
        assert (found.cov is not None) == full
        assert found.mean_variance() == pytest.approx(moments.mean_variance())


# A pilot measured by default


def trained(sde=None):
    """Return a network that has not been sampled yet."""
    torch.default_generator.manual_seed(0)
    return ScoreModel(MLP(2, hidden=(8,)), sde or VPSDE(), (2,))


ASKED = dict(n=3, steps=5, seed=0, progress=False)


@pytest.mark.long
@pytest.mark.global_rng  # as networks begin
def test_a_pilot_is_measured_at_its_first_use_and_kept_until_a_weight_changes():
    model = trained()
    sample(model, sampler="ddim", **ASKED)
    assert model.pilot is None
    first = sample(model, sampler="fast", **ASKED)
    kept = model.pilot
    assert torch.equal(first, sample(model, sampler="fast", **ASKED))
    assert model.pilot is kept
    assert [*kept.choices] == [5]
    with torch.no_grad():
        model.net.head.bias.add_(0.1)
    assert model.pilot is None
    sample(model, sampler="fast", **ASKED)
    assert not torch.equal(model.pilot.factor, kept.factor)
    # neither does torch count changes by way of .data, nor is a buffer a parameter
    model.net.register_buffer("own", torch.zeros(3))
    for x in (model.net.head.bias, model.net.own):
        sample(model, sampler="fast", **ASKED)
        x.data.add_(0.1)
        assert model.pilot is None
    weight = next(p for p in model.net.parameters() if p.numel() > 64)
    for change in (0.1, -0.1):  # of any one number
        model.recall_pilot(kept)
        weight.data.view(-1)[-2] += change
        assert model.pilot is None
    model.recall_pilot(kept)
    weight.data.copy_(weight.data.flip(0))
    assert model.pilot is None


@pytest.mark.global_rng
def test_the_pilot_of_a_file_belongs_to_the_weights_of_the_file(tmp_path):
    model = trained()
    model.pilot = Pilot.prior(-3.0, 3.0, 1.0)
    model.save_pretrained(tmp_path)
    stored = ScoreModel.from_pretrained(tmp_path)
    alike = [stored, copy.deepcopy(stored), copy.deepcopy(stored).double()]
    for one in alike:
        one.autocast = torch.bfloat16
        one.net.register_forward_hook(lambda *_: None)
        assert one.pilot is one.given_pilot is not None
    other = {k: v + 0.1 if k.startswith("net.head") else v for k, v in model.state_dict().items()}
    for one in alike:
        one.load_state_dict(other)
        assert one.pilot is one.given_pilot is None
    model.load_state_dict(other)
    assert model.pilot is not None  # the user set it


@pytest.mark.long
@pytest.mark.global_rng
def test_an_automatic_pilot_is_a_function_of_the_model_alone(tmp_path):
    """It does not depend on the first request, its steps, its grid, its thread, or the file."""
    plain = sample(trained(), sampler="fast", **ASKED)
    other = trained()
    with torch.autocast("cpu", torch.bfloat16):
        sample(other, sampler="fast", n=1, nfe=9, seed=4, dtype=torch.float64, progress=False)
    list(trajectory(other, sampler="fast", times=[0.9, 0.4, 0.1], n=2, seed=1, progress=False))
    assert torch.equal(plain, sample(other, sampler="fast", **ASKED))
    other.save_pretrained(tmp_path)
    stored = ScoreModel.from_pretrained(tmp_path)
    assert {*stored.pilot.choices} >= {5, 8}
    for model in (stored, copy.deepcopy(other)):
        assert torch.equal(plain, sample(model, sampler="fast", **ASKED))
    model = trained()
    with ThreadPoolExecutor(4) as pool:
        draws = pool.map(lambda _: sample(model, sampler="fast", **ASKED), range(4))
        assert all(torch.equal(plain, x) for x in draws)


@pytest.mark.global_rng
def test_pilot_false_measures_none_and_samples_as_dpmpp_2m():
    model = trained()
    without = sample(model, sampler="fast", pilot=False, **ASKED)
    assert model.pilot is None
    assert torch.equal(without, sample(model, sampler="dpmpp_2m", **ASKED))
    given = pilot(model, n=4, steps=8, progress=False)
    own = sample(model, sampler="fast", pilot=given, **ASKED)
    assert model.pilot is None
    assert torch.equal(own, sample(model, sampler=Fast(pilot=given), **ASKED))


@pytest.mark.global_rng
def test_a_posterior_measures_no_pilot_of_its_model():
    model = trained()
    made = posterior(model, Linear(torch.eye(2), 0.5))
    measurement = {"measurement": torch.zeros(2)}
    sample(made, sampler="fast", condition=measurement, **ASKED)
    assert model.pilot is None


@pytest.mark.slow
@pytest.mark.global_rng
def test_a_model_for_which_no_pilot_can_be_measured_warns_and_samples_without():
    model = trained(VPSDE(levels=5))
    assert model.measured_pilot() is None
    model = trained()
    broken = Broken(model.net, model.sde, (2,))
    with pytest.warns(UserWarning, match="no pilot could be measured.*runs without a pilot"):
        sample(broken, sampler="fast", **ASKED)
    sample(broken, sampler="fast", **ASKED)  # and does not try again


class Eps(torch.nn.Module):
    """Define a network of another library, which predicts the noise of a mixture."""

    def __init__(self, asks=False):
        super().__init__()
        self.asks = asks
        self.shift = torch.nn.Parameter(torch.zeros(2))

    def forward(self, x, t, y=None):
        if self.asks and y is None:
            raise TypeError("y is missing")
        return -VPSDE().at(t.double(), x)[1] * MIXED.at(VPSDE())(x - self.shift, t)


MIXED = GaussianMixture([0.4, 0.6], [[0.0, 1.0], [2.0, -1.0]], stds=0.4)


@pytest.mark.long
def test_a_network_of_another_library_has_a_pilot_without_asking_until_its_weights_change():
    net = Eps()
    score = from_network(net, VPSDE(), "eps", event_shape=(2,))
    options = dict(n=32, steps=6, seed=0, progress=False)
    exact = sample(score, sampler="dpmpp_3m", **options | {"steps": 200})
    found, plain = (
        (sample(score, sampler="fast", pilot=given, **options) - exact).square().mean().sqrt()
        for given in (None, False)
    )
    assert found < plain / 2
    with torch.no_grad():
        net.shift += 0.1
    assert score.pilot is None
    # the weights of a function, and the shape of a sample, are not known
    for unknown in (
        from_network(lambda x, t: net(x, t), VPSDE(), "eps", event_shape=(2,)),
        from_network(net, VPSDE(), "eps"),
    ):
        sample(unknown, sampler="fast", shape=(2,), n=1, steps=2, seed=0)
        assert unknown.pilot is None


def test_a_pilot_in_a_file_belongs_to_one_time_of_the_network():
    net, times = Eps(), ("t", "999t", lambda sde, t: t)
    scores = [from_network(net, VPSDE(), "eps", time, event_shape=(2,)) for time in times]
    assert len({weights_of(score) for score in scores}) == 3


@pytest.mark.long
def test_a_network_that_counts_its_calls_is_measured_once():
    class Counts(Eps):
        calls = 0

        def forward(self, x, t, y=None):
            self.calls += 1
            return super().forward(x, t, y)

    net = Counts()
    score = from_network(net, VPSDE(), "eps", event_shape=(2,))
    options = dict(sampler="fast", n=2, steps=4, seed=0, progress=False)
    first, before = sample(score, **options), net.calls
    assert score.pilot is not None
    assert torch.equal(sample(score, **options), first)
    assert net.calls == before + 5
    uncounted = from_network(Eps(), VPSDE(), "eps", event_shape=(2,))
    assert torch.equal(sample(uncounted, **options), first)


def test_a_network_that_needs_a_condition_is_sampled_without_a_pilot():
    score = from_network(Eps(asks=True), VPSDE(), "eps", event_shape=(2,))
    options = dict(n=2, steps=3, seed=0, progress=False, condition={"y": torch.zeros(2, 1)})
    with pytest.warns(UserWarning, match="no pilot could be measured.*y is missing"):
        found = sample(score, sampler="fast", **options)
    torch.testing.assert_close(found, sample(score, sampler="dpmpp_2m", **options))


class Bar:
    """The progress bar of a notebook, which refers to its kernel and so to all of its objects."""

    def __init__(self, total):
        self.total, self.count, self.other = total, 0, MLP(2, hidden=(4,))
        self.gone = weakref.proxy(MLP(2, hidden=(4,)))

    def update(self, n=1):
        assert self.other.training  # the run has not found this network
        self.count += n


@pytest.mark.global_rng
def test_a_pilot_does_not_depend_on_what_its_progress_bar_refers_to(monkeypatch):
    bars = []

    @contextlib.contextmanager
    def shown(total, *rest, **options):
        bars.append(Bar(total))
        yield bars[-1]

    model = trained()
    expected = sample(copy.deepcopy(model), sampler="fast", **ASKED)
    monkeypatch.setattr(learn, "showing", shown)
    assert torch.equal(sample(model, sampler="fast", **ASKED), expected)
    assert model.pilot is not None
    assert [bar.count for bar in bars] == [bar.total for bar in bars] == [63]


@pytest.mark.global_rng
def test_an_error_of_a_pilot_run_outside_of_the_score_is_raised(monkeypatch):
    def broken(*rest):
        raise ReferenceError("weakly-referenced object no longer exists")

    model = trained()
    monkeypatch.setattr(learn, "_residuals", broken)
    with pytest.raises(ReferenceError, match="no longer exists"):
        sample(model, sampler="fast", **ASKED)


class Broken(ScoreModel):
    """Define a model that takes no batch of 32."""

    def forward(self, x, t, condition=None):
        return super().forward(x, t, condition) if len(x) < 32 else x * math.nan


@pytest.mark.long
@pytest.mark.global_rng
def test_the_setting_is_the_one_that_comes_nearest_to_the_ends_of_the_pilot_run():
    model = trained()
    measured, states = PilotRun(model, model.sde, progress=False).measure()
    start, end = states[0], states[-1]
    model.pilot, n = measured, 6
    sample(model, sampler="fast", n=1, steps=n, progress=False)
    errors = {}
    for setting in SETTINGS:
        method = Fast(pilot=replace(measured, choices={n: setting}))
        x = sample(model, sampler=method, x=start, steps=n, denoise=False, progress=False)
        squares = (x - end).double().square().mean(1).sort().values
        errors[setting] = float(squares[:29].mean().sqrt())
    best = min(errors, key=errors.get)
    usual = usual_setting(n)
    expected = best if errors[best] < 0.9 * errors[usual] else usual
    assert model.pilot.choices == {n: expected}


def test_given_orders_override_the_choice_of_the_pilot(known):
    chosen = replace(known, choices={5: Setting(1, 0, 0.0)})
    score = MIXTURE.at(VPSDE())
    own = sample(score, sampler=Fast(order=3, corrector=1, pilot=known), **ASKED)
    assert torch.equal(own, sample(score, sampler=Fast(3, 1, pilot=chosen), **ASKED))
    open_ = sample(score, sampler=Fast(pilot=chosen), **ASKED)
    assert torch.equal(
        open_, sample(score, sampler=Fast(1, 0, pilot=replace(known, growth=0.0)), **ASKED)
    )


# What is refused

LEVELS = torch.linspace(-3, 3, 8, dtype=DTYPE)
FACTOR = torch.ones(2, 8, dtype=DTYPE)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: Pilot(LEVELS[:5], FACTOR[:, :5], STANDARD, 5),
            ShapeError,
            r"6 values of ell.*\(5,\)",
        ),
        (lambda: Pilot(LEVELS, FACTOR[:, :5], STANDARD, 8), ShapeError, r"\(r, 8\).*\(2, 5\)"),
        (lambda: Pilot(LEVELS, math.nan * FACTOR, STANDARD, 8), NonFiniteError, "NaN"),
        (lambda: Pilot(LEVELS.flip(0), FACTOR, STANDARD, 8), InvalidValueError, "increase"),
        (lambda: Pilot(LEVELS.float(), FACTOR, STANDARD, 8), InvalidTypeError, "ell.*float32"),
        (
            lambda: Pilot(LEVELS, [[1.0]], STANDARD, 8),
            InvalidTypeError,
            "factor of Pilot must be a tensor",
        ),
        (lambda: Pilot(LEVELS, FACTOR, STANDARD, 8, -1.0), InvalidValueError, "unseen.*-1"),
        (lambda: Fast(pilot=3), InvalidTypeError, "got 3"),
        (lambda: Fast(order=7), InvalidValueError, r"order.*\[1, 6\].*7"),
        (lambda: Fast(corrector=-1), InvalidValueError, "corrector.*-1"),
        (lambda: Fast(tau=math.nan), InvalidValueError, "tau.*nan"),
        (lambda: Fast(window=(2.0, 1.0)), InvalidValueError, r"window.*\(2.0, 1.0\)"),
        (lambda: Fast(window=1.0), InvalidTypeError, "window.*1.0"),
    ],
)
def test_impossible_pilots_and_settings_are_refused(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


@pytest.mark.parametrize(
    ("sde", "arguments", "message"),
    [
        (VPSDE(), dict(n=1), "n must be an integer >= 2, got 1"),
        (VPSDE(), dict(n="8"), "got '8'"),
        (VPSDE(), dict(steps=4), "steps must be an integer >= 5, got 4"),
        (VPSDE(), dict(steps=None), "got None"),
        (VPSDE(), dict(n=10**30), "n of a pilot must be at most 100,000"),
        (VPSDE(), dict(steps=10**30), "steps of a pilot must be at most 10,000"),
        (VPSDE(levels=5), {}, "6 levels.*5"),
        (VPSDE, {}, "sde must be an SDE or None"),
        (VPSDE(), dict(shape=None), "shape="),
        (VPSDE(), dict(moments=Moments(torch.zeros(3), var=1.0)), r"\(3,\)"),
        (VPSDE(), dict(condition={"to": torch.zeros(3)}), "n = 32"),
    ],
)
def test_impossible_pilot_runs_are_refused_before_they_start(sde, arguments, message):
    def never(x, t):
        raise AssertionError

    with pytest.raises(ScoreSDEError, match=message):
        pilot(never, sde, **{"shape": (2,)} | arguments)


def test_a_pilot_of_another_event_is_refused():
    p = pilot(lambda x, t: -x, VPSDE(), shape=(2,))
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        sample(lambda x, t: -x, VPSDE(), Fast(pilot=p), shape=(3,), steps=5, seed=0)
    with pytest.raises(NonFiniteError, match="evaluation 1"):
        pilot(lambda x, t: math.nan * x, VPSDE(), shape=(2,))

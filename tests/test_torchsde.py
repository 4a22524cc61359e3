"""Test torchsde's solvers as samplers: Brownian path, convergence, limited evaluations."""

import math
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods import in_turn
from oracle import gaussian, law
from strategies import SDES, Exact, dtypes, sdes, shapes
from torch.testing import assert_close

from scoresde import sample, trajectory
from scoresde.errors import ConvergenceError, InvalidValueError, NonFiniteError, UnknownNameError
from scoresde.noise import Noise
from scoresde.samplers import EulerMaruyama, TorchSDE
from scoresde.sde import VESDE, VPSDE, ReverseSDE, SubVPSDE

# Of one step of the grid, as torchsde 0.2.6 asks for them.
EVALUATIONS = {
    "euler": 1, "milstein": 1, "euler_heun": 1, "heun": 2, "midpoint": 2, "log_ode": 2, "srk": 2,
    "reversible_heun": 1,
}  # fmt: skip
PATHS = {"ve": VESDE(0.05, 5), "vp": VPSDE(), "sub_vp": SubVPSDE()}
METHODS = pytest.mark.parametrize("method", EVALUATIONS)
N = 32


def last(sampler, rsde, x, times, noise):
    for state in sampler.trajectory(rsde, x, times, noise):
        x = state.x
    return x


def start(score, n=N):
    """Draws of the exact law at T."""
    mean, var = law(score, torch.tensor(score.sde.T, dtype=torch.float64))
    z = torch.randn(n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return mean + var.sqrt() * z


def end(sampler, sde, steps, n=N):
    score = gaussian(sde, 1.3, 0.25)
    noise = Noise.of(0, n, horizon=sde.T)
    return last(sampler, sde.reverse(score), start(score, n), sde.times(steps), noise)


def distance(x, y):
    return float((x - y).pow(2).mean().sqrt())


@pytest.fixture(scope="module")
def limits():
    """The ends of the paths of one seed."""
    return {name: end(TorchSDE("srk"), sde, 200) for name, sde in PATHS.items()}


@pytest.mark.slow
@given(st.data(), shapes(), dtypes())
def test_the_euler_of_torchsde_is_ours_on_the_same_path(data, shape, dtype):
    sde = data.draw(sdes(continuous=True))
    times = sde.times(data.draw(st.integers(1, 9)))
    x = torch.ones(shape, dtype=dtype)
    # a score that suits the noise, or long steps would leave single precision
    rsde, noise = sde.reverse(Exact(sde, 0.0, 1.0)), Noise.of(3, len(x), horizon=sde.T)
    theirs, ours = (
        last(method, rsde, x, times, noise)
        for method in (TorchSDE(data.draw(st.sampled_from(["euler", "milstein"]))), EulerMaruyama())
    )
    assert theirs.dtype == dtype
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert_close(theirs, ours, rtol=tolerance, atol=tolerance * float(ours.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), in_turn(EVALUATIONS, PATHS, 1))
def test_every_method_tends_to_the_samples_of_the_path_at_its_order(method, name, limits):
    """The noise is additive, so the order is at least 1; with the path's area it is 3/2."""
    order = 1.5 if method == "srk" else 1
    steps = (16, 32, 96)
    errors = [distance(end(TorchSDE(method), PATHS[name], n), limits[name]) for n in steps]
    scaled = [error * n**order for error, n in zip(errors, steps, strict=True)]
    assert scaled[-1] < 1.5 * max(scaled[:2]), scaled
    assert errors[-1] < 0.1


@pytest.mark.slow
def test_the_order_of_srk_comes_from_the_area_of_the_path(limits):
    class Turned(Noise):
        def area(self, like, s, t):
            return -super().area(like, s, t)

    sde = PATHS["vp"]
    score = gaussian(sde, 1.3, 0.25)
    right, wrong = (
        last(TorchSDE("srk"), sde.reverse(score), start(score), sde.times(64), kind.of(0, N))
        for kind in (Noise, Turned)
    )
    assert 5 * distance(right, limits["vp"]) < distance(wrong, limits["vp"])


@pytest.mark.parametrize("pair", [("euler", "milstein"), ("midpoint", "log_ode")])
def test_methods_that_differ_in_the_derivative_of_the_diffusion_agree_here(pair):
    one, two = (end(TorchSDE(method), VPSDE(), 8) for method in pair)
    assert torch.equal(one, two)


@pytest.mark.slow
def test_the_reversible_method_needs_more_steps_where_the_process_contracts(limits):
    def error(method, steps):
        return distance(end(TorchSDE(method), VPSDE(), steps), limits["vp"])

    assert error("reversible_heun", 16) > 20 * error("heun", 16)
    assert error("reversible_heun", 256) < 1.5 * error("heun", 256)


@pytest.mark.slow
@METHODS
@pytest.mark.parametrize("name", ["edm", "ve_levels", "flow"])
def test_a_step_of_the_grid_is_one_step_for_any_length(method, name):
    """Rounding of the times makes none of the steps two."""
    sde, calls = SDES[name], []
    sampler, times = TorchSDE(method), sde.times(19)
    rsde = ReverseSDE(sde, lambda x, t: calls.append(float(t[0])) or -x / (1 + t[0] ** 2))
    x = torch.ones(2, 3, dtype=torch.float64)
    states = list(sampler.trajectory(rsde, x, times, Noise.of(0, 2, horizon=sde.T)))
    cost = 19 * EVALUATIONS[method] + (method == "reversible_heun")
    assert [state.nfe for state in states][-1] == len(calls) == cost
    assert sampler.steps_for(cost) == 19
    assert sampler.steps_for(cost - 1) == 18
    assert min(calls) >= sde.eps
    assert [float(state.t) for state in states] == times[1:].tolist()


@METHODS
@pytest.mark.parametrize("shape", [(0, 2), (3,), (2, 0), (2, 1, 3, 2)])
def test_states_of_any_shape_keep_it(method, shape):
    sde = VPSDE()
    noise = Noise.of(0, shape[0])
    x = last(TorchSDE(method), sde.reverse(lambda x, t: -x), torch.ones(shape), sde.times(2), noise)
    assert (x.shape, x.dtype) == (shape, torch.float32)


# Adaptive steps


@pytest.mark.slow
@pytest.mark.parametrize("method", ["euler", "heun", "srk"])
def test_a_tighter_tolerance_comes_nearer_to_the_samples_of_the_path(method, limits):
    def error(tolerance):
        sampler = TorchSDE(method, adaptive=True, rtol=tolerance, atol=tolerance)
        return distance(end(sampler, PATHS["vp"], 1), limits["vp"])

    loose, tight = error(0.1), error(0.005)
    assert tight < 0.5 * loose
    assert tight < 0.02


@pytest.mark.slow
def test_an_adaptive_run_has_the_law_of_the_data():
    """Rejected steps do not bias it: mean and variance within five standard errors and the bias."""
    n, sde = 4000, VPSDE()
    x = end(TorchSDE("srk", adaptive=True), sde, 1, n)
    score = gaussian(sde, 1.3, 0.25)
    mean, var = law(score, torch.tensor(sde.eps, dtype=torch.float64))
    assert abs(x.mean() - mean) < 5 * (var / n).sqrt() + 0.01
    assert abs(x.var() / var - 1) < 5 * math.sqrt(2 / n) + 0.02


def test_an_adaptive_run_ends_within_its_budget():
    sde, sampler = VPSDE(), TorchSDE("heun", adaptive=True, rtol=1e-4, atol=1e-4, max_nfe=50)
    rsde = sde.reverse(gaussian(sde, 1.3, 0.25))
    x = torch.ones(2, 1, dtype=torch.float64)
    rsde.score(x, sde.T)
    with pytest.raises(ConvergenceError, match=r"max_nfe = 50 evaluations.* rtol"):
        last(sampler, rsde, x, sde.times(1), Noise.of(0, 2))
    assert rsde.nfe == 1 + 50


@pytest.mark.slow
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("check", [False, True])
@METHODS
def test_a_score_that_is_not_a_number_is_found_at_once(method, adaptive, check):
    sde = VPSDE()
    rsde = sde.reverse(lambda x, t: x * math.nan, check_finite=check)
    sampler, begin = TorchSDE(method, adaptive=adaptive), time.process_time()
    arguments = (sampler, rsde, torch.ones(2, 1), sde.times(2), Noise.of(0, 2))
    if check or adaptive:
        with pytest.raises(NonFiniteError, match="NaN"):
            last(*arguments)
    else:
        # as every method with fixed steps does with check_finite=False
        assert last(*arguments).isnan().all()
    assert time.process_time() - begin < 2


def test_a_step_at_the_least_length_is_taken_with_a_warning():
    sde = VPSDE()
    sampler = TorchSDE(adaptive=True, rtol=1e-4, atol=1e-4, dt_min=0.05)
    rsde = sde.reverse(gaussian(sde, 1.3, 0.25))
    with pytest.warns(UserWarning, match="minimum allowed step size"):
        x = last(sampler, rsde, torch.ones(2, 1, dtype=torch.float64), sde.times(1), Noise.of(0, 2))
    assert x.isfinite().all()
    assert rsde.nfe < 100


@pytest.mark.slow
@METHODS
def test_an_adaptive_run_visits_the_times_of_its_grid(method):
    sde, sampler = VPSDE(), TorchSDE(method, adaptive=True)
    rsde, times = sde.reverse(gaussian(sde, 1.3, 0.25)), sde.times(3)
    x = torch.ones(2, 1, dtype=torch.float64)
    states = list(sampler.trajectory(rsde, x, times, Noise.of(0, 2)))
    assert [float(state.t) for state in states] == times[1:].tolist()
    assert states[1].nfe - states[0].nfe > 2
    assert abs(states[-1].x - 1.3).max() < 2


@pytest.mark.slow
def test_an_adaptive_run_goes_from_T_to_eps_and_a_budget_is_its_limit():
    sde, sampler = VPSDE(), TorchSDE("heun", adaptive=True)
    arguments = dict(n=2, shape=(1,), seed=0)
    score = gaussian(sde, 1.3, 0.25)
    _, end, denoised = trajectory(score, sde, sampler, **arguments)
    assert float(end.t) == sde.eps
    assert denoised.nfe == end.nfe + 1
    assert torch.equal(
        sample(score, sde, sampler, nfe=denoised.nfe, **arguments), denoised.denoised
    )
    with pytest.raises(ConvergenceError, match=f"max_nfe = {end.nfe - 1} evaluations"):
        sample(score, sde, sampler, nfe=denoised.nfe - 1, **arguments)
    with pytest.raises(InvalidValueError, match="nfe = 3 is too small for one step"):
        sample(score, sde, sampler, nfe=3, **arguments)


# Through the front door


@pytest.mark.slow
def test_one_seed_is_one_sample_at_any_number_of_steps():
    score = gaussian(VPSDE(), 1.3, 0.25)
    few, many, other = (
        sample(score, VPSDE(), TorchSDE("heun"), n=20, shape=(1,), steps=steps, seed=seed)
        for steps, seed in ((50, 0), (150, 0), (150, 1))
    )
    assert (few - many).std() < 0.1 * (other - many).std()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TorchSDE("hune"), UnknownNameError, "did you mean 'heun'"),
        (lambda: TorchSDE(rtol=0.0), InvalidValueError, "rtol must be positive and finite, got 0"),
        (lambda: TorchSDE(atol=math.nan), InvalidValueError, "atol must be positive .* got nan"),
        (lambda: TorchSDE(dt_min=-1.0), InvalidValueError, "dt_min must be positive .* got -1"),
        (lambda: TorchSDE(max_nfe=0), InvalidValueError, "max_nfe must be an integer >= 1, got 0"),
    ],
)
def test_impossible_parameters_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()

"""Test the probability flow by fixed steps: published formulas, orders, and exact cases."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods import ALL, RESCALED, in_turn
from numpy.polynomial import Polynomial
from oracle import affine, gaussian, law, run, step
from strategies import generators, log_floats, sdes, ve_sdes, vp_sdes
from torch.testing import assert_close

from scoresde import SAMPLERS
from scoresde.noise import Noise
from scoresde.samplers import (
    DDIM,
    DPM2,
    IPNDM,
    LMS,
    PC,
    Ancestral,
    ConsistentAnnealed,
    Heun,
    Restart,
    RestartInterval,
)
from scoresde.samplers.flow.adams import adams_bashforth
from scoresde.sde import EDMSDE, VESDE, VPSDE, BetaLadder, FlowSDE, NCSNLadder, SubVPSDE
from scoresde.sde.spacings import Karras
from scoresde.targets import Gaussian, GaussianMixture

# for tests that hypothesis runs once for each name
FEWER = settings(max_examples=8)


def randn(generator, *shape):
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def last(sampler, rsde, x, times, noise=None):
    for state in sampler.trajectory(rsde, x, times, noise):
        x = state.x
    return x


def ratio(sde, t):
    return sde.sigma(t) / sde.alpha(t)


class Numbered:
    """Given numbers, one for each time of a draw."""

    def __init__(self, z):
        self.z, self.times = z, []

    def normal(self, like, t, k=0):
        self.times.append(float(t))
        return self.z[len(self.times) - 1]

    def fork(self, k):
        return self


# The published formulas


@given(st.data(), st.floats(0, 1))
def test_ddim_is_the_published_formula(data, eta):
    """Song, Meng & Ermon (2021), eqs. 12 and 16, in their abar."""
    n = data.draw(st.integers(2, 12))
    betas = torch.tensor(
        data.draw(st.lists(log_floats(1e-4, 0.5), min_size=n, max_size=n)), dtype=torch.float64
    )
    sde, abar = BetaLadder(betas), torch.cumprod(1 - betas, 0)
    x, z = randn(data.draw(generators()), 2, 5, 3)
    score = Gaussian(torch.zeros(3), std=0.7).at(sde)
    i = data.draw(st.integers(1, n - 1))
    j = data.draw(st.integers(0, i - 1))
    t, s = sde.times().flip(0)[[i, j]]
    eps = -(1 - abar[i]).sqrt() * score(x, t)
    std = eta * ((1 - abar[j]) / (1 - abar[i])).sqrt() * (1 - abar[i] / abar[j]).sqrt()
    x0 = (x - (1 - abar[i]).sqrt() * eps) / abar[i].sqrt()
    expected = abar[j].sqrt() * x0 + (1 - abar[j] - std**2).clamp(min=0).sqrt() * eps + std * z
    found = DDIM(eta).step(sde.reverse(score), x, t, s, Numbered([z]))
    assert_close(found, expected, rtol=1e-8, atol=1e-8)


@given(st.data())
def test_ddim_with_all_its_noise_is_ancestral_sampling(data):
    sde = data.draw(sdes())
    score, times = gaussian(sde, 0.4, 0.3), sde.times(1 if sde.levels == 2 else 2)
    noise, x = Noise.of(0, 3), sde.sigma(times[0]) * randn(data.draw(generators()), 3, 1)
    one, two = (
        last(sampler, sde.reverse(score), x, times, noise) for sampler in (DDIM(1.0), Ancestral())
    )
    assert_close(one, two, rtol=1e-9, atol=1e-9 * float(ratio(sde, times[0]) + 1))


def karras(denoiser, sigmas, x, draws, churn, low, high, s_noise):
    """Karras et al. (2022), algorithm 2, as it is written there."""
    n, draws = len(sigmas) - 1, iter(draws)
    for sigma, after in pairwise(sigmas):
        gamma = min(churn / n, math.sqrt(2) - 1) if low <= sigma <= high else 0.0
        raised = sigma + gamma * sigma
        if gamma > 0:
            x = x + math.sqrt(raised**2 - sigma**2) * s_noise * next(draws)
        d = (x - denoiser(x, raised)) / raised
        end = x + (after - raised) * d
        if after > 0:
            d_end = (end - denoiser(end, after)) / after
            end = x + (after - raised) * (d + d_end) / 2
        x = end
    return x


@pytest.mark.slow
@given(generators(), st.floats(0.5, 10), st.floats(0.9, 1.1))
def test_heun_is_the_published_algorithm_down_to_zero_noise(generator, churn, s_noise):
    sde = EDMSDE()
    target = GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [2.0, 0.0]], stds=0.4)
    sigmas = [60.0, 20.0, 4.0, 1.0, 0.3, 0.05, 0.0]
    x, z = 60 * randn(generator, 4, 2), randn(generator, len(sigmas), 4, 2)
    denoiser = lambda x, sigma: target.denoise(x, sde, sigma)  # noqa: E731
    times = torch.tensor(sigmas, dtype=torch.float64)
    for options in ((0.0, 0.0, math.inf, 1.0), (churn, 0.2, 10.0, s_noise)):
        rsde, noise = sde.reverse(target.at(sde)), Numbered(z)
        found = last(Heun(*options), rsde, x, times, noise)
        assert_close(found, karras(denoiser, sigmas, x, z, *options), rtol=1e-9, atol=1e-9)
        assert len(noise.times) == (3 if options[0] else 0)
        # where there is no noise there is no score, and the step is Euler's
        assert rsde.nfe == 2 * (len(sigmas) - 1) - 1


def test_churn_stops_at_the_last_time():
    sde = EDMSDE()
    rsde = sde.reverse(gaussian(sde, 0.3, 0.5))
    x, z = torch.full((1, 1), 80.0, dtype=torch.float64), torch.ones(1, 1, 1).double()
    t, near, s = torch.tensor([80.0, 79.9, 20.0], dtype=torch.float64)
    assert torch.equal(
        Heun(churn=9.0).step(rsde, x, t, s, Numbered(z)), Heun().step(rsde, x, t, s, None)
    )
    raised = x + (t**2 - near**2).sqrt() * z[0]
    found = Heun(churn=9.0).step(rsde, x, near, s, Numbered(z))
    assert_close(found, Heun().step(rsde, raised, t, s, None), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sde", [VPSDE(), FlowSDE(), EDMSDE()], ids=repr)
def test_churn_has_its_window_in_the_ratio_of_noise_to_signal(sde):
    levels = torch.tensor([3.0, 2.5, 1.5, 1.1, 0.9, 0.1], dtype=torch.float64)
    times, noise = sde.time(-2 * levels.log()), Numbered(torch.zeros(9, 1, 1).double())
    sampler = Heun(churn=2.0, sigma_min=1.0, sigma_max=2.0)
    x = torch.ones(1, 1, dtype=torch.float64)
    last(sampler, sde.reverse(gaussian(sde, 0.3, 0.5)), x, times, noise)
    assert noise.times == times[2:4].tolist()


@given(st.data())
def test_dpm2_is_the_published_formula(data):
    """Lu et al. (2022), algorithm 1: there lambda is half of the log signal-to-noise ratio."""
    sde = data.draw(st.one_of(vp_sdes(), ve_sdes()))
    t, s = sde.times(1 if sde.levels == 2 else 2)[:2]
    score, x = gaussian(sde, [0.3, -1.0], [0.5, 2.0]), randn(data.draw(generators()), 4, 2)
    x = sde.sigma(t) * x
    eps = lambda x, t: -sde.sigma(t) * score(x, t)  # noqa: E731
    h = (sde.log_snr(s) - sde.log_snr(t)) / 2
    m = sde.time(sde.log_snr(t) + h)
    u = sde.alpha(m) / sde.alpha(t) * x - sde.sigma(m) * torch.expm1(h / 2) * eps(x, t)
    expected = sde.alpha(s) / sde.alpha(t) * x - sde.sigma(s) * torch.expm1(h) * eps(u, m)
    found = DPM2().step(sde.reverse(score), x, t, s, None)
    assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(x.abs().max()))


def test_dpm2_is_euler_in_a_step_to_zero_noise():
    sde, x = EDMSDE(), torch.ones(2, 1, dtype=torch.float64)
    t, s = torch.tensor([0.5, 0.0], dtype=torch.float64)
    rsde = sde.reverse(gaussian(sde, 0.3, 0.5))
    one, two = (sampler.step(rsde, x, t, s, None) for sampler in (DPM2(), DDIM()))
    assert torch.equal(one, two)
    assert rsde.nfe == 2


def test_the_weights_of_equal_steps_are_those_of_adams_and_bashforth():
    found = adams_bashforth(torch.arange(7, dtype=torch.float64), 4) * 24
    assert_close(found[0], torch.tensor([24.0, 0, 0, 0]).double(), rtol=1e-13, atol=1e-12)
    assert_close(found[1], torch.tensor([36.0, -12, 0, 0]).double(), rtol=1e-13, atol=1e-12)
    assert_close(found[2], torch.tensor([46.0, -32, 10, 0]).double(), rtol=1e-13, atol=1e-12)
    for row in found[3:]:
        assert_close(row, torch.tensor([55.0, -59, 37, -9]).double(), rtol=1e-12, atol=1e-11)


@given(st.lists(log_floats(1.1, 3), min_size=5, max_size=9), st.integers(1, 8))
def test_the_weights_of_unequal_steps_are_the_integrals_of_the_polynomials_of_lagrange(factors, k):
    nodes = torch.tensor([1.0, *factors], dtype=torch.float64).cumprod(0).flip(0)
    found = adams_bashforth(nodes, k)
    assert found.shape == (len(factors), k)
    for i, row in enumerate(found):
        past = nodes[max(i - k + 1, 0) : i + 1].flip(0).tolist()
        for j, own in enumerate(past):
            others = [node for node in past if node != own]
            basis = Polynomial.fromroots(others) if others else Polynomial([1.0])
            antiderivative = (basis / basis(own)).integ()
            expected = antiderivative(float(nodes[i + 1])) - antiderivative(float(nodes[i]))
            scale = float(nodes[i] - nodes[i + 1])
            assert float(row[j]) == pytest.approx(expected, rel=1e-6, abs=1e-6 * scale)
        assert (row[len(past) :] == 0).all()


# Orders


@given(st.data(), st.integers(1, 6), st.sampled_from(["uniform", "karras", "log_snr"]))
def test_a_multistep_method_integrates_slopes_of_its_degree_exactly(data, order, spacing):
    """Once there are as many slopes as its order, for any SDE and grid."""
    sde = data.draw(sdes(continuous=True))
    times = sde.times(data.draw(st.integers(order + 1, 12)), spacing=spacing)
    check_degree(LMS(order), order - 1, sde, times, data.draw(generators()))


@given(st.data(), st.integers(1, 4))
def test_fixed_weights_integrate_exactly_if_the_steps_are_equal(data, order):
    sde = data.draw(sdes(continuous=True))
    times = sde.times(order + 4, spacing=Karras(1.0))
    check_degree(IPNDM(order), order - 1, sde, times, data.draw(generators()))


def check_degree(sampler, degree, sde, times, generator):
    """What the steps add is the integral of a predicted noise that is a polynomial."""
    r = ratio(sde, times)
    p = Polynomial(randn(generator, degree + 1).numpy())
    y = torch.from_numpy(p.integ()((r / r[0]).numpy())) * r[0]

    def score(x, t):
        t = t.double()
        slope = p((ratio(sde, t) / r[0]).numpy())
        return -torch.from_numpy(slope)[:, None] / sde.sigma(t)[:, None]

    x = torch.ones(1, 1, dtype=torch.float64)
    states = sampler.trajectory(sde.reverse(score), x, times, None)
    found = torch.cat([state.x[0] / sde.alpha(state.t) for state in states])
    scale = float(r[0]) * abs(p.coef).sum()
    assert_close(found.diff()[degree:], y.diff()[degree + 1 :], rtol=1e-9, atol=1e-9 * scale)


ORDERS = [
    (DDIM(), 1), (Heun(), 2), (Heun(churn=3.0), 2), (DPM2(), 2), (IPNDM(), 2), (LMS(2), 2),
    (LMS(), 3),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.law(25)
@pytest.mark.parametrize(
    ("case", "sde"), in_turn(ORDERS, [VESDE(0.01, 5), SubVPSDE(), FlowSDE()], 2), ids=repr
)
def test_whole_runs_converge_at_their_order(case, sde):
    (sampler, order), score, errors = case, gaussian(sde, 1.3, 0.25), []
    for n in (12, 24, 48, 96, 192):
        times = sde.times(n, spacing="log_snr")
        (mean, var), (m, v) = run(sampler, score, times), law(score, times[-1])
        # what is left of it above rounding
        error = (torch.cat([var - v, mean - m]).abs() - 1e-12).clamp(min=0)
        errors.append(error * n**order)
    assert (torch.stack(errors[3:]).amax(0) <= 2 * torch.stack(errors[:3]).amax(0)).all()
    assert error[0] < 0.03 * v


# Exactness


@pytest.mark.slow
@pytest.mark.law(26)
@pytest.mark.parametrize("name", sorted(RESCALED - {"ancestral_large", "fast_pilot", "heun_churn"}))
@FEWER
@given(st.data())
def test_data_at_one_point_are_sampled_exactly(name, data):
    """Their flow is a line, and their posterior a point."""
    sde = data.draw(sdes())
    times = sde.times(data.draw(st.integers(1, min(sde.levels - 1 if sde.levels else 6, 6))))
    score = gaussian(sde, data.draw(st.floats(-3, 3)), 0.0)
    (mean, var), (m, v) = run(ALL[name], score, times), law(score, times[-1])
    # rounding at the start is large against the noise at the end, and a second evaluation divides
    # that of its own step by the noise once more; an extrapolation from levels that nearly touch
    # divides by their distance
    noises = ratio(sde, times)
    fall, whole = float((noises[:-1] / noises[1:]).max()), float(noises[0] / noises[-1])
    steps = noises.log().diff()
    uneven = float(steps.min() / steps.max())
    rounding = 1e-9 + 1e-15 * fall**2 + 1e-13 * whole + 1e-12 * uneven
    assert_close(var, v, rtol=rounding, atol=0)
    assert_close(mean, m, rtol=rounding, atol=rounding * float(sde.sigma(times[0]) + 1))


@given(st.data(), log_floats(1e-2, 10))
def test_ddim_leaves_too_little_variance_in_other_data(data, var):
    sde = data.draw(sdes())
    times = sde.times(1 if sde.levels == 2 else 2)
    score = gaussian(sde, 0.0, var)
    assert run(DDIM(), score, times)[1] < law(score, times[-1])[1] * (1 - 1e-9)


@pytest.mark.law(21)
@given(st.data())
def test_ddim_multiplies_standard_normal_data_under_vp_by_the_cosine_of_its_angle(data):
    sde = data.draw(vp_sdes())
    score, times = gaussian(sde, 0.0, 1.0), sde.times(1 if sde.levels == 2 else 2)
    for t, s in pairwise(times):
        factor = sde.alpha(s) * sde.alpha(t) + sde.sigma(s) * sde.sigma(t)
        assert_close(step(DDIM(), sde.reverse(score), t, s).a, factor[None], rtol=1e-10, atol=0)


@pytest.mark.slow
@given(st.data(), st.integers(1, 8))
def test_a_multistep_method_is_ddim_without_earlier_slopes(data, order):
    sde = data.draw(sdes())
    times = sde.times(1 if sde.levels == 2 else 2)
    score, x = gaussian(sde, 0.3, 0.5), randn(data.draw(generators()), 3, 1)
    rsde = sde.reverse(score)
    ddim = last(DDIM(), rsde, x, times)
    close = dict(rtol=1e-11, atol=1e-11 * float(ddim.abs().max()))
    for method in (LMS, IPNDM):
        assert_close(last(method(1), rsde, x, times), ddim, **close)
        assert_close(last(PC(method(order), k=0), rsde, x, times), ddim, **close)
        assert_close(last(method(order), rsde, x, times[:2]), last(DDIM(), rsde, x, times[:2]))


def test_euler_is_another_name_of_ddim():
    assert SAMPLERS["euler"] == SAMPLERS["ddim"] == DDIM(eta=0.0)


# Consistent annealed sampling


@given(st.lists(log_floats(1.05, 3), min_size=1, max_size=8), st.floats(0, 1), generators())
def test_consistent_annealed_sampling_is_the_published_algorithm(ratios, u, generator):
    """Jolicoeur-Martineau et al. (2021), algorithm 2, with its step above its lower bound."""
    sigmas = (0.02 * torch.tensor([1.0, *ratios], dtype=torch.float64).cumprod(0)).tolist()
    sde = NCSNLadder(tuple(sigmas))
    bound = 1 - 1 / max(ratios)
    eta = bound + u * (1 - bound)
    score = gaussian(sde, [0.3, -1.0, 0.0], 0.5)
    x, z = sigmas[-1] * randn(generator, 4, 3), randn(generator, len(ratios), 4, 3)
    found = last(ConsistentAnnealed(eta), sde.reverse(score), x, sde.times(), Numbered(z))
    for i, (sigma, after) in enumerate(pairwise(reversed(sigmas))):
        gamma = after / sigma
        beta = math.sqrt(max(1 - ((1 - eta) / gamma) ** 2, 0))
        x = x + eta * sigma**2 * score(x, sde.times()[i]) + beta * after * z[i]
    assert_close(found, x, rtol=1e-7, atol=1e-7 * sigmas[-1])


@given(st.data())
def test_consistent_annealed_sampling_has_ddim_and_ancestral_sampling_at_its_ends(data):
    sde = data.draw(sdes())
    t, s = sde.times(1 if sde.levels == 2 else 2)[:2]
    r = float(ratio(sde, s) / ratio(sde, t))
    rsde = sde.reverse(gaussian(sde, 0.4, 0.3))
    x, z = sde.sigma(t) * randn(data.draw(generators()), 2, 3, 1)
    for kappa, same in ((1 - r**2, Ancestral()), ((1 - r) / 2, DDIM())):
        one, two = (m.step(rsde, x, t, s, Numbered([z])) for m in (ConsistentAnnealed(kappa), same))
        assert_close(one, two, rtol=1e-6, atol=1e-6 * float(two.abs().max()))


# Restart


@pytest.mark.slow
def test_restarts_contract_earlier_errors():
    """By the factor that the transition up and the flow map down make, each time."""
    sde = VESDE(0.01, 5)
    score, times = gaussian(sde, 0.7, 0.04), sde.times(60)
    end = times[(ratio(sde, times) / 0.1).log().abs().argmin()]
    top = sde.time(torch.zeros((), dtype=torch.float64))
    once = (law(score, end)[1] / law(score, top)[1]).sqrt()
    assert 0.1 < once < 0.3
    slopes = []
    for k in (0, 1, 3):
        sampler = Restart(intervals=(RestartInterval(0.1, 1.0, k, 60),))
        slopes.append(affine(lambda x, z, m=sampler: last(m, sde.reverse(score), x, times, z)).a)
    assert_close(slopes[1] / slopes[0], once, rtol=1e-3, atol=0)
    assert_close(slopes[2] / slopes[0], once**3, rtol=3e-3, atol=0)
    # the variance removed is replaced by new noise
    assert_close(run(sampler, score, times)[1], law(score, times[-1])[1], rtol=1e-3, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("sde", [VESDE(0.01, 5), VPSDE(), EDMSDE()], ids=repr)
def test_restarts_keep_the_law_at_the_order_of_their_sampler(sde):
    score, errors = gaussian(sde, 1.3, 0.25), []
    for n in (10, 20, 40, 80):
        times = sde.times(4 * n, spacing="log_snr")
        (mean, var), (m, v) = (
            run(Restart(intervals=(RestartInterval(steps=n),)), score, times),
            law(score, times[-1]),
        )
        errors.append(float(torch.cat([var - v, mean - m]).abs().max()) * n**2)
    assert max(errors[2:]) <= 2 * max(errors[:2])
    assert errors[-1] / 80**2 < 1e-3 * v


@given(st.data(), st.integers(1, 5), log_floats(1e-3, 10), log_floats(1.01, 1e4))
def test_restarts_begin_at_their_levels_and_have_the_stated_cost(data, steps, low, factor):
    sde = data.draw(sdes())
    steps = min(steps, sde.levels - 1) if sde.levels else steps
    score, times, asked = gaussian(sde, 0.0, 0.5), sde.times(steps), []
    rsde = sde.reverse(lambda x, t: asked.append(float(t[0])) or score(x, t))
    sampler = Restart(DDIM(), (RestartInterval(low, low * factor),))
    x = torch.ones(2, 1, dtype=torch.float64)
    states = list(sampler.trajectory(rsde, x, times, Noise.of(0, 2)))
    assert torch.equal(torch.stack([state.t for state in states]), times[1:])
    assert states[-1].nfe == steps + 6
    assert sampler.steps_for(steps + 6) == steps
    # one way down, two passes over the interval, and the rest of the way
    ups = [i for i, (t, s) in enumerate(pairwise(asked), 1) if s >= t]
    assert len(ups) == 2
    first, second = (asked[i : i + 3] for i in ups)
    assert first == second
    end = times[1:][(ratio(sde, times[1:]) / low).log().abs().argmin()]
    before = float(times[times > end][-1])
    assert before <= first[0] <= sde.T
    if before < first[0] < sde.T * (1 - 1e-9):
        assert float(ratio(sde, torch.tensor(first[0]).double())) == pytest.approx(low * factor)
    assert asked[: ups[0]] == [float(t) for t in times if t > end]
    assert asked[ups[1] + 3 :] == [float(t) for t in times[:-1] if t <= end]


def test_an_interval_is_sampled_on_the_grid_of_karras():
    sde, asked = VPSDE(), []
    score = gaussian(sde, 0.0, 0.5)
    rsde = sde.reverse(lambda x, t: asked.append(t[0]) or score(x, t))
    sampler = Restart(DDIM(), (RestartInterval(0.1, 2.0, k=1, steps=5),))
    x = torch.ones(1, 1, dtype=torch.float64)
    times = sde.time(-2 * torch.tensor([4.0, 1.0, 0.1, 0.05], dtype=torch.float64).log())
    list(sampler.trajectory(rsde, x, times, Noise.of(0, 1)))
    down = ratio(sde, torch.stack([*asked[2:7], times[2]])) ** (1 / 7)
    assert down[0] == pytest.approx(2 ** (1 / 7), rel=1e-9)
    assert_close(down.diff(), down.diff().mean().expand(5), rtol=1e-9, atol=0)


def test_several_intervals_are_repeated_each_at_its_end():
    sde, asked = EDMSDE(), []
    score, times = gaussian(sde, 0.0, 0.5), sde.times(18)
    rsde = sde.reverse(lambda x, t: asked.append(float(t[0])) or score(x, t))
    low, high = RestartInterval(0.06, 0.3, k=3, steps=2), RestartInterval(1.0, 2.0, k=1, steps=4)
    other = RestartInterval(1.0, 3.0, k=2, steps=1)
    sampler = Restart(DDIM(), (low, high, other))
    x = torch.ones(2, 1, dtype=torch.float64)
    states = list(sampler.trajectory(rsde, x, times, Noise.of(0, 2)))
    assert torch.equal(torch.stack([state.t for state in states]), times[1:])
    assert states[-1].nfe == len(asked) == 18 + 3 * 2 + 4 + 2
    assert sampler.steps_for(18 + 12) == 18
    tops = [s for t, s in pairwise(asked) if s >= t]
    assert tops == pytest.approx([2.0, 3.0, 3.0, 0.3, 0.3, 0.3])
    # no draw is used twice, and the law is kept
    sampler = replace(
        sampler, sampler=Heun(), intervals=(low, replace(low, k=1), replace(high, k=2))
    )
    sampler = replace(sampler, intervals=tuple(replace(s, steps=40) for s in sampler.intervals))
    (mean, var), (m, v) = run(sampler, score, sde.times(80)), law(score, times[-1])
    assert_close(var, v, rtol=3e-3, atol=0)
    assert_close(mean, m, rtol=1e-9, atol=1e-9)


class Asked:
    """Noise that records its draws and those of its forks."""

    def __init__(self, noise, record, path=()):
        self.noise, self.record, self.path = noise, record, path

    def normal(self, like, t, k=0):
        self.record.append((self.path, float(t), k))
        return self.noise.normal(like, t, k)

    def fork(self, k):
        return Asked(self.noise.fork(k), self.record, (*self.path, k))


def test_no_random_number_is_used_twice_in_restarts():
    sde, record = EDMSDE(), []
    rsde, times = sde.reverse(gaussian(sde, 0.0, 0.5)), sde.times(8)
    interval = RestartInterval(0.1, 1.0, k=2, steps=2)
    x, noise = torch.ones(2, 1, dtype=torch.float64), Asked(Noise.of(0, 2), record)
    last(Restart(DDIM(eta=1.0), (interval, interval)), rsde, x, times, noise)
    assert len(record) == len(set(record)) == 8 + 2 * 2 * (1 + 2)
    numbers = [Noise.of(0, 2) for _ in record]
    for i, (path, t, k) in enumerate(record):
        for fork in path:
            numbers[i] = numbers[i].fork(fork)
        numbers[i] = numbers[i].normal(x, torch.tensor(t, dtype=torch.float64), k)
    assert len(torch.cat(numbers).unique()) == 2 * len(record)


def test_a_run_without_steps_has_no_restart():
    sde, x = EDMSDE(), torch.ones(2, 1)
    assert list(Restart().trajectory(sde.reverse(lambda x, t: -x), x, sde.times(3)[:1], None)) == []


def test_no_restart_is_the_sampler_itself():
    sde = VPSDE()
    rsde, x = sde.reverse(gaussian(sde, 0.3, 0.5)), torch.ones(2, 1, dtype=torch.float64)
    one, two = (
        last(m, rsde, x, sde.times(9), Noise.of(0, 2)) for m in (Restart(intervals=()), Heun())
    )
    assert torch.equal(one, two)


def test_a_restart_may_end_at_zero_noise():
    sde = EDMSDE()
    rsde, x = sde.reverse(gaussian(sde, 0.3, 0.5)), torch.ones(2, 1, dtype=torch.float64)
    times = torch.tensor([80.0, 0.0], dtype=torch.float64)
    assert last(Restart(), rsde, x, times, Noise.of(0, 2)).isfinite().all()

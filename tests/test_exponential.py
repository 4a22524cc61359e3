"""Test exponential methods against published updates, their orders, and exact cases."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracle import gaussian, law, run
from scipy.integrate import quad, solve_ivp
from strategies import generators, ladders, log_floats, sdes
from torch.testing import assert_close

from scoresde import SAMPLERS, sample
from scoresde.noise import Noise
from scoresde.quadrature import NODES, gauss_legendre, lagrange
from scoresde.samplers import (
    DDIM,
    DEIS,
    ERSDE,
    IPNDM,
    LMS,
    DPMSolverPP,
    Fast,
    SASolver,
    TauMultistep,
    TwoStage,
    UniPC,
)
from scoresde.samplers.multistep.integrator import integrate, weighted_sum
from scoresde.sde import EDMSDE, VESDE, VPSDE, BetaLadder, CosineSDE, FlowSDE
from scoresde.sde.spacings import even_times
from scoresde.targets import Gaussian, GaussianMixture

MIXTURE = GaussianMixture(
    [0.5, 0.3, 0.2], [[1.0, -0.5], [-1.0, 0.3], [0.2, 1.2]], stds=[0.3, 0.5, 0.2]
)


class Problem:
    """A mixture under an SDE: what a textbook calls alpha, sigma, lambda, D, and the draws z."""

    def __init__(self, sde, times, seed=0):
        self.sde, self.times = sde, times
        self.alpha, self.sigma = sde.alpha(times).tolist(), sde.sigma(times).tolist()
        self.lam = (sde.log_snr(times) / 2).tolist()
        self.rho = [math.exp(-level) for level in self.lam]
        self.steps = range(len(times) - 1)
        self.score = MIXTURE.at(sde)
        generator = torch.Generator().manual_seed(seed)
        self.x = MIXTURE.sample(3, sde, times[0], generator=generator, dtype=torch.float64)
        self.noise = Noise.of(seed, 3, horizon=sde.T)

    def d(self, x, i):
        """Return the denoiser at time i of the grid."""
        return MIXTURE.denoise(x, self.sde, self.times[i])

    def z(self, i, k=0):
        return self.noise.normal(self.x, self.times[i], k)

    def run(self, sampler):
        """Where the sampler ends."""
        rsde = self.sde.reverse(self.score)
        *_, end = sampler.trajectory(rsde, self.x, self.times, self.noise)
        return end.x


@st.composite
def problems(draw, fewest=1):
    sde = draw(sdes(continuous=True))
    spacing = draw(st.sampled_from(["log_snr", "uniform"]))
    times = sde.times(draw(st.integers(fewest, 8)), spacing=spacing)
    return Problem(sde, times, draw(st.integers(0, 2**32)))


@given(problems(), st.integers(1, 6), st.integers(1, 6))
def test_a_changed_prediction_is_the_repeated_step(problem, order, corrector):
    """With an update of its own, a correction starts from the state before the step."""
    method, rsde = (
        TauMultistep(order=order, corrector=corrector),
        problem.sde.reverse(problem.score),
    )
    start = (rsde, problem.x, problem.times, problem.noise)
    pairs = zip(integrate(method, *start), integrate(method, *start, weighted_sum), strict=True)
    for changed, repeated in pairs:
        assert_close(changed.x, repeated.x, rtol=1e-9, atol=1e-9)


def agree(ours, textbook):
    assert_close(ours, textbook, rtol=1e-9, atol=1e-10)


# The published updates


@pytest.mark.slow
@given(problems())
def test_order_one_is_ddim(p):
    for sampler in (DPMSolverPP(order=1), UniPC(1, 0), TauMultistep(order=1), DEIS(order=1)):
        agree(p.run(sampler), p.run(DDIM()))


@pytest.mark.slow
@given(problems(), st.booleans())
def test_dpm_solver_pp_2m_is_the_published_update_with_and_without_noise(p, sde):
    x, old = p.x, None
    for i in p.steps:
        h, new = p.lam[i + 1] - p.lam[i], p.d(x, i)
        mix = new
        if old is not None:
            r = (p.lam[i] - p.lam[i - 1]) / h
            mix = (1 + 1 / (2 * r)) * new - 1 / (2 * r) * old
        ratio = p.sigma[i + 1] / p.sigma[i]
        if sde:
            x = ratio * math.exp(-h) * x - p.alpha[i + 1] * math.expm1(-2 * h) * mix
            x = x + p.sigma[i + 1] * math.sqrt(-math.expm1(-2 * h)) * p.z(i)
        else:
            x = ratio * x - p.alpha[i + 1] * math.expm1(-h) * mix
        old = new
    agree(p.run(DPMSolverPP(tau=float(sde))), x)


@pytest.mark.slow
@given(problems(), st.floats(0.1, 1.0))
def test_dpm_solver_pp_2s_is_algorithm_1_of_its_paper(p, r):
    x = p.x
    for i in p.steps:
        h, first = p.lam[i + 1] - p.lam[i], p.d(x, i)
        m = p.sde.time(torch.tensor(2 * (p.lam[i] + r * h), dtype=torch.float64))
        alpha, sigma = float(p.sde.alpha(m)), float(p.sde.sigma(m))
        u = sigma / p.sigma[i] * x - alpha * math.expm1(-r * h) * first
        mix = (1 - 1 / (2 * r)) * first + 1 / (2 * r) * MIXTURE.denoise(u, p.sde, m)
        x = p.sigma[i + 1] / p.sigma[i] * x - p.alpha[i + 1] * math.expm1(-h) * mix
    assert_close(p.run(TwoStage(r=r)), x, rtol=1e-7, atol=1e-8)


@pytest.mark.slow
@given(problems(), st.floats(0.1, 1.0))
def test_seeds_2_is_the_published_update(p, r):
    x = p.x
    for i in p.steps:
        h, first = p.lam[i + 1] - p.lam[i], p.d(x, i)
        m = p.sde.time(torch.tensor(2 * (p.lam[i] + r * h), dtype=torch.float64))
        alpha, sigma = float(p.sde.alpha(m)), float(p.sde.sigma(m))
        u = sigma / p.sigma[i] * math.exp(-r * h) * x - alpha * math.expm1(-2 * r * h) * first
        u = u + sigma * math.sqrt(-math.expm1(-2 * r * h)) * p.z(i)
        mix = (1 - 1 / (2 * r)) * first + 1 / (2 * r) * MIXTURE.denoise(u, p.sde, m)
        x = p.sigma[i + 1] / p.sigma[i] * math.exp(-h) * x
        x = x - p.alpha[i + 1] * math.expm1(-2 * h) * mix
        early = math.exp(-2 * (1 - r) * h) * -math.expm1(-2 * r * h)
        late = -math.expm1(-2 * (1 - r) * h)
        x = x + p.sigma[i + 1] * (math.sqrt(early) * p.z(i) + math.sqrt(late) * p.z(i, 1))
    assert_close(p.run(TwoStage(r=r, tau=1.0)), x, rtol=1e-7, atol=1e-8)


def unipc(p, order):
    """UniPC with B(h) = e^h - 1 in data prediction: algorithms 5 to 8 with their systems."""
    x, known = p.x, []

    def update(x, i, values, new=None):
        h, m0 = p.lam[i + 1] - p.lam[i], values[0]
        r = [(p.lam[i - k] - p.lam[i]) / h for k in range(1, len(values))]
        d = [(value - m0) / rk for value, rk in zip(values[1:], r, strict=True)]
        if new is not None:
            r, d = [*r, 1.0], [*d, new - m0]
        # b_k = k! phi_{k+1}(-h) h / B(h), by the recursion of phi
        phi, b = math.expm1(-h) / -h - 1, []
        for k in range(1, len(r) + 1):
            b.append(math.factorial(k) * phi / math.expm1(-h))
            phi = phi / -h - 1 / math.factorial(k + 1)
        rows = np.vander(r, len(r), increasing=True).T if r else np.zeros((0, 0))
        weights = [0.5] if len(r) == 1 else np.linalg.solve(rows, b).tolist()
        tilt = sum(w * dk for w, dk in zip(weights, d, strict=True))
        change = math.expm1(-h) * p.alpha[i + 1]
        return p.sigma[i + 1] / p.sigma[i] * x - change * (m0 + tilt)

    before = x
    for i in p.steps:
        value = p.d(x, i)
        if i:
            x = update(before, i - 1, known[: min(order, i)], value)
        known = [value, *known]
        before, x = x, update(x, i, known[: min(order, i + 1)])
    return x


@pytest.mark.slow
@given(problems(), st.integers(1, 3))
def test_unipc_is_its_algorithm_with_the_corrector(p, order):
    assert_close(p.run(UniPC(order, order)), unipc(p, order), rtol=1e-6, atol=1e-6)


def test_deis_with_two_nodes_is_tab_1_in_closed_form_under_edm():
    p = Problem(EDMSDE(), EDMSDE().times(7))
    x, old, t = p.x, None, p.sigma
    for i in p.steps:
        new = (x - p.d(x, i)) / t[i]
        slope = 0 if old is None else (new - old) / (t[i] - t[i - 1])
        x = x + (t[i + 1] - t[i]) * new + (t[i + 1] - t[i]) ** 2 / 2 * slope
        old = new
    agree(p.run(DEIS(order=2)), x)


@pytest.mark.parametrize("sde", [VPSDE(), CosineSDE(), FlowSDE()])
def test_deis_integrates_a_parabola_in_time_over_the_noise(sde):
    p = Problem(sde, sde.times(5, spacing="log_snr"))
    known, y, t = [], p.x / p.alpha[0], p.times.tolist()

    def time(log_rho):
        return float(sde.time(torch.tensor(-2 * log_rho, dtype=torch.float64)))

    for i in p.steps:
        x = p.alpha[i] * y
        known = [(x - p.alpha[i] * p.d(x, i)) / p.sigma[i], *known[:2]]
        nodes = t[max(i - 2, 0) : i + 1][::-1]
        for j, value in enumerate(known):
            others = [node for k, node in enumerate(nodes) if k != j]

            def basis(at, one=nodes[j], others=others):
                return math.prod((at - other) / (one - other) for other in others)

            weight, _ = quad(
                lambda u, basis=basis: basis(time(u)) * math.exp(u), -p.lam[i], -p.lam[i + 1]
            )
            y = y + weight * value
    assert_close(p.run(DEIS()), p.alpha[-1] * y, rtol=1e-7, atol=1e-7)


@pytest.mark.slow
@given(problems(), st.floats(0.1, 1.5), st.booleans())
def test_sa_solver_of_two_nodes_has_the_exact_integrals_of_its_straight_line(p, tau, corrected):
    k, y, old = 1 + tau**2, p.x / p.alpha[0], None

    def update(y, i, value, other, where, z):
        """From level i to i + 1 on the line through `value` at i and `other` at `where`."""
        h = p.lam[i + 1] - p.lam[i]
        mass = -math.expm1(-k * h)
        first = h - mass / k
        slope = 0 if other is None else (value - other) / (p.lam[i] - p.lam[where])
        noise = p.rho[i + 1] * math.sqrt(-math.expm1(-2 * tau**2 * h))
        return math.exp(-k * h) * y + mass * value + first * slope + noise * z

    before = z = None
    for i in p.steps:
        value = p.d(p.alpha[i] * y, i)
        if i and corrected:
            y = update(before, i - 1, old, value, i, z)
        before, z = y, p.z(i)
        y = update(y, i, value, old, i - 1, z)
        old = value
    sampler = SASolver(order=2, corrector=int(corrected), tau=tau, window=(0.0, math.inf))
    assert_close(p.run(sampler), p.alpha[-1] * y, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("sde", [VESDE(0.01, 30.0), EDMSDE(), VPSDE(), FlowSDE()])
def test_er_sde_of_order_one_and_two_is_the_published_update(sde, order):
    p = Problem(sde, sde.times(6, spacing="log_snr"))
    y, old = p.x / p.alpha[0], None

    def phi(rho):
        return rho * (math.exp(rho**0.3) + 10)

    for i in p.steps:
        value, now, then = p.d(p.alpha[i] * y, i), p.rho[i], p.rho[i + 1]
        ratio = phi(then) / phi(now)
        y = ratio * y + (1 - ratio) * value
        y = y + math.sqrt(then**2 - ratio**2 * now**2) * p.z(i)
        if old is not None and order == 2:
            # in log rho, where the integrand is smooth
            area, _ = quad(
                lambda u: math.exp(u) / phi(math.exp(u)),
                math.log(then),
                math.log(now),
                epsabs=1e-13,
            )
            slope = (value - old) / (now - p.rho[i - 1])
            y = y + (then - now + phi(then) * area) * slope
        old = value
    agree(p.run(ERSDE(order=order)), p.alpha[-1] * y)


# Orders


FINE = VESDE(0.1, 50.0)  # the error of its first step is negligible at every order


@pytest.fixture(scope="module")
def flow_map():
    """Starts at T and the exact flow's ends at eps, by an integrator of order 8."""
    p = Problem(FINE, FINE.times(1), seed=1)

    def slope(log_rho, y):
        t = FINE.time(torch.tensor(-2 * log_rho, dtype=torch.float64))
        state = torch.from_numpy(y).reshape(p.x.shape)
        return (state - MIXTURE.denoise(state, FINE, t)).flatten().numpy()

    ends = [-level for level in p.lam]
    solution = solve_ivp(slope, ends, p.x.flatten().numpy(), "DOP853", rtol=1e-12, atol=1e-13)
    return p, torch.from_numpy(solution.y[:, -1]).reshape(p.x.shape)


@pytest.mark.slow
@pytest.mark.law(25)
@pytest.mark.parametrize(
    ("sampler", "order", "sizes"),
    [
        (DPMSolverPP(order=1), 1, (10, 20, 40, 80, 160)),
        (TwoStage(), 2, (10, 20, 40, 80, 160)),
        (TwoStage(r=1.0), 2, (10, 20, 40, 80, 160)),
        (DPMSolverPP(), 2, (10, 20, 40, 80, 160)),
        (DPMSolverPP(order=3), 3, (10, 20, 40, 80, 160)),
        (UniPC(1, 1), 2, (10, 20, 40, 80, 160)),
        (UniPC(2, 2), 3, (10, 20, 40, 80, 160)),
        (UniPC(3, 3), 3, (10, 20, 40, 80, 160)),
        (DEIS(2), 2, (10, 20, 40, 80, 160)),
        (DEIS(3), 3, (10, 20, 40, 80, 160)),
        (SASolver(3, 1, tau=0.0), 2, (10, 20, 40, 80, 160)),
        (TauMultistep(1, 3), 2, (10, 20, 40, 80, 160)),
        (TauMultistep(4, 3), 4, (20, 40, 80, 160, 240)),
        (TauMultistep(5, 4), 5, (20, 40, 80, 160, 240)),
        (Fast(), 3, (10, 20, 40, 80)),
    ],
)
def test_without_noise_a_method_converges_to_the_flow_map_at_its_order(
    flow_map, sampler, order, sizes
):
    p, exact = flow_map
    rsde = FINE.reverse(p.score, moments=p.score.facts.moments)
    scaled = []
    for n in sizes:
        *_, end = sampler.trajectory(rsde, p.x, sampler.times(FINE, n, rsde.moments), p.noise)
        scaled.append(float((end.x - exact).abs().max()) * n**order)
    assert max(scaled[-2:]) <= 2 * max(scaled[:3]), scaled


@pytest.mark.slow
@pytest.mark.law(25)
@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (DPMSolverPP(order=1, tau=1.0), 1),
        (DPMSolverPP(tau=1.0), 2),
        (DPMSolverPP(order=3, tau=1.0), 2),
        (SASolver(), 1),
        (ERSDE(), 3),
        (TwoStage(tau=1.0), 2),
    ],
)
def test_with_noise_mean_and_variance_converge_at_the_weak_order(sampler, order):
    sde, scaled = VPSDE(), []
    score = gaussian(sde, [0.7, -2.0], [0.25, 3.0])
    for n in (10, 20, 40, 80):
        times = sde.times(n, spacing="log_snr")
        (mean, var), (exact_mean, exact_var) = run(sampler, score, times), law(score, times[-1])
        error = max((mean - exact_mean).abs().max(), (var - exact_var).abs().max())
        scaled.append(float(error) * n**order)
    assert max(scaled[-2:]) <= 2 * max(scaled[:2]), scaled


@pytest.mark.slow
def test_from_little_noise_the_first_step_limits_the_order_to_two_and_with_a_corrector_to_three():
    sde = VESDE(0.1, 2.0)
    p = Problem(sde, sde.times(1), seed=1)

    def end(method, n):
        *_, state = method.trajectory(sde.reverse(p.score), p.x, even_times(sde, n), p.noise)
        return state.x

    exact = end(TauMultistep(6, 6), 400)
    plain = (DPMSolverPP(order=3), TauMultistep(4), DEIS(), LMS(), IPNDM())
    for methods, order in ((plain, 2), ((TauMultistep(4, 3), TauMultistep(5, 4)), 3)):
        for method in methods:
            coarse, fine = (float((end(method, n) - exact).abs().max()) for n in (50, 100))
            assert abs(math.log2(coarse / fine) - order) < 0.25, method


EVEN = sorted(name for name in SAMPLERS if "dpmpp" in name or name in {"unipc", "sa_solver"})


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EVEN, "deis", "er_sde", "pc", "seeds_2"])
def test_few_levels_of_a_table_are_as_good_as_the_continuous_process(name):
    """Levels that are even in the index, as DDPM takes them, are half of them of no use here."""
    sampler, errors = SAMPLERS[name], []
    for sde in (VPSDE(), BetaLadder(torch.linspace(1e-4, 0.02, 1000))):
        score = gaussian(sde, 1.3, 0.25)
        times = sampler.times(sde, 32)
        errors.append(abs(float(run(sampler, score, times)[1] / law(score, times[-1])[1]) - 1))
    assert errors[1] < 1.1 * errors[0] + 1e-3


@given(st.data(), ladders())
def test_the_levels_of_a_grid_are_the_nearest_to_even_ones_and_each_taken_once(data, sde):
    levels = sde.times()
    times = even_times(sde, data.draw(st.integers(1, len(levels) - 1)))
    assert (times.diff() < 0).all()
    assert torch.isin(times, levels).all()
    assert (times[0], times[-1]) == (levels[0], levels[-1])


# What is exact


@pytest.mark.slow
@given(st.data())
def test_fast_solves_the_gaussian_of_its_moments_in_any_number_of_steps(data):
    sde = data.draw(sdes())
    most = sde.levels - 1 if sde.levels else 6
    n, tau = data.draw(st.integers(1, min(most, 6))), data.draw(st.floats(0, 2))
    size = data.draw(st.integers(1, 3))
    mean = data.draw(st.lists(st.floats(-3, 3), min_size=size, max_size=size))
    var = data.draw(st.lists(log_floats(1e-3, 10), min_size=size, max_size=size))
    score = gaussian(sde, mean, var)
    sampler = Fast(order=3, tau=tau)  # with the default orders it is dpmpp_2m without a pilot
    times = sampler.times(sde, n, score.facts.moments)
    got, exact = run(sampler, score, times), law(score, times[-1])
    assert_close(got[0], exact[0], rtol=1e-9, atol=1e-9)
    assert_close(got[1], exact[1], rtol=1e-9, atol=0)


class Single:
    """No noise but for one of D numbers at one time."""

    def __init__(self, t, axis):
        self.t, self.axis = t, axis

    def normal(self, like, t, k=0):
        z = torch.zeros_like(like)
        z.flatten(1)[:, self.axis] = float(t) == self.t
        return z


@pytest.mark.parametrize("var", [1e-4, 1.0, 100.0])
@pytest.mark.parametrize("sde", [VPSDE(), EDMSDE()])
def test_the_noise_of_a_step_of_fast_does_not_depend_on_the_variance_of_the_data(sde, var):
    """So it is less than the noise at the end of the step, in modes of any width."""
    score, tau = Gaussian([0.0], var=[var]).at(sde), 0.4
    rsde, t, s = sde.reverse(score, moments=score.facts.moments), *even_times(sde, 4)[1:3]
    draws = (Fast(order=3, tau=tau).step(rsde, torch.zeros(1, 1).double(), t, s, noise)
             for noise in (Single(float(t), 0), Single(-1.0, 0)))  # fmt: skip
    gap = float(next(draws) - next(draws))
    ratio = math.exp(float(sde.log_snr(t) - sde.log_snr(s)) / 2)
    assert math.isclose(gap, float(sde.sigma(s)) * math.sqrt(1 - ratio ** (2 * tau**2)))


@pytest.mark.slow
@pytest.mark.parametrize("tau", [0.0, 0.7])
@pytest.mark.parametrize("sde", [VPSDE(), EDMSDE()])
def test_fast_solves_a_gaussian_with_a_full_covariance(sde, tau):
    d, generator = 4, torch.Generator().manual_seed(0)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    cov, mean = root @ root.T, torch.randn(2, 2, generator=generator, dtype=torch.float64)
    score, sampler = Gaussian(mean, cov=cov).at(sde), Fast(order=3, tau=tau)
    rsde, times = (
        sde.reverse(score, moments=score.facts.moments),
        sampler.times(sde, 3, score.facts.moments),
    )
    alpha, sigma = sde.alpha(times), sde.sigma(times)
    eye = torch.eye(d, dtype=torch.float64)
    covs = [a**2 * cov + s**2 * eye for a, s in zip(alpha, sigma, strict=True)]

    def end(x, noise):
        *_, state = sampler.trajectory(rsde, x.reshape(-1, 2, 2), times, noise)
        return state.x.reshape(-1, d)

    silent = Single(-1.0, 0)
    centre = end(alpha[0] * mean.reshape(1, d), silent)
    assert_close(centre, alpha[-1] * mean.reshape(1, d))
    a = (end(alpha[0] * mean.flatten() + eye, silent) - centre).T
    total = a @ covs[0] @ a.T
    for t in times[:-1].tolist():
        for axis in range(d):
            c = end(alpha[0] * mean.reshape(1, d), Single(t, axis)) - centre
            total = total + c.T @ c
    assert_close(total, covs[-1], rtol=1e-9, atol=1e-9 * float(covs[-1].abs().max()))
    if not tau:
        # the flow map: U_eps / U_T along every axis
        var, axes = torch.linalg.eigh(cov)
        ratio = (
            (alpha[-1] ** 2 * var + sigma[-1] ** 2) / (alpha[0] ** 2 * var + sigma[0] ** 2)
        ).sqrt()
        assert_close(a, axes @ ratio.diag() @ axes.T, rtol=1e-8, atol=1e-10)


# Interpolation


@given(generators(), st.integers(1, 6), st.integers(1, 8))
def test_lagrange_weights_sum_to_one_and_reproduce_polynomials(generator, m, q):
    nodes = torch.arange(m) + 0.8 * torch.rand(3, m, generator=generator, dtype=torch.float64)
    at = m * torch.rand(3, q, generator=generator, dtype=torch.float64)
    weights = lagrange(nodes, at)
    assert weights.shape == (3, q, m)
    assert_close(weights.sum(-1), torch.ones(3, q, dtype=torch.float64))
    powers = torch.arange(m)
    known, wanted = nodes[..., None] ** powers, at[..., None] ** powers
    assert_close(weights @ known, wanted, rtol=1e-7, atol=1e-6)
    assert_close(lagrange(nodes, nodes), torch.eye(m, dtype=torch.float64).expand(3, m, m))


@given(st.floats(-5, 5), st.floats(0.01, 3), st.integers(0, 2 * NODES - 1))
def test_quadrature_integrates_polynomials_exactly(start, width, degree):
    a, b = (torch.tensor([[v]], dtype=torch.float64) for v in (start, start + width))
    x, w = gauss_legendre(a, b)
    u = (x - a) / (b - a)
    assert_close((w * u**degree).sum(), (b - a).sum() / (degree + 1), rtol=1e-12, atol=0)


@given(log_floats(0.01, 10), log_floats(1.1, 10), log_floats(0.01, 10), log_floats(1, 100))
def test_a_window_counts_by_the_share_of_the_step_that_it_cuts(end, length, low, height):
    start, high, tau = end * length, low * height, 0.8
    sampler = SASolver(tau=tau, window=(low, high))
    ends = torch.tensor([[[start, end]]], dtype=torch.float64)
    share = (float(sampler.rate(ends[..., :1], ends)) - 1) / tau**2
    cut = math.log(min(start, high)) - math.log(max(end, low))
    assert abs(share - max(cut, 0) / math.log(length)) < 1e-9


# The last step to zero noise

ZERO = [VPSDE(eps=0.0), CosineSDE(eps=0.0), FlowSDE(eps=0.0), EDMSDE(eps=0.0)]


@pytest.mark.slow
@pytest.mark.parametrize("sde", ZERO, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize(
    "sampler",
    [DPMSolverPP(tau=1.0), UniPC(), SASolver(), ERSDE(), TauMultistep(2), Fast(corrector=0)],
    ids=lambda sampler: type(sampler).__name__,
)
def test_the_step_to_zero_noise_is_the_denoiser(sde, sampler):
    score = MIXTURE.at(sde)
    for n in (1, 5):
        times = sampler.times(sde, n, score.facts.moments)
        assert float(times[-1]) == 0
        p, asked = Problem(sde, times), []

        def spy(x, t, score=score, asked=asked):
            asked.append(MIXTURE.denoise(x, sde, t))
            return score(x, t)

        rsde = sde.reverse(spy, moments=score.facts.moments)
        *_, end = sampler.trajectory(rsde, p.x, times, p.noise)
        assert len(asked) == n
        assert_close(end.x, float(sde.alpha(times[-1])) * asked[-1], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fast", "fast_sde", "deis", "dpmpp_2s", "seeds_2"])
@pytest.mark.parametrize("sde", ZERO, ids=lambda sde: type(sde).__name__)
def test_other_methods_go_to_zero_noise_too_and_end_near_the_data(sde, name):
    x = sample(MIXTURE.at(sde), sde, name, n=64, steps=25, seed=0, denoise=False)
    distance = (x.double()[:, None] - MIXTURE.means).norm(
        dim=-1
    ) / MIXTURE.components.variances.sqrt().amax(-1)
    assert distance.amin(-1).max() < 6


@pytest.mark.parametrize("name", ["dpmpp_3m", "unipc", "deis", "fast"])
@pytest.mark.parametrize("unit", [1e-21, 1e-10, 1e4, 1e16])
def test_samples_have_the_units_of_the_data_however_small_or_large_these_are(name, unit):
    """Neither the product of a variance and a score nor their parts may leave the dtype."""
    dtype = torch.float64 if unit > 1e4 else torch.float32
    means, stds = torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=torch.float64), [0.3, 0.3]
    drawn = []
    for scale in (1.0, unit):
        target = GaussianMixture([0.5, 0.5], means * scale, stds=[s * scale for s in stds])
        score = target.at(VESDE(0.01 * scale, 50.0 * scale))
        x = sample(score, sampler=name, n=4, steps=8, seed=0, dtype=dtype, progress=False)
        drawn.append(x.double() / scale)
    assert_close(drawn[1], drawn[0], rtol=0, atol=1e-4)
